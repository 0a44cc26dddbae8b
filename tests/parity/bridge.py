"""TransformerLens as an oracle: its `TransformerBridge` around the weights of a model, without any hub."""

from __future__ import annotations

import copy

from tokenizers import Tokenizer, models
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedModel, PreTrainedTokenizerFast


def bridge_to(model: PreTrainedModel) -> TransformerBridge:
    """A bridge that computes with the very parameters of `model`; it takes token ids.

    Booting rewrites the module tree that it is given and switches it to eager attention, so it gets a tree of its
    own, whose parameters and buffers are those of the model.
    """
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    tree = copy.deepcopy(model, shared)
    # Booting asks for a tokenizer; one without BOS is taken as it is, any other is looked up by its name.
    words = Tokenizer(models.WordLevel({"token": 0}, unk_token="token"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="token", pad_token="token")
    return TransformerBridge.boot_transformers(
        model.config.model_type, hf_model=tree, tokenizer=tokenizer, device=str(model.device)
    )
