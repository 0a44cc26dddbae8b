"""A session that ends gives everything back, and a cell that is run again and again takes no more."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

import interpwidgets as iw
from interpwidgets.engine.memory import NotEnoughMemory
from tests.models import tiny

from . import memory
from .clicking import click
from .state import LONG, PROMPT, count_hooks, hooks_of


@pytest.mark.parametrize("work", ["none", "views", "error"])
@pytest.mark.parametrize("ending", ["close", "delete"])
def test_an_ended_session_frees_its_model_and_ends_its_thread(ending, work):
    assert memory.lifetime(ending, work)["leaks found"] == 0


def test_a_session_that_is_deleted_without_being_closed_takes_its_hooks_out():
    model = tiny("llama")
    session = iw.Session(model)
    widget = iw.LogitLens(session, PROMPT)
    widget.wait(LONG)
    del session, widget
    gc.collect()
    assert hooks_of(model) == {}
    assert count_hooks(model) == 0


def test_a_closed_widget_that_is_still_referred_to_holds_no_runs():
    with iw.Session(tiny("llama")) as session:
        widget = iw.AttentionPattern(session, PROMPT)
        widget.wait(LONG)
        run = weakref.ref(widget._now)
        session._results.clear()
        widget.close()
        gc.collect()
        assert run() is None


def test_a_widget_on_a_page_stays_without_a_reference():
    with iw.Session(tiny("llama")) as session:
        widget = iw.AttentionPattern(session, PROMPT)
        widget._repr_mimebundle_()
        alive = weakref.ref(widget)
        del widget
        gc.collect()
        assert alive() is not None
        click(alive(), "ablate", layer=1, head=1)
        alive().wait(LONG)
        alive()._view_count = 1
        alive()._view_count = 0  # its cell was run again
        gc.collect()
        assert alive() is None
        session.interventions.clear()
        assert len(session.widgets) == 0


def test_a_hidden_widget_that_is_shown_again_answers_as_before():
    with iw.Session(tiny("llama")) as session:
        widget = iw.AttentionPattern(session, PROMPT, layer=1, head=2)
        widget.wait(LONG)
        picture = widget._detail
        widget._view_count = 1
        widget._view_count = 0
        assert widget._now is None
        assert widget._detail is picture
        figure = widget.figure()
        assert figure.data[0].z.shape == (8, 8)
        widget._view_count = 1
        widget.wait(LONG)
        assert widget._detail is picture
        click(widget, "select", layer=2, head=0)
        assert widget._detail["layer"] == 2


def test_an_error_that_is_drawn_holds_no_activations():
    with iw.Session(tiny("llama")) as session:
        lens = iw.LogitLens(session, PROMPT)
        lens.wait(LONG)
        seen = []

        def fail(module, args, output):
            activation = (output[0] if isinstance(output, tuple) else output) * 2
            seen.append(weakref.ref(activation))
            raise torch.OutOfMemoryError("CUDA out of memory")

        session.model.model.layers[1].register_forward_hook(fail)
        click(lens, "replace", position=1, token=4)
        with pytest.raises(NotEnoughMemory):
            lens.wait(LONG)
        gc.collect()
        assert seen
        assert all(reference() is None for reference in seen)


@pytest.mark.parametrize(
    ("kind", "displayed", "kept"),
    [
        ("AttentionPattern", False, False),
        ("AttentionPattern", True, False),
        ("AttentionPattern", True, True),
        ("LogitLens", True, False),
        ("PatchingHeatmap", True, True),
    ],
)
def test_running_a_cell_fifty_times_takes_no_more_memory(kind, displayed, kept):
    figures = memory.rerun_a_cell(50, kind, displayed, kept)
    assert figures["over the cache budget, bytes"] == 0
    assert figures["growth of tensors, bytes"] < 300_000  # one widget's runs; fifty would be twenty times that
    assert figures["widgets alive"] == (50 if kept else 1)
    assert figures["growth of the process, bytes"] < 100_000_000
