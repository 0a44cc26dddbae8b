"""A run goes on from a known one at the block where they differ, and is what it would have been from the start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import interpwidgets as iw
from interpwidgets.engine.forward import ForwardPass
from tests.models import FAMILIES, tiny

aten = torch.ops.aten

PROMPT = (5, 17, 33, 48, 61, 70, 80)
SITES = ("resid_pre", "pattern", "z", "resid_post")
DIRECTION = np.linspace(-1, 1, 32)

EXPERIMENTS = {
    "one head": [iw.Ablate("z", layer=2, head=1)],
    "two layers": [iw.Steer("resid_mid", DIRECTION, layer=1), iw.CutEdge(layer=3, head=0, query=5, key=2)],
    "both sides": [iw.Scale("resid_post", 1.1, layer=[1, 3])],
    "the embedding": [iw.Scale("embed", 1.5)],
    "what enters the unembedding": [iw.Scale("ln_final", 1.5)],
    "the first block": [iw.Ablate("z", layer=0)],
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return tiny(request.param)


class Products(TorchDispatchMode):
    """Counts the matrix products that are computed; torch's own counter puts hooks on every module."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket in (aten.mm, aten.addmm, aten.bmm)
        return func(*args, **(kwargs or {}))


def products(call):
    with Products() as counter:
        result = call()
    return result, counter.count


def close(a, b):
    a, b = np.asarray(a), np.asarray(b)
    assert np.abs(a - b).max() <= 1e-5 * max(1, np.abs(b).max())


def assert_same(a, b, sites=SITES):
    close(a.logits, b.logits)
    assert a.idle == b.idle
    for site in sites:
        close(a[site], b[site])


def fresh(model, interventions):
    with iw.Session(model) as session:
        return session.run(PROMPT, capture=sites_of(session), interventions=interventions)


def ask(session, prompt, capture=(), interventions=()):
    """As widgets ask."""
    names = (capture,) if isinstance(capture, str) else capture
    sites = tuple(iw.Site(name) for name in names)
    return session.ask(session.tokenize(prompt), sites, tuple(interventions), all_logits=True)


def sites_of(session):
    return [s for s in SITES if s in session.engine.sites(0)]


def fits(session, interventions):
    return all(i.site in (*session.engine.sites(0), "embed", "ln_final") for i in interventions)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_run_that_goes_on_is_the_run_from_the_start(model, name):
    with iw.Session(model) as session:
        if not fits(session, EXPERIMENTS[name]):
            pytest.skip("a parallel block has no resid_mid")
        sites = sites_of(session)
        ask(session, PROMPT, capture=sites)
        ours = ask(session, PROMPT, capture=sites, interventions=EXPERIMENTS[name])
    assert_same(ours, fresh(model, EXPERIMENTS[name]), sites)


def test_blocks_above_are_not_computed(model):
    with iw.Session(model) as session:
        assert session.engine.resumes
        sites = sites_of(session)
        _, whole = products(lambda: ask(session, PROMPT, capture=sites))
        _, late = products(lambda: ask(session, PROMPT, capture=sites, interventions=[iw.Ablate("z", layer=3)]))
        assert late < 0.5 * whole


def test_an_experiment_on_top_of_another_goes_on_from_that_one(model):
    first, second = iw.Ablate("z", layer=1, head=0), iw.Ablate("z", layer=3, head=1)
    with iw.Session(model) as session:
        ask(session, PROMPT, capture=SITES[:1], interventions=[first])
        ours, spent = products(lambda: ask(session, PROMPT, capture=SITES[:1], interventions=[first, second]))
        session._results.clear()
        again, whole = products(lambda: ask(session, PROMPT, capture=SITES[:1], interventions=[first, second]))
        assert spent < 0.6 * whole
        assert_same(ours, again, SITES[:1])
        undone = ask(session, PROMPT, capture=SITES[:1], interventions=[second])
        assert_same(undone, fresh(model, [second]), SITES[:1])


