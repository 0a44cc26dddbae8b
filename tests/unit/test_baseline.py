"""Any state of the experiments can be pinned as the baseline that every view compares with."""

from __future__ import annotations

import numpy as np
import pytest

import interpwidgets as iw
from tests.clicks import PROMPT, click
from tests.sent import head

PINNED = iw.Ablate("z", layer=1, head=2)
LATER = iw.Ablate("z", layer=2, head=0)


def ready(widget):
    widget.wait(30)
    return widget


def pattern(session, *interventions):
    run = session.run(PROMPT, capture=["pattern"], interventions=interventions)
    return run["pattern"].sel(layer=3, head=1).values


def test_a_pinned_ablation_is_the_baseline_and_now_is_equal_to_it(session):
    widget = ready(iw.AttentionPattern(session, PROMPT, layer=3, head=1))
    session.interventions.append(PINNED)
    ready(widget)
    assert widget._pinned == {"labels": [], "differs": True}
    click(widget, "pin")
    ready(widget)
    assert widget._pinned == {"labels": ["z L1H2 → 0"], "differs": False}
    assert session.interventions.baseline == (PINNED,)
    assert not widget._overview["acts"]
    assert np.allclose(head(widget, "baseline"), pattern(session, PINNED), atol=1e-6)
    assert np.allclose(head(widget), pattern(session, PINNED), atol=1e-6)


def test_what_acts_beside_it_is_compared_with_the_pinned_run(session):
    attention = ready(iw.AttentionPattern(session, PROMPT, layer=3, head=1))
    lens = ready(iw.LogitLens(session, PROMPT))
    session.interventions.append(PINNED)
    session.interventions.pin()
    session.interventions.append(LATER)
    for widget in (attention, lens):
        ready(widget)
        assert widget._pinned == {"labels": ["z L1H2 → 0"], "differs": True}
    assert np.allclose(head(attention, "baseline"), pattern(session, PINNED), atol=1e-6)
    assert np.allclose(head(attention), pattern(session, PINNED, LATER), atol=1e-6)
    for name, interventions in (("baseline", (PINNED,)), ("now", (PINNED, LATER))):
        logits = session.run(PROMPT, interventions=interventions).logits[-1].values
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        shown = lens.result.sel(run=name).isel(layer=-1, position=-1)["top_probability"].values
        assert np.allclose(shown, np.sort(shares)[::-1][:10], atol=1e-5)


def test_the_model_as_it_is_differs_from_a_pinned_baseline(session):
    widget = ready(iw.AttentionPattern(session, PROMPT, layer=3, head=1))
    session.interventions.append(PINNED)
    session.interventions.pin()
    session.interventions.clear()
    ready(widget)
    assert widget._pinned == {"labels": ["z L1H2 → 0"], "differs": True}
    assert np.allclose(head(widget, "baseline"), pattern(session, PINNED), atol=1e-6)
    assert np.allclose(head(widget), pattern(session), atol=1e-6)


def test_undo_takes_a_pin_back_and_unpin_is_one_step_too(session):
    widget = ready(iw.AttentionPattern(session, PROMPT))
    session.interventions.append(PINNED)
    click(widget, "pin")
    click(widget, "undo")
    assert session.interventions.baseline == ()
    assert list(session.interventions) == [PINNED]
    click(widget, "redo")
    assert session.interventions.baseline == (PINNED,)
    click(widget, "unpin")
    assert session.interventions.baseline == ()
    click(widget, "undo")
    assert ready(widget)._pinned == {"labels": ["z L1H2 → 0"], "differs": False}


def test_state_code_and_still_picture_keep_the_baseline(session):
    widget = ready(iw.LogitLens(session, PROMPT, linked=False))
    widget.experiments.append(PINNED)
    widget.experiments.pin()
    widget.experiments.append(LATER)
    ready(widget)
    again = ready(iw.restore(widget.state, session))
    assert again.experiments.baseline == (PINNED,)
    assert np.array_equal(again.result["entropy"], widget.result["entropy"])
    code = widget.code()
    assert code[code.index("widget.experiments.baseline") :].splitlines()[:3] == [
        "widget.experiments.baseline = [", "    iw.Ablate('z', layer=1, head=2),", "]",
    ]  # fmt: skip
    assert "<div>baseline: z L1H2 → 0</div>" in widget.static_frame()


def test_what_is_no_intervention_cannot_be_the_baseline(session):
    with pytest.raises(TypeError, match="an intervention is needed"):
        session.interventions.baseline = ["z"]
    assert session.interventions.baseline == ()
