"""Interventions do what they say: against hand computation on captured activations, and plain hooks on the model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import interpwidgets as iw
from interpwidgets.engine.interventions import Intervention
from interpwidgets.engine.plain import Referred
from interpwidgets.session import NoEffectWarning
from tests.models import FAMILIES, tiny

PROMPT = (5, 17, 3, 44, 17, 60, 8, 91)
OTHER = (5, 17, 9, 44, 2, 60, 8, 30)


@pytest.fixture(scope="module", params=FAMILIES)
def session(request):
    with iw.Session(tiny(request.param)) as session:
        yield session


@pytest.fixture(scope="module")
def llama():
    with iw.Session(tiny("llama")) as session:
        yield session


def value(session, site, interventions=(), prompt=PROMPT):
    return session.run(prompt, capture=site, interventions=interventions)[site]


def close(a, b, tolerance=1e-5):
    a, b = np.asarray(a), np.asarray(b)
    return np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), 1)


SITES_WITH_VECTORS = [
    "embed",
    "resid_pre",
    "q",
    "k",
    "v",
    "z",
    "attn_out",
    "resid_mid",
    "mlp_pre",
    "mlp_post",
    "mlp_out",
    "resid_post",
]


@pytest.mark.parametrize("name", SITES_WITH_VECTORS)
def test_ablation_writes_zero_and_nothing_else(session, name):
    if name != "embed" and name not in session.engine.sites(1):
        with pytest.raises(ValueError, match=f"has no {name!r}"):
            session.run(PROMPT, interventions=[iw.Ablate(name, layer=1)])
        return
    layer = None if name == "embed" else 1
    site = iw.Site(name, layer=layer)
    plain = value(session, site)
    ablated = value(session, site, [iw.Ablate(name, layer=layer, position=3)])
    assert (ablated.sel(position=3) == 0).all()
    assert np.array_equal(ablated.drop_sel(position=3), plain.drop_sel(position=3))


def test_ablated_residual_write_is_missing_from_the_stream(session):
    sites = ["attn_out", "mlp_out", "resid_pre", "resid_post"]
    run = session.run(PROMPT, capture=sites, interventions=[iw.Ablate("mlp_out", layer=2)])
    assert close(run["resid_post"].sel(layer=2), (run["resid_pre"] + run["attn_out"]).sel(layer=2))


def test_edited_resid_mid_reaches_both_the_mlp_and_the_stream(session):
    if "resid_mid" not in session.engine.sites(0):
        return
    source = value(session, iw.Site("resid_mid", layer=1), prompt=OTHER)
    run = session.run(
        PROMPT,
        capture=["resid_mid", "mlp_out", "resid_post"],
        interventions=[iw.Patch("resid_mid", layer=1, source=OTHER)],
    )
    assert np.array_equal(run["resid_mid"].sel(layer=1), source)
    assert close(run["resid_post"].sel(layer=1), value(session, iw.Site("resid_post", layer=1), prompt=OTHER))


def test_ablating_z_equals_zeroing_the_projections_input_with_a_plain_hook(session):
    a = session.engine.architecture
    projection, width = a.blocks[1].projection, a.d_head[1]

    def zero_head_2(module, args):
        x = args[0].clone()
        x[..., 2 * width : 3 * width] = 0
        return (x,)

    handle = projection.register_forward_pre_hook(zero_head_2)
    with torch.no_grad():
        expected = session.model(torch.tensor([PROMPT])).logits[0]
    handle.remove()
    assert close(session.run(PROMPT, interventions=[iw.Ablate("z", layer=1, head=2)]).logits, expected)
    assert close(session.run(PROMPT, interventions=[iw.Ablate("result", layer=1, head=2)]).logits, expected)


def test_mean_ablation_writes_the_mean_of_the_undisturbed_run(session):
    site = iw.Site("z", layer=2, head=1)
    plain = value(session, site)
    ablated = value(session, site, [iw.Ablate("z", layer=2, head=1, how="mean")])
    assert close(ablated, np.broadcast_to(plain.mean("position").values, plain.shape))


def test_mean_ablation_over_reference_prompts(llama):
    site = iw.Site("mlp_out", layer=2)
    rows = np.concatenate([value(llama, site, prompt=OTHER), value(llama, site, prompt=PROMPT[:3])])
    ablated = value(llama, site, [iw.Ablate("mlp_out", layer=2, how="mean", reference=[OTHER, PROMPT[:3]])])
    assert close(ablated, np.broadcast_to(rows.mean(0), ablated.shape))


def test_resample_ablation_writes_the_other_prompts_activation(session):
    site = iw.Site("v", layer=1, head=0)
    resampled = value(session, site, [iw.Ablate("v", layer=1, head=0, how="resample", reference=OTHER)])
    assert close(resampled, value(session, site, prompt=OTHER))


def test_resampling_from_a_prompt_of_another_length_is_refused(llama):
    with pytest.raises(ValueError, match=r"8 tokens.*7"):
        llama.run(PROMPT, interventions=[iw.Ablate("z", layer=0, how="resample", reference=OTHER[:7])])


def test_patching_all_of_the_first_stream_gives_the_other_run(session):
    patched = session.run(PROMPT, interventions=[iw.Patch("resid_pre", layer=0, source=OTHER)])
    assert close(patched.logits, session.run(OTHER).logits)


def test_outside_the_causal_cone_nothing_changes(session):
    plain = value(session, "resid_post")
    changed = value(session, "resid_post", [iw.Patch("resid_pre", layer=2, position=4, source=OTHER)])
    assert np.array_equal(plain.sel(layer=[0, 1]), changed.sel(layer=[0, 1]))
    assert close(plain.sel(position=slice(0, 3)), changed.sel(position=slice(0, 3)), 1e-6)
    assert not close(plain.sel(layer=3, position=7), changed.sel(layer=3, position=7), 1e-4)


def test_transplant_moves_one_vector(llama):
    source = value(llama, "resid_post", prompt=OTHER).sel(layer=1, position=2)
    move = iw.Patch("resid_post", layer=3, position=6, source=OTHER, source_layer=1, source_position=2)
    assert np.array_equal(value(llama, "resid_post", [move]).sel(layer=3, position=6), source)


def test_patching_an_array(llama):
    vector = np.arange(32, dtype=np.float32)
    written = value(llama, "attn_out", [iw.Patch("attn_out", layer=1, position=[2, 5], source=vector)])
    assert (written.sel(layer=1, position=5) == vector).all()
    rows = np.stack([vector, -vector])
    written = value(llama, "attn_out", [iw.Patch("attn_out", layer=1, position=[2, 5], source=rows)])
    assert (written.sel(layer=1, position=5) == -vector).all()
    with pytest.raises(ValueError, match="does not fit 'attn_out'"):
        llama.run(PROMPT, interventions=[iw.Patch("attn_out", layer=1, source=vector[:7])])


@pytest.mark.parametrize("position", [[5, 2], (-1, 0), [6, 1, 3], slice(None, None, -1)])
def test_rows_of_an_array_go_to_the_positions_as_listed(llama, position):
    """Oracle: NumPy's own assignment."""
    at = position if isinstance(position, slice) else list(position)
    expected = value(llama, "resid_post").sel(layer=1).values.copy()
    rows = np.arange(expected[at].size, dtype=np.float32).reshape(-1, 32)
    expected[at] = rows
    patch = iw.Patch("resid_post", layer=1, position=position, source=rows)
    assert np.array_equal(value(llama, "resid_post", [patch]).sel(layer=1), expected)
    assert np.array_equal(value(llama, iw.Site("resid_post", layer=1, position=position), [patch]), rows)


