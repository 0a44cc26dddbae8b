"""TransformerLens as an oracle: its `TransformerBridge` around the weights of a session's model, without any hub."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformer_lens import ActivationCache
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import interpwidgets as iw

CLEAN = (5, 17, 3, 44, 17, 60, 8, 91)
CORRUPTED = (5, 17, 3, 21, 17, 60, 9, 91)
ANSWER, FOIL = 7, 19  # tokens that set the two prompts apart in every tiny model
IOI = "When John and Mary went to the store, {} gave the bag to"


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


@dataclass
class Pair:
    """One set of weights under both tools, and a task for it."""

    family: str
    session: iw.Session
    bridge: TransformerBridge
    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    answer: int
    foil: int
    logits: torch.Tensor  # TransformerLens' of the clean prompt, (position, token)
    cache: ActivationCache

    def difference(self, logits: torch.Tensor) -> torch.Tensor:
        return logits[0, -1, self.answer] - logits[0, -1, self.foil]

    def their_sweep(self, function: Callable[..., torch.Tensor], **arguments: object) -> np.ndarray:
        corrupted = torch.tensor([self.corrupted])
        with torch.no_grad():
            return function(self.bridge, corrupted, self.cache, self.difference, **arguments).numpy()

    def our_sweep(self, site: str, **arguments: object) -> np.ndarray:
        task = (self.session, self.clean, self.corrupted, site, self.answer, self.foil)
        return iw.patch_sweep(*task, normalize=False, **arguments).values


def paired(
    family: str, session: iw.Session, clean: tuple[int, ...], corrupted: tuple[int, ...], answer: int, foil: int
) -> Pair:
    bridge = bridge_to(session.model)
    bridge.set_use_attn_result(True)  # or hook_result never fires
    with torch.no_grad():
        logits, cache = bridge.run_with_cache(torch.tensor([clean]))
    bridge.set_use_attn_result(False)
    return Pair(family, session, bridge, clean, corrupted, answer, foil, logits[0], cache)


def assert_same(ours: object, theirs: object) -> None:
    """Equal to 1e-5 of the largest value."""
    a, b = np.asarray(ours), np.asarray(theirs)
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max()
