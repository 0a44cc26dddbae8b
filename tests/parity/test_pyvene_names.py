"""pyvene's component names give what plain hooks on the modules that pyvene 0.1.8 names for them see."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import interpwidgets as iw
from tests.models import tiny
from tests.parity.bridge import CLEAN, assert_same

LAYER = 2
# Component -> module of a block, and whether its input or its output is meant.
LLAMA = {
    "block_input": ("", "input"), "block_output": ("", "output"),
    "attention_output": ("self_attn", "output"), "mlp_output": ("mlp", "output"),
    "head_attention_value_output": ("self_attn.o_proj", "input"), "head_value_output": ("self_attn.v_proj", "output"),
}  # fmt: skip
GPT2 = {
    "block_input": ("", "input"), "block_output": ("", "output"),
    "attention_output": ("attn", "output"), "mlp_output": ("mlp", "output"),
    "head_attention_value_output": ("attn.c_proj", "input"),
}  # fmt: skip


def seen(model: nn.Module, module: nn.Module, side: str) -> Tensor:
    """A module's input or output on the prompt, (position, width), by a plain hook."""
    kept: list[Tensor] = []

    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        value = output if side == "output" else args[0] if args else kwargs["hidden_states"]
        kept.append(value[0][0] if isinstance(value, tuple) else value[0])

    handle = module.register_forward_hook(hook, with_kwargs=True)
    with torch.no_grad():
        model(torch.tensor([CLEAN]))
    handle.remove()
    return kept[0]


@pytest.mark.parametrize(
    ("family", "blocks", "table"), [("llama", "model.layers", LLAMA), ("gpt2", "transformer.h", GPT2)]
)
def test_their_names_capture_what_their_modules_see(family, blocks, table):
    with iw.Session(tiny(family)) as session:
        block = session.model.get_submodule(f"{blocks}.{LAYER}")
        for name, (path, side) in table.items():
            ours = session.run(CLEAN, capture=name)[name].sel(layer=LAYER).values
            theirs = seen(session.model, block.get_submodule(path), side)
            assert_same(ours, theirs.reshape(ours.shape))  # pyvene, too, splits heads by reshaping


def test_a_gated_mlps_activation_is_none_of_our_sites():
    # pyvene's mlp_activation is the nonlinearity's output; a gated MLP multiplies it by the up projection before the
    # down projection reads it, which is our mlp_post.
    with iw.Session(tiny("llama")) as session:
        mlp = session.model.model.layers[LAYER].mlp
        activation, up = (seen(session.model, module, "output") for module in (mlp.act_fn, mlp.up_proj))
        assert_same(session.run(CLEAN, capture="mlp_post")["mlp_post"].sel(layer=LAYER), activation * up)
        with pytest.raises(ValueError, match="unknown site 'mlp_activation'"):
            session.run(CLEAN, capture="mlp_activation")
