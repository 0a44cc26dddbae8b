"""TransformerLens 4.3 on the same weights gives the same logits, activations, logit lens and heatmaps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from transformer_lens import ActivationCache, patching
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import logit_lens
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import interpwidgets as iw
from tests.models import tiny
from tests.parity.bridge import bridge_to

CLEAN = (5, 17, 3, 44, 17, 60, 8, 91)
CORRUPTED = (5, 17, 3, 21, 17, 60, 9, 91)
IOI = "When John and Mary went to the store, {} gave the bag to"

RESIDUAL = {
    "resid_pre": patching.get_act_patch_resid_pre,
    "resid_mid": patching.get_act_patch_resid_mid,
    "attn_out": patching.get_act_patch_attn_out,
    "mlp_out": patching.get_act_patch_mlp_out,
}
HEADS = {
    "z": patching.get_act_patch_attn_head_out_all_pos,
    "q": patching.get_act_patch_attn_head_q_all_pos,
    "k": patching.get_act_patch_attn_head_k_all_pos,
    "v": patching.get_act_patch_attn_head_v_all_pos,
}
SWEEPS = RESIDUAL | HEADS


@dataclass
class Pair:
    """One set of weights under both tools, and a task for it."""

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

    def our_sweep(self, site: str) -> np.ndarray:
        task = (self.session, self.clean, self.corrupted, site, self.answer, self.foil)
        return iw.patch_sweep(*task, normalize=False).values


def paired(session: iw.Session, clean: tuple[int, ...], corrupted: tuple[int, ...], answer: int, foil: int) -> Pair:
    bridge = bridge_to(session.model)
    with torch.no_grad():
        logits, cache = bridge.run_with_cache(torch.tensor([clean]))
    return Pair(session, bridge, clean, corrupted, answer, foil, logits[0], cache)


@pytest.fixture(scope="module")
def demo() -> Iterator[Pair]:
    with iw.load() as session:
        clean, corrupted = (session.tokenize(IOI.format(name)).ids for name in ("Mary", "John"))
        yield paired(session, clean, corrupted, session.token_id(" John"), session.token_id(" Mary"))


@pytest.fixture(scope="module")
def gpt2() -> Iterator[Pair]:
    with iw.Session(tiny("gpt2")) as session:
        yield paired(session, CLEAN, CORRUPTED, 7, 11)


@pytest.fixture(scope="module")
def llama() -> Iterator[Pair]:
    with iw.Session(tiny("llama")) as session:
        yield paired(session, CLEAN, CORRUPTED, 7, 11)


@pytest.fixture(params=["gpt2", "llama"])
def small(request: pytest.FixtureRequest) -> Pair:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["gpt2", "llama", "demo"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return request.getfixturevalue(request.param)


def assert_same(ours: object, theirs: object) -> None:
    """Equal to 1e-5 of the largest value."""
    a, b = np.asarray(ours), np.asarray(theirs)
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max()


def test_both_compute_with_the_same_tensors(small):
    ours = {p.data_ptr() for p in small.session.model.parameters()}
    assert ours <= {p.data_ptr() for p in small.bridge.original_model.parameters()}


@pytest.mark.parametrize("site", SWEEPS)
def test_whole_sweeps_are_equal(small, site):
    theirs = small.their_sweep(SWEEPS[site])
    assert_same(small.our_sweep(site), theirs)
    assert np.ptp(theirs) > 0.01 * np.abs(theirs).max()  # the oracle is not flat


@pytest.mark.parametrize("site", SWEEPS)
def test_chosen_cells_of_the_demo_model_are_equal(demo, site):
    # Position 2 is the same in both prompts, 10 is the name that differs, 14 the last.
    inner = ("pos", (2, 10, 11, 14)) if site in RESIDUAL else ("head", (0, 2))
    cells = [(layer, i) for layer in (0, 10, 20, 29) for i in inner[1]]
    chosen = pd.DataFrame(cells, columns=["layer", inner[0]])
    theirs = demo.their_sweep(partial(SWEEPS[site], index_axis_names=None), index_df=chosen)
    ours = demo.our_sweep(site)
    assert_same([ours[cell] for cell in cells], theirs)


def test_key_value_heads_are_swept_one_by_one_in_both(demo):
    # Three query heads share one key/value head: both tools count the latter for k and v.
    theirs = demo.bridge.cfg.n_layers, demo.bridge.cfg.n_key_value_heads
    assert demo.our_sweep("v").shape == theirs == (30, 3)


def test_logits_are_equal(pair):
    assert_same(pair.session.run(pair.clean).logits, pair.logits)


@pytest.mark.parametrize(
    "name",
    [
        "hook_embed", "blocks.0.hook_resid_pre", "blocks.1.hook_resid_mid", "blocks.2.hook_resid_post",
        "blocks.1.hook_attn_out", "blocks.1.hook_mlp_out", "blocks.1.attn.hook_v", "blocks.1.attn.hook_z",
        "blocks.1.attn.hook_pattern", "blocks.3.mlp.hook_pre", "blocks.3.mlp.hook_post", "ln_final.hook_out",
    ],
)  # fmt: skip
def test_their_names_capture_their_values(pair, name):
    assert_same(pair.session.run(pair.clean, capture=name)[name], pair.cache[name][0])


def test_scores_are_equal_where_the_mask_lets_through(pair):
    # Masked scores are -inf in ours and in TransformerLens the lowest finite number or -inf, by family.
    name = "blocks.1.attn.hook_attn_scores"
    ours = pair.session.run(pair.clean, capture=name)[name].values
    below = np.tril(np.ones(ours.shape[-2:], dtype=bool))
    assert_same(ours[:, below], pair.cache[name][0].numpy()[:, below])
    assert np.isneginf(ours[:, ~below]).all()
    assert (pair.cache[name][0].numpy()[:, ~below] < -1e30).all()


def test_their_normalized_final_stream_is_not_our_ln_final(small):
    # hook_normalized is taken before the norm's weight and bias, ln_final is what enters the unembedding.
    theirs = small.cache["ln_final.hook_normalized"][0].numpy()
    ours = small.session.run(small.clean, capture="ln_final")["ln_final"].values
    assert np.abs(ours - theirs).max() > 0.01
    with pytest.raises(ValueError, match=r"unknown site 'ln_final\.hook_normalized'"):
        small.session.run(small.clean, capture="ln_final.hook_normalized")


@pytest.mark.parametrize("site", ["q", "k"])
def test_queries_and_keys_of_learned_positions_are_equal(gpt2, site):
    name = f"blocks.1.attn.hook_{site}"
    assert_same(gpt2.session.run(CLEAN, capture=name)[name], gpt2.cache[name][0])


@pytest.mark.parametrize("site", ["q", "k"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_our_queries_and_keys_are_theirs_after_norm_and_rotary(family, site):
    # TransformerLens' hook_q is the projection's output; ours is what enters q·k, TransformerLens' hook_rot_q.
    with iw.Session(tiny(family)) as session:
        pair = paired(session, CLEAN, CORRUPTED, 7, 11)
        ours = session.run(CLEAN, capture=site)[site].sel(layer=1)
        if family == "qwen3":
            x = pair.cache[f"blocks.1.attn.hook_{site}_normed"]  # (1, head, position, d_head)
        else:
            x = pair.cache[f"blocks.1.attn.hook_{site}"].transpose(1, 2)  # (1, head, position, d_head)
        cos, sin = session.model.model.rotary_emb(x, torch.arange(len(CLEAN))[None])
        rotated, _ = apply_rotary_pos_emb(x, x, cos, sin)
        assert_same(ours, rotated[0].transpose(0, 1))
        name = f"blocks.1.attn.hook_rot_{site}"
        assert_same(session.run(CLEAN, capture=name)[name], pair.cache[name][0])


def test_logit_lens_is_equal_and_ranks_count_from_0_in_both(pair):
    final = int(pair.logits[-1].argmax())
    targets = torch.tensor([[*pair.clean[1:], final]])
    ask = partial(logit_lens, pair.bridge, cache=pair.cache, positions=None, return_type="probs")
    with torch.no_grad():
        their_top, their_target = ask(top_k=5).readout, ask(targets=targets).readout
    ours = iw.logit_lens(pair.session, pair.clean, ["rank", "cross_entropy", "entropy"], top_k=5)
    assert_same(ours.top_probability, their_top.values[:, 0])
    assert np.abs(ours.entropy.values - their_top.entropy[:, 0].numpy()).max() < 1e-4
    at_target = np.exp(-ours.cross_entropy.values[:, :-1])
    assert np.abs(at_target - their_target.values[:, 0, :-1, 0].numpy()).max() < 1e-5
    # Among 49152 tokens, rounding can swap neighbours far down the list.
    ranks = their_target.target_ranks[:, 0, :, 0].numpy()
    assert (np.abs(ours["rank"].values - ranks) <= 1e-3 * ranks).all()
    assert ours["rank"].values[-1, -1] == ranks[-1, -1] == 0