@pytest.mark.parametrize(
    "form", [list, np.array, torch.tensor, lambda ids: np.array([ids]), lambda ids: [*np.array(ids)]]
)
def test_a_prompt_is_named_by_ids_in_any_form(form):
    assert iw.Patch("z", layer=0, source=form(OTHER)) == iw.Patch("z", layer=0, source=OTHER)
    assert iw.Ablate("z", how="resample", reference=form(OTHER)) == iw.Ablate("z", how="resample", reference=OTHER)
    two = iw.Ablate("z", how="mean", reference=[form(OTHER), form(PROMPT)])
    assert two == iw.Ablate("z", how="mean", reference=[OTHER, PROMPT])


def test_a_prompt_is_named_by_the_tokens_of_a_run(llama):
    tokens = llama.run(OTHER).tokens
    assert iw.Patch("z", layer=0, source=tokens) == iw.Patch("z", layer=0, source=OTHER)
    assert iw.Ablate("z", how="resample", reference=tokens) == iw.Ablate("z", how="resample", reference=OTHER)
    assert iw.Ablate("z", how="mean", reference=[tokens, PROMPT]).references() == (OTHER, PROMPT)
    grown = llama.generate(PROMPT, 3)
    assert [run.tokens.ids for run in llama.run([tokens, grown])] == [OTHER, grown.ids]


