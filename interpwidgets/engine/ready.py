"""What a model and its tokenizer must be before they can be asked anything."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

from torch import nn

from .architecture import UnsupportedModel
from .version import modules


class TokenizerWarning(UserWarning):
    """The tokenizer and the model's vocabulary do not quite fit."""


def require_model(model: Any) -> None:
    """Raise TypeError for what is no model, ValueError for one whose weights are not there or that reads no tokens."""
    if isinstance(model, str):
        raise TypeError(f"a model is needed, not its name: iw.load({model!r}) loads it and opens a session")
    if not isinstance(model, nn.Module) or not hasattr(model, "get_input_embeddings"):
        raise TypeError(
            f"a Hugging Face language model is needed, such as AutoModelForCausalLM gives; got {type(model).__name__}"
        )
    if not hasattr(model.get_input_embeddings(), "weight"):  # type: ignore[operator]
        raise UnsupportedModel(f"{type(model).__name__} has no embedding of tokens: what it reads is not token ids")
    reads = inspect.signature(model.forward).parameters
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False) and "input_ids" not in reads:
        raise UnsupportedModel(
            f"the encoder of {type(model).__name__} reads {next(iter(reads))!r} and no token ids: interpwidgets works "
            "on text; AutoModelForCausalLM loads the decoder alone, where the family has that form"
        )
    # accelerate leaves a parameter on meta between calls when it keeps the weights elsewhere: that model runs.
    held = ((path, m) for path, m in model.named_modules() if not hasattr(m, "_hf_hook"))
    absent = next((path for path, m in held if any(p is not None and p.is_meta for p in m._parameters.values())), None)
    if absent is not None:
        raise ValueError(
            f"the model is on the meta device: {absent!r} has shapes but no values. Load the weights with "
            "from_pretrained, outside of any torch.device('meta'), or give it some with model.to_empty(device='cpu')"
        )


def require_still(model: nn.Module) -> None:
    """Raise ValueError if the same question would get another answer each time."""
    if any(module.training and _drops(module) for module in modules(model)):
        raise ValueError(
            "the model is in training mode and has dropout: two runs would differ by chance. Call model.eval() first"
        )


def require_fit(tokenizer: Any, n_vocab: int) -> None:
    """Raise TypeError for what is no tokenizer, ValueError for another model's; warn where it may be one."""
    if tokenizer is None:
        return
    if not callable(tokenizer) or not hasattr(tokenizer, "convert_ids_to_tokens"):
        inner = "; give its .tokenizer" if hasattr(tokenizer, "tokenizer") else ""
        raise TypeError(
            f"a tokenizer is needed, such as AutoTokenizer.from_pretrained gives, or none; got {tokenizer!r}{inner}"
        )
    size, own = len(tokenizer), getattr(tokenizer, "vocab_size", len(tokenizer))
    have = f"the tokenizer has {size} tokens, and the model's vocabulary {n_vocab} entries"
    if own > n_vocab:
        raise ValueError(f"{have}: this is another model's tokenizer. Take both from the same place")
    if size > n_vocab:
        warnings.warn(
            f"{have}: prompts with the tokens added from id {n_vocab} on are refused; "
            "model.resize_token_embeddings(len(tokenizer)) makes room for them",
            TokenizerWarning,
            stacklevel=3,
        )
    # Vocabularies are padded to round numbers, but not to twice their size.
    if 2 * size < n_vocab:
        warnings.warn(f"{have}: is this the model's tokenizer?", TokenizerWarning, stacklevel=3)


def _drops(module: nn.Module) -> bool:
    """Whether a module drops activations at random in training: a Dropout, or a rate that it hands to a function."""
    rates = [module.p] if isinstance(module, nn.Dropout) else [v for k, v in vars(module).items() if "drop" in k]
    return any(isinstance(rate, float) and rate > 0 for rate in rates)
