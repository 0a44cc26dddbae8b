"""The one-pass sweep equals one forward pass per cell, and behaves: budget, progress, cancel, order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

import interpwidgets as iw
from interpwidgets.engine.forward import Cancelled
from interpwidgets.engine.jobs import Ticket
from interpwidgets.engine.plan import row_bytes
from interpwidgets.methods.cells import HEAD_SITES, RESIDUAL_SITES, grid
from tests.conformance import families as conformance
from tests.models import FAMILIES, tiny
from tests.twin import sweep_one_by_one

CLEAN = (5, 17, 3, 44, 17, 60, 8, 91)
CORRUPTED = (5, 17, 3, 21, 17, 60, 9, 91)
ANSWER, FOIL = 7, 11


@pytest.fixture(scope="module", params=FAMILIES)
def session(request):
    with iw.Session(tiny(request.param)) as session:
        yield session


@pytest.fixture(scope="module")
def llama():
    with iw.Session(tiny("llama")) as session:
        yield session


def logit_difference(logits):
    return logits[:, ANSWER] - logits[:, FOIL]


def rows_of(session, site, source=CLEAN, layer=None):
    where = grid(session, site, session.tokenize(source), layer=layer)
    return [[iw.Patch(site, layer=c.layer, head=c.head, position=c.position, source=source)] for c in where.cells], (
        where.shape
    )


@pytest.mark.parametrize("site", RESIDUAL_SITES + HEAD_SITES)
def test_patch_sweep_equals_one_forward_per_cell(session, site):
    if site not in session.engine.sites(0):
        with pytest.raises(ValueError, match=f"has no {site!r}"):
            iw.patch_sweep(session, CLEAN, CORRUPTED, site)
        return
    assert session.checked.one_pass
    rows, shape = rows_of(session, site)
    expected = sweep_one_by_one(session, CORRUPTED, rows, logit_difference).reshape(shape)
    swept = iw.patch_sweep(session, CLEAN, CORRUPTED, site, ANSWER, FOIL, normalize=False)
    scale = np.abs(expected).max()
    assert np.abs(swept.values - expected).max() <= 1e-5 * scale
    assert np.ptp(expected) > 0.05 * scale  # the oracle itself is not flat


def test_heads_by_position_of_one_layer(session):
    rows, shape = rows_of(session, "z", layer=2)
    expected = sweep_one_by_one(session, CORRUPTED, rows, logit_difference).reshape(shape)
    swept = iw.patch_sweep(session, CLEAN, CORRUPTED, "z", ANSWER, FOIL, normalize=False, layer=2)
    assert swept.dims == ("head", "position")
    assert np.abs(swept.values - expected).max() <= 1e-5 * np.abs(expected).max()


def test_full_batch_form_equals_the_one_pass_form(session):
    rows, _ = rows_of(session, "z")
    one = session.sweep(CORRUPTED, rows, logit_difference)
    holds = session.checked
    object.__setattr__(holds, "one_pass", False)
    try:
        full = session.sweep(CORRUPTED, rows, logit_difference)
    finally:
        object.__setattr__(holds, "one_pass", True)
    assert np.abs(one.values - full.values).max() <= 1e-5 * np.abs(full.values).max()


def test_rows_of_every_kind_in_one_sweep(llama):
    rows = [
        [iw.Ablate("z", layer=3, head=1)],
        [iw.Ablate("embed", position=2)],
        [iw.CutEdge(layer=1, head=0, query=7, key=3)],
        [iw.Steer("resid_mid", np.ones(32), layer=0, position=5), iw.Ablate("mlp_out", layer=2)],
        [],
        [iw.Scale("mlp_post", -1, layer=3)],
        [iw.Noise("resid_pre", 0.5, layer=2, seed=1)],
        [iw.Ablate("ln_final", position=7)],
    ]
    expected = sweep_one_by_one(llama, CLEAN, rows, logit_difference)
    swept = llama.sweep(CLEAN, rows, logit_difference)
    assert np.abs(swept.values - expected).max() <= 1e-5 * np.abs(expected).max()
    assert swept.values[4] == swept.base


def test_base_interventions_act_in_every_row(llama):
    base = [iw.Ablate("z", layer=0, head=2, how="mean"), iw.Scale("k", 0.5, layer=2)]
    rows = [[iw.Ablate("z", layer=i, head=h)] for i in range(4) for h in range(4)]
    expected = sweep_one_by_one(llama, CLEAN, rows, logit_difference, base)
    swept = llama.sweep(CLEAN, rows, logit_difference, interventions=base)
    assert np.abs(swept.values - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    "base",
    [
        (iw.Ablate("z", layer=0, head=2, how="mean"),),
        (iw.Ablate("z", layer=0, head=2), iw.CutEdge(layer=1, head=1, query=6, key=1)),
        (iw.Scale("k", 0.5, layer=1),),
        (iw.Noise("embed", 0.5), iw.Steer("resid_pre", np.ones(32), layer=1)),
    ],
    ids=lambda base: base[0].site,
)
def test_patching_under_interventions_reads_the_source_under_them_too(llama, base):
    swept = iw.patch_sweep(llama, CLEAN, CORRUPTED, "resid_pre", ANSWER, FOIL, interventions=base)
    source = llama.run(CLEAN, capture="resid_pre", interventions=base)["resid_pre"]
    patch = iw.Patch("resid_pre", layer=2, position=3, source=source.sel(layer=2, position=3).values)
    one = llama.run(CORRUPTED, interventions=[*base, patch]).logits.values[-1:]
    expected = (float(logit_difference(one)[0]) - swept.attrs["corrupted"]) / (
        swept.attrs["clean"] - swept.attrs["corrupted"]
    )
    assert float(swept.sel(layer=2, position=3)) == pytest.approx(expected, abs=1e-5)


def test_a_small_budget_splits_the_sweep_and_changes_nothing(llama, monkeypatch):
    rows, _ = rows_of(llama, "resid_pre")
    whole = llama.sweep(CORRUPTED, rows, logit_difference)
    monkeypatch.setattr(llama, "memory_budget", 6 * row_bytes(llama.engine, 8, 8))
    parts = []
    split = llama.sweep(CORRUPTED, rows, logit_difference, partial=lambda v: parts.append(np.isfinite(v).sum()))
    sizes = np.diff([0, *parts])
    assert 1 < max(sizes) <= 2 * 6  # rows have half of their positions on average
    assert sum(sizes) == len(rows)
    assert np.abs(split.values - whole.values).max() <= 1e-5 * np.abs(whole.values).max()


def test_progress_rises_to_the_number_of_rows(llama):
    seen = []
    iw.patch_sweep(llama, CLEAN, CORRUPTED, "resid_pre", ANSWER, FOIL, progress=lambda *p: seen.append(p))
    done = [d for d, _ in seen]
    assert done == sorted(done)
    # 4 layers x 5 positions from the first difference on, less 3 tokens that are the same in both prompts' embedding:
    # what is left out is exactly zero.
    assert seen[-1] == (17, 17)


def test_partial_results_fill_up_and_are_already_right(llama):
    rows = [[iw.Ablate("z", layer=i % 4, head=h, position=p)] for i in range(4) for h in range(4) for p in range(8)] * 2
    final = llama.sweep(CLEAN, rows, logit_difference).values
    parts = []
    llama.sweep(CLEAN, rows, logit_difference, partial=lambda v: parts.append(v.copy()))
    known = [int(np.isfinite(p).sum()) for p in parts]
    assert len(parts) > 1
    assert known == sorted(known)
    assert known[-1] == len(rows)
    for part in parts:
        assert np.nanmax(np.abs(part - final)) <= 1e-5 * np.abs(final).max()


def test_a_cancelled_sweep_stops_between_blocks_and_leaves_nothing_behind(llama):
    rows, _ = rows_of(llama, "resid_pre")
    reached = []

    def cancel_in_block_2(done, total):
        reached.append(done)
        if len(reached) == 2:
            ticket.cancel()

    outcome = []

    def job(_):
        try:
            llama.sweep(CORRUPTED, rows, logit_difference, progress=cancel_in_block_2)
        except Cancelled:
            outcome.append("cancelled")

    ticket = Ticket(job)
    ticket.run()
    assert outcome == ["cancelled"]
    assert len(reached) == 2
    with torch.no_grad():
        plain = llama.model(torch.tensor([CLEAN])).logits[0]
    assert np.abs(llama.run(CLEAN).logits.values - plain.numpy()).max() < 1e-5
    assert llama.model.config._attn_implementation == "sdpa"


def test_cells_before_the_first_difference_are_exactly_zero(llama):
    swept = iw.patch_sweep(llama, CLEAN, CORRUPTED, "resid_pre", ANSWER, FOIL)
    assert (swept.sel(position=slice(0, 2)) == 0).all()
    assert (swept.sel(position=slice(3, 7)) != 0).any()


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_patching_every_position_of_the_first_block_moves_all_of_the_gap(llama, direction):
    base, source = (CORRUPTED, CLEAN) if direction == "denoise" else (CLEAN, CORRUPTED)
    swept = llama.sweep(base, [[iw.Patch("resid_pre", layer=0, source=source)]], logit_difference)
    expected = float(logit_difference(llama.run(source).logits.values[-1:])[0])
    assert swept.values[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("metric", ["logit_diff", "log_probability", "probability", "kl"])
def test_metrics_and_normalisation_by_hand(llama, metric, direction):
    def measure(logits):
        log_p = torch.from_numpy(logits).log_softmax(-1)
        clean = torch.from_numpy(llama.run(CLEAN).logits.values[-1]).log_softmax(-1)
        return {
            "logit_diff": float(logits[ANSWER] - logits[FOIL]),
            "log_probability": float(log_p[ANSWER]),
            "probability": float(log_p[ANSWER].exp()),
            "kl": float((clean.exp() * (clean - log_p)).sum()),
        }[metric]

    base, source = (CORRUPTED, CLEAN) if direction == "denoise" else (CLEAN, CORRUPTED)
    patch = iw.Patch("resid_pre", layer=2, position=6, source=source)
    patched = measure(llama.run(base, interventions=[patch]).logits.values[-1])
    clean, corrupted = (measure(llama.run(p).logits.values[-1]) for p in (CLEAN, CORRUPTED))
    raw = iw.patch_sweep(llama, CLEAN, CORRUPTED, "resid_pre", ANSWER, FOIL, metric, direction, normalize=False)
    share = iw.patch_sweep(llama, CLEAN, CORRUPTED, "resid_pre", ANSWER, FOIL, metric, direction)
    assert float(raw.sel(layer=2, position=6)) == pytest.approx(patched, abs=1e-5)
    assert float(share.sel(layer=2, position=6)) == pytest.approx((patched - corrupted) / (clean - corrupted), abs=2e-5)
    assert raw.attrs["clean"] == pytest.approx(clean, abs=1e-5)


def test_a_zero_gap_warns_and_gives_raw_values(llama):
    with pytest.warns(UserWarning, match="score the same"):
        swept = iw.patch_sweep(llama, CLEAN, CLEAN, "resid_pre", ANSWER, FOIL)
    assert not swept.attrs["normalized"]
    assert np.allclose(swept, swept.attrs["clean"])


def test_prompts_of_different_length_are_refused_with_both_shown(llama):
    with pytest.raises(ValueError, match="clean has 8, corrupted has 7") as error:
        iw.patch_sweep(llama, CLEAN, CORRUPTED[:7])
    lines = str(error.value).splitlines()
    assert lines[1].split() == [str(i) for i in CLEAN]
    assert lines[2].split() == [*(str(i) for i in CORRUPTED[:7]), "—"]
    assert lines[3].index("^") == lines[1].index("44")


def test_answers_default_to_the_two_runs_own_predictions_but_never_to_the_same_token(llama):
    swept = iw.patch_sweep(llama, CLEAN, CORRUPTED)
    assert swept.attrs["answer"] == int(llama.run(CLEAN).logits.values[-1].argmax())
    first, second = llama.run(CORRUPTED).logits.values[-1].argsort()[::-1][:2]
    assert swept.attrs["foil"] == (second if first == swept.attrs["answer"] else first)
    assert swept.attrs["normalized"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"site": "mlp_pre"}, "cannot be swept"),
        ({"site": "mlp_post"}, "neurons of one layer: give layer="),
        ({"site": "pattern", "head": 1}, "site='pattern' and a layer are needed"),
        ({"neurons": 5}, "chosen from one layer of 'mlp_post'"),
        ({"neurons": [1]}, "neurons are entries of 'mlp_post'"),
        ({"site": "mlp_post", "layer": 1, "neurons": 0}, "neurons=0: a positive number, or a list of neurons"),
        ({"site": "mlp_post", "layer": 1, "neurons": -5}, "neurons=-5: a positive number"),
        ({"site": "mlp_post", "layer": 1, "by_position": True}, "by_position shows .* 'mlp_post' has none"),
        ({"site": "resid_preee"}, "did you mean 'resid_pre'"),
        ({"metric": "logits"}, "unknown metric"),
        ({"direction": "both"}, "unknown direction 'both': one of denoise, noise"),
    ],
)
def test_bad_arguments_are_refused(llama, arguments, message):
    with pytest.raises(ValueError, match=message):
        iw.patch_sweep(llama, CLEAN, CORRUPTED, **arguments)


def test_a_plan_says_what_the_sweep_then_computes(llama, monkeypatch):
    rows, _ = rows_of(llama, "resid_pre")
    plan = llama.plan(CORRUPTED, rows)
    blocks = llama.engine.architecture.blocks
    seen = []
    handles = [b.module.register_forward_pre_hook(lambda m, args: seen.append(args[0].shape[1])) for b in blocks]
    llama.sweep(CORRUPTED, rows, logit_difference)
    for handle in handles:
        handle.remove()
    # 4 layers x 8 positions, as many blocks as follow. Each block also computes the undisturbed run, and the source,
    # which a foreign hook made us forget.
    assert plan.tokens == sum((8 - p) * (4 - layer) for layer in range(4) for p in range(8)) == sum(seen) - 2 * 4 * 8
    assert (len(plan.passes), plan.rows) == (1, 32)
    # By hand: attention 32x32 queries and outputs, 2 x 32x16 keys and values, MLP 3 x 32x48; q·k and weights·v.
    matrices = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48) * plan.tokens
    pairs = sum(q + 1 for layer in range(4) for p in range(8) for q in range(p, 8) for _ in range(4 - layer))
    assert plan.flops == matrices + 2 * 2 * 32 * pairs
    assert str(plan).startswith("32 rows in 1 pass: 360 tokens through a block (as in 11.2 forward passes)")
    monkeypatch.setattr(llama, "memory_budget", plan.bytes // 2)
    halves = llama.plan(CORRUPTED, rows)
    assert len(halves.passes) > 1
    assert max(p.bytes for p in halves.passes) == halves.bytes <= llama.memory_budget
    assert (halves.rows, halves.tokens) == (plan.rows, plan.tokens)


def test_what_follows_the_answer_is_not_computed_and_does_not_matter(llama):
    rows = [[iw.Ablate("z", layer=i, head=1, position=p)] for i in range(4) for p in range(8)]
    later = iw.Ablate("mlp_out", layer=0, position=6)
    rows += [[iw.Scale("resid_post", 0.5, layer=i, position=3), later] for i in range(4)]
    swept = llama.sweep(CLEAN, rows, logit_difference, answer_position=4)
    expected = [
        logit_difference(torch.from_numpy(llama.run(CLEAN, interventions=row).logits.values[4:5])) for row in rows
    ]
    assert np.abs(swept.values - np.array(expected)[:, 0]).max() <= 1e-5 * np.abs(expected).max()
    assert llama.plan(CLEAN, rows, answer_position=4).rows == 4 * 5 + 4


def replaced(session, site, layer, index):
    """The corrupted run's (position, [head,] width) with the clean run's value at an index."""
    old, new = (session.run(p, capture=site).tensor(site, layer).clone() for p in (CORRUPTED, CLEAN))
    old[index] = new[index]
    return old.numpy()


@pytest.mark.parametrize("session", ["llama", "mistral", "gpt2", "gpt_neox"], indirect=True)
def test_heads_by_layer_and_position(session):
    swept = iw.patch_sweep(session, CLEAN, CORRUPTED, "z", ANSWER, FOIL, normalize=False, by_position=True)
    assert swept.dims == ("layer", "head", "position")
    rows = [
        [iw.Patch("z", layer=i, head=h, position=p, source=CLEAN)] for i in range(4) for h in range(4) for p in range(8)
    ]
    expected = sweep_one_by_one(session, CORRUPTED, rows, logit_difference).reshape(4, 4, 8)
    assert np.abs(swept.values - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("session", ["llama", "mistral", "gpt2", "gemma3_text"], indirect=True)
def test_patterns_by_head_and_by_single_edge(session):
    heads = iw.patch_sweep(session, CLEAN, CORRUPTED, "pattern", ANSWER, FOIL, normalize=False)
    rows = [[iw.Patch("pattern", layer=i, head=h, source=CLEAN)] for i in range(4) for h in range(4)]
    expected = sweep_one_by_one(session, CORRUPTED, rows, logit_difference).reshape(4, 4)
    assert np.abs(heads.values - expected).max() <= 1e-5 * np.abs(expected).max()
    edges = iw.patch_sweep(session, CLEAN, CORRUPTED, "pattern", ANSWER, FOIL, normalize=False, layer=1, head=2)
    assert edges.dims == ("query", "key")
    assert list(edges["clean_key_token"].values) == [str(i) for i in CLEAN]
    for q, k in [(3, 3), (5, 3), (7, 6), (7, 7)]:
        array = replaced(session, "pattern", 1, (q, 2, k))
        patch = iw.Patch("pattern", layer=1, head=2, source=array[:, 2])
        (one,) = sweep_one_by_one(session, CORRUPTED, [[patch]], logit_difference)
        assert float(edges[q, k]) == pytest.approx(one, rel=1e-5)
    assert np.isnan(edges.values[np.triu_indices(8, 1)]).all()
    assert (edges[:3, :3].values[np.tril_indices(3)] == edges.attrs["corrupted"]).all()


@pytest.mark.parametrize("session", ["llama", "gpt2", "opt"], indirect=True)
def test_neurons_of_one_layer(session):
    swept = iw.patch_sweep(session, CLEAN, CORRUPTED, "mlp_post", ANSWER, FOIL, normalize=False, layer=1)
    assert swept.dims == ("neuron",)
    rows = [[iw.Patch("mlp_post", layer=1, source=replaced(session, "mlp_post", 1, (slice(None), n)))] for n in (0, 7)]
    expected = sweep_one_by_one(session, CORRUPTED, rows, logit_difference)
    assert np.abs(swept.values[[0, 7]] - expected).max() <= 1e-5 * np.abs(expected).max()
    some = iw.patch_sweep(session, CLEAN, CORRUPTED, "mlp_post", ANSWER, FOIL, normalize=False, layer=1, neurons=[7, 0])
    assert list(some["neuron"].values) == [7, 0]
    assert np.abs(some.values - swept.values[[7, 0]]).max() <= 1e-5 * np.abs(expected).max()


def test_sets_of_sites_are_patched_together(llama):
    sets = [
        [iw.Site("z", 1, 2), iw.Site("mlp_out", 2, position=6)],
        [iw.Site("resid_post", 3, position=7)],
        [iw.Site("pattern", 0, 1), iw.Site("z", 3, (0, 1)), iw.Site("mlp_post", 1)],
    ]
    swept = iw.patch_sets(llama, CLEAN, CORRUPTED, sets, ANSWER, FOIL, normalize=False)
    rows = [
        [iw.Patch(s.name, layer=s.layer, head=s.head, position=s.position, source=CLEAN) for s in each] for each in sets
    ]
    expected = sweep_one_by_one(llama, CORRUPTED, rows, logit_difference)
    assert np.abs(swept.values - expected).max() <= 1e-5 * np.abs(expected).max()
    assert swept["sites"].values[0] == "z layer 1 head 2 + mlp_out layer 2 position 6"


# Mixture of experts, ALiBi, attention and recurrence in turns, sinks, compressed keys, one key for all heads, a model
# that reads both ways: rows of one sequence where that can be, the full batch where not.
OTHER_KINDS = ("mixtral", "bloom", "jamba", "gpt_oss", "deepseek_v3", "gpt_bigcode", "falcon")


@pytest.fixture(scope="module", params=OTHER_KINDS)
def other_kind(request):
    with iw.Session(conformance.tiny(request.param)) as session:
        yield session


def test_every_form_on_other_kinds_of_models(other_kind):
    layer = max(i for i in range(other_kind.engine.architecture.n_layers) if "pattern" in other_kind.engine.sites(i))
    forms = [
        ("resid_post", {}, lambda c: {"layer": c[0], "position": c[1]}),
        ("z", {"by_position": True}, lambda c: {"layer": c[0], "head": c[1], "position": c[2]}),
        ("pattern", {}, lambda c: {"layer": c[0], "head": c[1]}),
        ("mlp_out", {}, lambda c: {"layer": c[0], "position": c[1]}),
    ]
    for site, options, address in forms:
        swept = iw.patch_sweep(other_kind, CLEAN, CORRUPTED, site, ANSWER, FOIL, normalize=False, **options)
        places = list(np.ndindex(swept.shape))[:: max(1, swept.size // 9)]
        cells = [(int(swept["layer"][p[0]]), *p[1:]) for p in places]
        rows = [[iw.Patch(site, source=CLEAN, **address(cell))] for cell in cells]
        expected = sweep_one_by_one(other_kind, CORRUPTED, rows, logit_difference)
        got = np.array([swept.values[place] for place in places])
        scale = max(np.abs(expected).max(), 1.0)
        assert np.abs(got - expected).max() <= 1e-5 * scale, site
    zeroed = iw.ablation_sweep(other_kind, CLEAN, "pattern", answer=ANSWER, foil=FOIL, layer=layer, head=1)
    edges = [(7, 0), (6, 6), (5, 2)]
    cuts = [[iw.CutEdge(layer=layer, head=1, query=q, key=k, renormalize=False)] for q, k in edges]
    base, *expected = sweep_one_by_one(other_kind, CLEAN, [[], *cuts], logit_difference)
    assert np.abs([zeroed.values[e] + base - x for e, x in zip(edges, expected, strict=True)]).max() <= 1e-5 * max(
        abs(base), 1.0
    )


def test_a_model_that_reads_both_ways_has_every_row_whole():
    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    model = BertForMaskedLM(BertConfig(**sizes, num_attention_heads=4, max_position_embeddings=64)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4.0 if weight.dim() > 1 else 1.0)
    with iw.Session(model) as session:
        assert session.checked.one_pass
        for site, axis in (("resid_pre", "position"), ("z", "head")):
            rows = [[iw.Patch(site, layer=i, source=CLEAN, **{axis: j})] for i in range(3) for j in range(4)]
            swept = session.sweep(CORRUPTED, rows, logit_difference, answer_position=2)
            logits = [session.run(CORRUPTED, interventions=row).logits.values[2:3] for row in rows]
            expected = np.array([logit_difference(x)[0] for x in logits])
            assert np.abs(swept.values - expected).max() <= 1e-5 * np.abs(expected).max()
            assert np.ptp(expected) > 1e-2
        assert session.plan(CORRUPTED, rows, answer_position=2).tokens == 4 * 8 * (3 + 2 + 1)