@pytest.mark.parametrize("items", [torch.tensor, np.float32])
def test_a_vector_as_a_list_of_scalars_is_no_prompt(llama, items):
    vector = np.linspace(-0.5, 1.5, 32, dtype=np.float32)
    site = iw.Site("resid_post", layer=1, position=5)
    patch = iw.Patch("resid_post", layer=1, position=5, source=[items(x) for x in vector.tolist()])
    assert np.array_equal(value(llama, site, [patch]), vector)


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda at: iw.Ablate(**at), lambda own, other: 0),
        (lambda at: iw.Ablate(**at, how="mean"), lambda own, other: own.mean()),
        (lambda at: iw.Ablate(**at, how="mean", reference=[OTHER]), lambda own, other: other.mean()),
        (lambda at: iw.Ablate(**at, how="resample", reference=OTHER), lambda own, other: other),
        (lambda at: iw.Patch(**at, source=OTHER), lambda own, other: other),
        (lambda at: iw.Patch(**at, source=OTHER, source_layer=1, source_position=2), lambda own, other: other[2]),
        (lambda at: iw.Patch(**at, source=np.ones((1, 1))), lambda own, other: 1),
        (lambda at: iw.Patch(**at, source=np.arange(8.0)[:, None]), lambda own, other: np.arange(8)),
    ],
)
@pytest.mark.parametrize(("site", "entry"), [("mlp_post", 40), ("resid_pre", 0), ("z", 5)])
def test_one_entry_is_written_alone(llama, site, entry, make, wanted):
    head = 2 if site == "z" else None
    own, other = (value(llama, iw.Site(site, layer=1, head=head), prompt=p).values for p in (PROMPT, OTHER))
    expected = own.copy()
    expected[:, entry] = wanted(own[:, entry], other[:, entry])
    written = make({"site": site, "layer": 1, "head": head, "entry": entry})
    assert close(value(llama, iw.Site(site, layer=1, head=head), [written]), expected)


def test_one_entry_of_attention_is_one_edge(session):
    at = {"layer": 1, "head": 2, "position": 6, "entry": 3}
    cut = session.run(PROMPT, interventions=[iw.CutEdge(layer=1, head=2, query=6, key=3, renormalize=False)])
    assert np.array_equal(session.run(PROMPT, interventions=[iw.Ablate("pattern", **at)]).logits, cut.logits)
    plain, other = value(session, "pattern"), value(session, "pattern", prompt=OTHER)
    expected = plain.sel(layer=1).values.copy()
    expected[2, 6, 3] = other.sel(layer=1).values[2, 6, 3]
    patched = value(session, iw.Site("pattern", layer=1), [iw.Patch("pattern", **at, source=OTHER)])
    assert close(patched, expected, 1e-6)


def test_an_entry_that_is_not_there_is_refused(llama):
    for experiment, said in (
        (iw.Ablate("mlp_post", layer=1, entry=48), r"entry 48 is out of range: 'mlp_post' has 48 \(entries 0 to 47\)"),
        (iw.Patch("pattern", layer=1, entry=8, source=OTHER), r"'pattern' has 8 \(entries 0 to 7\)"),
        (iw.Patch("mlp_post", layer=1, entry=40, source=OTHER, source_site="mlp_out"), r"'mlp_out' has 32"),
    ):
        with pytest.raises(ValueError, match=said):
            llama.run(PROMPT, interventions=[experiment])