def test_a_stream_that_was_edited_where_it_enters_is_not_gone_on_from(model):
    """Captures see the value after what acts there."""
    late = [iw.Ablate("z", layer=2, head=1)]
    with iw.Session(model) as session:
        ask(session, PROMPT, capture="resid_pre", interventions=[iw.Ablate("resid_pre", layer=2, position=3)])
        close(ask(session, PROMPT, interventions=late).logits, session.run(PROMPT, interventions=late).logits)


def test_what_changed_nothing_above_still_says_so():
    with iw.Session(tiny("llama")) as session:
        nothing, something = iw.Scale("z", 1.0, layer=1), iw.Ablate("z", layer=3, head=1)
        assert ask(session, PROMPT, capture="resid_pre", interventions=[nothing]).idle == (0,)
        assert ask(session, PROMPT, capture="resid_pre", interventions=[nothing, something]).idle == (0,)


def test_the_users_hooks_see_what_blocks_compute():
    """Blocks above would compute with zeros: a hook there makes them run."""
    model, seen = tiny("llama"), []
    with iw.Session(model) as session:
        handle = model.model.layers[0].mlp.register_forward_hook(
            lambda module, args, output: seen.append(output.clone())
        )
        for interventions in ([], [iw.Ablate("z", layer=3)]):
            ask(session, PROMPT, capture="resid_pre", interventions=interventions)
        handle.remove()
    assert len(seen) == 2
    torch.testing.assert_close(seen[0], seen[1])
    assert seen[1].abs().max() > 0


def test_another_prompt_or_weight_is_run_from_the_start():
    model = tiny("llama")
    with iw.Session(model) as session:
        ask(session, PROMPT, capture="resid_pre")
        with torch.no_grad():
            model.model.layers[0].mlp.down_proj.weight.mul_(2)
        late = [iw.Ablate("z", layer=3)]
        ours = ask(session, PROMPT, interventions=late)
        close(ours.logits, fresh(model, late).logits)
        other = (*PROMPT[:-1], 9)
        close(ask(session, other, interventions=late).logits, fresh_logits(model, other, late))


def fresh_logits(model, prompt, interventions):
    with iw.Session(model) as session:
        return session.run(prompt, interventions=interventions).logits


@pytest.mark.parametrize("kind", ["attention", "lens", "patching"])
def test_a_click_low_in_the_model_costs_less(kind):
    """What each widget keeps is enough for its next run to go on from."""
    make = {
        "attention": lambda s: iw.AttentionPattern(s, PROMPT),
        "lens": lambda s: iw.LogitLens(s, PROMPT),
        "patching": lambda s: iw.PatchingHeatmap(s, clean=PROMPT, corrupted=(5, 17, 42, *PROMPT[3:]), answer=7, foil=8),
    }[kind]
    model = tiny("llama")
    blocks = []
    with iw.Session(model) as session:
        widget = make(session)
        widget.wait()
        before = ForwardPass.enter_block

        def enter(self, layer, x):
            result = before(self, layer, x)
            blocks.append((layer, self.skips))
            return result

        ForwardPass.enter_block = enter
        try:
            if kind == "patching":
                widget.patch([{"site": "resid_pre", "layer": 3, "position": 4}])
            else:
                session.interventions.append(iw.Ablate("z", layer=3, head=1))
            widget.wait()
        finally:
            ForwardPass.enter_block = before
        widget.close()
    assert (2, True) in blocks
    assert (3, False) in blocks


def test_a_run_by_hand_is_a_pass_of_its_own_bit_for_bit():
    model, late = tiny("llama"), [iw.Ablate("z", layer=3, head=1)]
    with iw.Session(model) as session:
        expected = session.run(PROMPT, interventions=late).logits.values
        session._results.clear()
        ask(session, PROMPT, capture=SITES)
        ask(session, PROMPT, interventions=late)
        np.testing.assert_array_equal(session.run(PROMPT, interventions=late).logits, expected)
