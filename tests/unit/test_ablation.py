"""Ablation sweeps equal one forward pass per cell, and edges and neurons are replaced alone."""

from __future__ import annotations

import numpy as np
import pytest

import interpwidgets as iw
from interpwidgets.methods.cells import HEAD_SITES, RESIDUAL_SITES
from tests.models import tiny
from tests.twin import sweep_one_by_one

PROMPT = (5, 17, 3, 44, 17, 60, 8, 91)
OTHER = (9, 2, 33, 44, 5, 61, 7, 12)
ANSWER, FOIL = 7, 11


@pytest.fixture(scope="module", params=["llama", "mistral", "gpt2", "gpt_neox"])
def session(request):
    with iw.Session(tiny(request.param)) as session:
        yield session


@pytest.fixture(scope="module")
def llama():
    with iw.Session(tiny("llama")) as session:
        yield session


def logit_difference(logits):
    return logits[:, ANSWER] - logits[:, FOIL]


def changes(session, rows):
    base, *values = sweep_one_by_one(session, PROMPT, [[], *rows], logit_difference)
    return np.array(values) - base


@pytest.mark.parametrize(
    ("how", "reference"), [("zero", None), ("mean", None), ("mean", [OTHER, PROMPT]), ("resample", OTHER)]
)
@pytest.mark.parametrize("site", [*RESIDUAL_SITES, *HEAD_SITES, "pattern"])
def test_ablation_sweep_equals_one_forward_per_cell(session, site, how, reference):
    if site not in session.engine.sites(0):
        pytest.skip(f"no {site}")
    if (site, how) == ("pattern", "mean"):
        with pytest.raises(ValueError, match="mean of attention weights is not defined"):
            iw.ablation_sweep(session, PROMPT, site, how, reference)
        return
    swept = iw.ablation_sweep(session, PROMPT, site, how, reference, ANSWER, FOIL)
    axis = "position" if site in RESIDUAL_SITES else "head"
    assert swept.dims == ("layer", axis)
    cells = [(i, j) for i in range(4) for j in range(swept.shape[1])][::3]
    kind = iw.Patch if (site, how) == ("pattern", "resample") else iw.Ablate
    given = {"source": reference} if kind is iw.Patch else {"how": how, "reference": reference}
    rows = [[kind(site, layer=i, **{axis: j}, **given)] for i, j in cells]
    expected = changes(session, rows)
    got = np.array([swept.values[cell] for cell in cells])
    assert np.abs(got - expected).max() <= 1e-5 * max(np.abs(expected).max(), abs(swept.attrs["base"]))


@pytest.mark.parametrize("reference", [[OTHER], [list(OTHER)], (list(OTHER),)], ids=str)
def test_a_list_of_one_reference_is_that_reference(llama, reference):
    for form in ({}, {"layer": 2}, {"layer": 2, "head": 1}):
        given, alone = (iw.ablation_sweep(llama, PROMPT, "pattern", "resample", r, **form) for r in (reference, OTHER))
        assert np.array_equal(given, alone, equal_nan=True)


def test_a_zeroed_edge_leaves_the_rest_of_its_row(llama):
    swept = iw.ablation_sweep(llama, PROMPT, "pattern", answer=ANSWER, foil=FOIL, layer=2, head=1)
    edges = [(7, 0), (7, 7), (3, 2)]
    expected = changes(llama, [[iw.CutEdge(layer=2, head=1, query=q, key=k, renormalize=False)] for q, k in edges])
    assert [float(swept[e]) for e in edges] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize(("how", "reference"), [("zero", None), ("mean", [OTHER]), ("resample", OTHER)])
def test_a_neuron_is_ablated_alone(llama, how, reference):
    swept = iw.ablation_sweep(llama, PROMPT, "mlp_post", how, reference, ANSWER, FOIL, layer=1, neurons=[3, 40])
    own, other = (llama.run(p, capture="mlp_post").tensor("mlp_post", 1).clone() for p in (PROMPT, OTHER))
    rows = []
    for n in (3, 40):
        value = own.clone()
        value[:, n] = {"zero": 0 * other[:, n], "mean": other[:, n].mean(), "resample": other[:, n]}[how]
        rows.append([iw.Patch("mlp_post", layer=1, source=value.numpy())])
    assert swept.values.tolist() == pytest.approx(changes(llama, rows).tolist(), abs=1e-5)


def test_answer_and_foil_are_the_runs_two_likeliest_tokens(llama):
    swept = iw.ablation_sweep(llama, PROMPT, "z")
    last = llama.run(PROMPT).logits.values[-1]
    first, second = last.argsort()[::-1][:2]
    assert (swept.attrs["answer"], swept.attrs["foil"]) == (first, second)
    assert swept.attrs["base"] == pytest.approx(last[first] - last[second], rel=1e-5)


def test_ablating_under_interventions_counts_from_the_run_under_them(llama):
    acting = (iw.Ablate("z", layer=1, head=0),)
    swept = iw.ablation_sweep(llama, PROMPT, "z", answer=ANSWER, foil=FOIL, interventions=acting)
    both = llama.run(PROMPT, interventions=[*acting, iw.Ablate("z", layer=2, head=3)]).logits.values[-1:]
    one = llama.run(PROMPT, interventions=acting).logits.values[-1:]
    assert float(swept[2, 3]) == pytest.approx(float((logit_difference(both) - logit_difference(one))[0]), abs=1e-5)
    assert float(swept[1, 0]) == 0


def test_bad_arguments_are_refused(llama):
    with pytest.raises(ValueError, match="unknown how 'median'"):
        iw.ablation_sweep(llama, PROMPT, how="median")
    with pytest.raises(ValueError, match="reference"):
        iw.ablation_sweep(llama, PROMPT, how="resample")