def test_steering_and_scaling(session):
    site = iw.Site("resid_post", layer=1, position=5)
    plain = value(session, site)
    direction = np.linspace(-1, 1, plain.size, dtype=np.float32)
    steered = value(session, site, [iw.Steer("resid_post", direction, layer=1, position=5, strength=3)])
    assert close(steered, plain + 3 * direction)
    assert close(value(session, site, [iw.Scale("resid_post", -2.0, layer=1, position=5)]), -2 * plain)


def test_scaling_by_one_and_steering_by_zero_change_nothing_and_say_so(session):
    nothing = [iw.Scale("z", 1.0, layer=1), iw.Steer("resid_pre", np.ones(32), layer=2, strength=0)]
    with pytest.warns(NoEffectWarning, match="changed nothing"):
        run = session.run(PROMPT, interventions=nothing)
    assert np.array_equal(run.logits, session.run(PROMPT).logits)
    assert run.idle == (0, 1)


def test_cut_edge_renormalised_or_not(session):
    plain = value(session, "pattern")
    cut = {"layer": 1, "head": 2, "query": 6, "key": 3}
    kept = value(session, "pattern", [iw.CutEdge(**cut, renormalize=False)]).sel(layer=1, head=2, query=6)
    row = plain.sel(layer=1, head=2, query=6).values.copy()
    row[3] = 0
    assert close(kept, row, 1e-6)
    renormalised = value(session, "pattern", [iw.CutEdge(**cut)])
    assert close(renormalised.sel(layer=1, head=2, query=6), row / row.sum(), 1e-5)
    others = renormalised.sel(layer=1).drop_sel(head=2)
    assert close(others, plain.sel(layer=1).drop_sel(head=2), 1e-6)


def test_a_query_that_lost_every_key_reads_nothing(session):
    run = session.run(PROMPT, capture=["pattern", "z"], interventions=[iw.CutEdge(layer=0, head=1, query=4)])
    assert (run["pattern"].sel(layer=0, head=1, query=4) == 0).all()
    assert (run["z"].sel(layer=0, head=1, position=4) == 0).all()
    assert np.isfinite(run.logits).all()


def test_cutting_an_edge_for_a_whole_head_equals_ablating_its_values(llama):
    cut = llama.run(PROMPT, interventions=[iw.CutEdge(layer=2, head=3, renormalize=False)])
    assert close(cut.logits, llama.run(PROMPT, interventions=[iw.Ablate("z", layer=2, head=3)]).logits)


def test_noise_has_its_size_and_its_seed(llama):
    site = iw.Site("embed")
    plain = value(llama, site)
    noisy = value(llama, site, [iw.Noise("embed", 2.0, seed=3)])
    assert 1.6 < float((noisy - plain).std()) < 2.4
    assert np.array_equal(noisy, value(llama, site, [iw.Noise("embed", 2.0, seed=3)]))
    assert not np.array_equal(noisy, value(llama, site, [iw.Noise("embed", 2.0, seed=4)]))
    part = value(llama, site, [iw.Noise("embed", 2.0, seed=3, position=[5, 6])])
    assert np.array_equal(part.sel(position=6), noisy.sel(position=6))


def test_order_is_that_of_the_pass_then_of_the_list(llama):
    site = iw.Site("mlp_out", layer=1)
    plain = value(llama, site)
    one = np.ones(32, np.float32)
    add, double = iw.Steer("mlp_out", one, layer=1), iw.Scale("mlp_out", 2.0, layer=1)
    assert close(value(llama, site, [add, double]), 2 * (plain + 1))
    assert close(value(llama, site, [double, add]), 2 * plain + 1)
    early, late = iw.Ablate("resid_pre", layer=1), iw.Steer("resid_mid", one, layer=1)
    a = llama.run(PROMPT, interventions=[early, late])
    b = llama.run(PROMPT, interventions=[late, early])
    assert np.array_equal(a.logits, b.logits)


def test_several_at_once_equal_one_after_the_other_by_hooks(llama):
    both = [iw.Ablate("z", layer=0, head=1), iw.Scale("mlp_out", 0.5, layer=2, position=4)]

    def half(module, args, output):
        output = output.clone()
        output[:, 4] *= 0.5
        return output

    def zero(module, args):
        x = args[0].clone()
        x[..., 8:16] = 0
        return (x,)

    layers = llama.model.model.layers
    handles = [layers[0].self_attn.o_proj.register_forward_pre_hook(zero), layers[2].mlp.register_forward_hook(half)]
    with torch.no_grad():
        expected = llama.model(torch.tensor([PROMPT])).logits[0]
    for handle in handles:
        handle.remove()
    assert close(llama.run(PROMPT, interventions=both).logits, expected)


def test_printed_as_the_python_that_makes_them():
    for made in (
        iw.Ablate("z", layer=9, head=6, how="mean"),
        iw.Ablate("z", layer=9, how="mean", reference=["a b", "c"]),
        iw.Patch("resid_pre", layer=3, position=slice(2, 5), source="Paris is"),
        iw.Patch("resid_post", layer=3, position=4, source=(1, 2, 3), source_layer=1, source_position=0),
        iw.Scale("mlp_out", -1.0, layer=[1, 2]),
        iw.Ablate("mlp_post", layer=3, entry=7),
        iw.CutEdge(layer=1, head=2, query=3, key=(0, 1), renormalize=False),
        iw.Noise("embed", 0.1, seed=7),
    ):
        assert eval(repr(made), {"iw": iw}) == made
        assert hash(eval(repr(made), {"iw": iw})) == hash(made)
        json.dumps(made.to_json())


def test_arrays_are_compared_by_content_and_cannot_be_changed():
    direction = np.ones(4)
    a, b = iw.Steer("resid_pre", direction, layer=0), iw.Steer("resid_pre", np.ones(4), layer=0)
    assert a == b
    assert hash(a) == hash(b)
    direction[0] = 5
    assert a == b
    assert a != iw.Steer("resid_pre", direction, layer=0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: iw.Ablate("z", how="zeros"), ValueError, "'zero', 'mean', 'resample'"),
        (lambda: iw.Ablate("z", how="resample"), ValueError, "needs reference"),
        (lambda: iw.Ablate("zz"), ValueError, "unknown site 'zz'"),
        (lambda: iw.Ablate("pattern", how="mean"), ValueError, "to zero only"),
        (lambda: iw.Patch("z", layer=0), ValueError, "needs source"),
        (lambda: iw.Scale("z", "2"), ValueError, "factor='2': a finite number is needed"),
        (lambda: iw.Scale("z", None), ValueError, "factor=None: a finite number"),
        (lambda: iw.Scale("z", True), ValueError, "factor=True: a finite number"),
        (lambda: iw.Scale("z", float("nan")), ValueError, "factor=nan: a finite number"),
        (lambda: iw.Scale("z", 10**400), ValueError, "factor=a long number: a finite number"),
        (lambda: iw.Scale("z", torch.ones(2)), ValueError, "a finite number"),
        (lambda: iw.Steer("embed", [1.0], strength=float("-inf")), ValueError, "strength=-inf: a finite number"),
        (lambda: iw.Noise("embed", 1.0, seed="x"), TypeError, "seed='x': a whole number"),
        (lambda: iw.Noise("embed", 1.0, seed=-5), ValueError, "seed=-5: a whole number from 0 on"),
        (lambda: iw.Patch("z", source=PROMPT, source_layer=1.5), TypeError, "source_layer=1.5: a whole number"),
        (lambda: iw.CutEdge(layer=1, renormalize="yes"), TypeError, "renormalize='yes': True or False"),
        (lambda: iw.Steer("resid_pre", np.ones((2, 3)), layer=0), ValueError, "one vector"),
        (lambda: iw.Steer("resid_pre", [], layer=0), ValueError, r"shape \(0,\) holds nothing"),
        (lambda: iw.Ablate("z", layer="1"), TypeError, "layer='1'"),
        (lambda: iw.Ablate("mlp_post", entry=-1), ValueError, "entry=-1: a whole number from 0 on"),
        (lambda: iw.Patch("mlp_post", source=PROMPT, entry=1.5), TypeError, "entry=1.5: a whole number"),
        (lambda: iw.Ablate("z", how="mean", reference=[0.5, 1.7]), TypeError, "sequence of token ids, got float: 0.5"),
        (lambda: iw.Ablate("z", how="mean", reference=[[0.5, 1.7]]), TypeError, "sequence of token ids, got list"),
        (lambda: iw.SourceTarget([0.5, 1.7]), TypeError, r"source=\[0.5, 1.7\]: text or token ids are needed"),
    ],
)
def test_bad_interventions_are_refused_when_made(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_direction_of_the_wrong_width_is_refused(llama):
    with pytest.raises(ValueError, match="has 5 entries; 'resid_pre' has width 32"):
        llama.run(PROMPT, interventions=[iw.Steer("resid_pre", np.ones(5), layer=0)])


# Key 4 is in the sliding window of 5 positions when generation begins, and no longer at its end; key 1 never is.
@pytest.mark.parametrize(
    "interventions",
    [
        (),
        (iw.Ablate("z", layer=1, head=2),),
        (iw.Scale("k", 0.3, layer=2),),
        (iw.CutEdge(key=(1, 4)),),
        (iw.CutEdge(layer=(1, 2), head=1, key=5, renormalize=False), iw.CutEdge(key=(6, 4, 2))),
    ],
)
def test_generation_acts_at_every_step(session, interventions):
    """Oracle: the whole sequence run anew at each step, without a cache."""
    ids = list(PROMPT)
    for _ in range(6):
        logits = session.run(tuple(ids), interventions=interventions).logits[-1].values
        ids.append(int(logits.argmax()))
        if ids[-1] == 2:
            break
    assert list(session.generate(PROMPT, 6, interventions).ids) == ids


def test_generation_without_interventions_is_the_models_own(session):
    expected = session.model.generate(
        torch.tensor([PROMPT]), attention_mask=torch.ones(1, 8), do_sample=False, max_new_tokens=6
    )
    assert list(session.generate(PROMPT, 6).ids) == expected[0].tolist()


def test_an_array_for_every_position_acts_on_the_prompt_of_a_generation():
    with iw.Session(tiny("llama")) as session:
        other = (9, 17, 3, 44, 2, 60, 8, 30)
        values = session.run(other, capture="resid_post")["resid_post"].sel(layer=1).values
        from_array = session.generate(PROMPT, 5, [iw.Patch("resid_post", layer=1, source=values)])
        assert from_array.ids == session.generate(PROMPT, 5, [iw.Patch("resid_post", layer=1, source=other)]).ids
        assert from_array.ids != session.generate(PROMPT, 5).ids


def test_an_array_for_every_position_acts_alike_in_a_sweep_that_shares_a_prefix():
    with iw.Session(tiny("llama")) as session:
        other = (*PROMPT[:6], 9, 30)
        values = session.run(other, capture="resid_post")["resid_post"].sel(layer=1).values
        rows = [[iw.Patch("resid_post", layer=1, source=source)] for source in (values, other)]
        result = session.sweep(PROMPT, rows, lambda x: x[:, 7], prefix=6).values
        assert result[0] == pytest.approx(result[1], abs=1e-5)


def test_numbers_of_any_library_become_pythons_own():
    made = [
        iw.Scale("z", torch.tensor(0.5), layer=np.int64(1), position=slice(np.int64(2), None)),
        iw.Steer("z", np.ones(8), strength=np.float32(2)),
        iw.Noise("embed", 1, seed=np.int64(3)),
        iw.CutEdge(layer=1, renormalize=np.bool_(False)),
    ]
    assert [repr(i) for i in made] == [
        "iw.Scale('z', factor=0.5, layer=1, position=slice(2, None, None))",
        "iw.Steer('z', direction=<array (8,)>, strength=2.0)",
        "iw.Noise('embed', seed=3)",
        "iw.CutEdge(layer=1, renormalize=False)",
    ]
    for i in made:
        referred = Referred()
        assert Intervention.from_json(json.loads(json.dumps(i.to_json(referred), allow_nan=False)), referred) == i
