"""Random sequences of what a user can do in a workbench: what it shows is what its state and its code rebuild.

`EXAMPLES=2000 pytest tests/stress/test_stateful.py` runs that many examples.
"""

from __future__ import annotations

import json
import os
import warnings

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

import interpwidgets as iw
from interpwidgets.session import NoEffectWarning
from tests.models import tiny
from tests.unit.test_state import numbers

from .clicking import click
from .state import CORRUPTED, LONG, PROMPT, state_of

LAYERS = HEADS = 4
PROMPTS = [PROMPT, CORRUPTED, PROMPT[:1], (7,), PROMPT[:3], (1, *PROMPT, *CORRUPTED[:4])]
NAMES = ["", "mover", 'it\'s "quoted"\n\\ \'\'\' """', "שלום \u202e", "\ud800", "<b>"]
STRENGTHS = st.sampled_from([0.0, 0.5, -1.0, 1.0, 1e6, float("inf"), float("nan"), 1e300])
MODEL = tiny("llama")

layers = st.integers(0, LAYERS - 1)
heads = st.integers(0, HEADS - 1)
positions = st.integers(0, 8)
others = st.sampled_from([
    iw.Scale("z", 0.5, layer=1), iw.Scale("resid_post", 1.0, layer=2), iw.Noise("embed", 0.1, seed=3),
    iw.Steer("resid_pre", np.linspace(-1, 1, 32), layer=1, strength=0.5),
    iw.Patch("resid_pre", layer=1, position=0, source=np.ones(32)),
    iw.Patch("mlp_out", layer=2, position=0, source=PROMPT[:3], source_layer=1, source_position=2),
    iw.Ablate("z", layer=3, head=slice(0, 2), how="mean"), iw.Ablate("attn_out", layer=0, position=7),
    iw.CutEdge(layer=2, head=(0, 1), query=2, key=0, renormalize=False),
])  # fmt: skip


class AWorkbench(RuleBasedStateMachine):
    """One user at one workbench."""

    def __init__(self):
        super().__init__()
        self.start = state_of(MODEL)
        self.session = iw.Session(MODEL)
        self.session.memory_budget = 2 * 2**20
        self.list = self.session.interventions
        self.bench = iw.Workbench(self.session, PROMPT, CORRUPTED)
        self.extra: list = []
        self.saved: list = []

    @property
    def widgets(self):
        return [self.bench.attention, self.bench.lens, self.bench.heatmap, *self.extra]

    def _click(self, widget, operation, **arguments):
        """A request of the page; one that changes the experiments is one step of their history."""
        before = self.list.entries, self.list.baseline
        click(widget, operation, **arguments)
        after = self.list.entries, self.list.baseline
        if after != before and operation not in ("undo", "redo"):
            self.list.undo()
            assert (self.list.entries, self.list.baseline) == before
            self.list.redo()
            assert (self.list.entries, self.list.baseline) == after
        return widget._failures.get("request")

    # -- prompts and experiments ----------------------------------------------------------------------------------

    @rule(which=st.integers(0, 1), prompt=st.sampled_from(PROMPTS))
    def run(self, which, prompt):
        assert self._click(self.widgets[which], "run", prompt=list(prompt)) is None

    @rule(pair=st.sampled_from([(PROMPT, CORRUPTED), (CORRUPTED, PROMPT), (PROMPT[:3], (5, 9, 3)), ((7,), (8,))]))
    def run_a_pair(self, pair):
        assert self._click(self.bench.heatmap, "run", clean=list(pair[0]), corrupted=list(pair[1])) is None

    @rule(layer=layers, head=heads, how=st.sampled_from(["zero", "mean", None]))
    def ablate(self, layer, head, how):
        self._click(self.bench.attention, "ablate", layer=layer, head=head, how=how)

    @rule(layer=layers, head=heads, query=positions, key=positions, renormalize=st.booleans())
    def cut(self, layer, head, query, key, renormalize):
        self._click(self.bench.attention, "cut", layer=layer, head=head, query=query, key=key, renormalize=renormalize)

    @rule(source=st.tuples(st.integers(0, LAYERS), positions), to=st.tuples(st.integers(0, LAYERS), positions))
    def transplant(self, source, to):
        self._click(self.bench.lens, "transplant_cells", source=list(source), target=list(to))

    @rule(intervention=others, name=st.sampled_from(NAMES), group=st.sampled_from(NAMES), on=st.booleans())
    def append(self, intervention, name, group, on):
        self.list.append(iw.Experiment(intervention, on, name, group))

    @rule(position=positions, token=st.integers(0, 96))
    def replace(self, position, token):
        self._click(self.bench.lens, "replace", position=position, token=token)

    # -- the list of experiments ----------------------------------------------------------------------------------

    # Numbers are drawn without looking at the list, whose length may depend on which runs had time to end.
    @rule(
        operation=st.sampled_from([
            "toggle", "remove", "move", "rename", "set_strength", "group", "toggle_group", "remove_group",
            "rename_group",
        ]),
        which=st.integers(0, 2), index=positions, to=positions, indices=st.lists(positions, max_size=3),
        name=st.sampled_from(NAMES), group=st.sampled_from(NAMES), value=STRENGTHS,
    )  # fmt: skip
    def edit_the_list(self, operation, which, index, to, indices, name, group, value):
        size = max(1, len(self.list))
        arguments = {
            "toggle": {"index": index % size},
            "remove": {"index": index % size},
            "move": {"index": index % size, "to": to % size},
            "rename": {"index": index % size, "name": name},
            "set_strength": {"index": index % size, "value": value},
            "group": {"indices": [i % size for i in indices], "name": name},
            "toggle_group": {"group": group},
            "remove_group": {"group": group},
            "rename_group": {"group": group, "name": name},
        }
        self._click(self.widgets[which], operation, **arguments[operation])

    @rule(operation=st.sampled_from(["undo", "redo", "clear", "pin", "unpin", "pin", "undo"]), which=st.integers(0, 2))
    def history(self, operation, which):
        assert self._click(self.widgets[which], operation) is None

    # -- views ------------------------------------------------------------------------------------------------------

    @rule(layer=layers, head=heads, python=st.booleans())
    def select(self, layer, head, python):
        if python:
            self.bench.attention.selection = iw.Selection(layer=layer, head=head)
        else:
            self._click(self.bench.attention, "select", layer=layer, head=head)

    @rule(row=st.integers(0, LAYERS), position=positions)
    def select_a_cell(self, row, position):
        position = min(position, len(self.bench.lens._tokens) - 1)
        self.bench.lens.cell = [row, position]

    @rule(view=st.sampled_from(["now", "difference", "baseline"]), which=st.sampled_from([0, 2]))
    def view(self, view, which):
        self.widgets[which].view = view

    @rule(metric=st.sampled_from(["probability", "entropy", "kl", "rank"]), token=st.integers(0, 3))
    def metric(self, metric, token):
        self.bench.lens.metric = metric
        self._click(self.bench.lens, "untrack" if token in self.bench.lens.tracked else "track", token=token)

    @rule(
        change=st.sampled_from([
            {"site": "z"}, {"site": "resid_pre"}, {"site": "attn_out"}, {"metric": "probability"},
            {"metric": "logit_diff"}, {"direction": "noise"}, {"direction": "denoise"}, {"normalize": False},
            {"answer": 5, "foil": 6}, {"estimate": False},
        ])
    )  # fmt: skip
    def set(self, change):
        self._click(self.bench.heatmap, "set", **change)

    @rule(layer=layers, places=st.lists(positions, max_size=2))
    def patch(self, layer, places):
        heatmap = self.bench.heatmap
        axis = "head" if heatmap.site == "z" else "position"
        cells = [{"site": heatmap.site, "layer": layer, "head": None, "position": None, axis: i} for i in places]
        self._click(heatmap, "patch", cells=cells)

    @rule(layer=st.none() | layers)
    def drill(self, layer):
        self._click(self.bench.heatmap, "drill", layer=layer)

    @rule(which=st.integers(0, 2))
    def stop(self, which):
        self._click(self.widgets[which], "stop")

    @rule(which=st.integers(0, 2))
    def hide_and_show(self, which):
        widget = self.widgets[which]
        widget._view_count = 1
        widget._view_count = 0

    # -- going back ---------------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 2), visit=positions)
    def back_to(self, which, visit):
        widget = self.widgets[which]
        if widget.history:
            number = widget.history[visit % len(widget.history)]["number"]
            self._click(widget, "back_to", number=number)
            assert "request" not in widget._failures

    @rule(which=st.integers(0, 2))
    def keep_a_state(self, which):
        self.saved.append((which, json.dumps(self.widgets[which].state)))

    @rule(which=positions)
    @precondition(lambda self: self.saved)
    def set_a_state(self, which):
        which, text = self.saved[which % len(self.saved)]
        self.widgets[which].state = json.loads(text)
        assert json.loads(json.dumps(self.widgets[which].state)) == json.loads(text)

    @rule(which=st.integers(0, 2))
    @precondition(lambda self: len(self.extra) < 2)
    def add_a_linked_widget(self, which):
        extra = iw.restore(self.widgets[which].state, self.session)
        iw.link(self.widgets[which], extra)
        self.extra.append(extra)

    @rule()
    @precondition(lambda self: self.extra)
    def close_one(self):
        self.extra.pop().close()

    @rule(which=st.integers(0, 2))
    def a_mistake(self, which):
        state = self.widgets[which].state
        assert self._click(self.widgets[which], "run", prompt=[5, 10_000], clean=[5], corrupted=[10_000]) is not None
        assert self.widgets[which].state == state

    # -- what holds ---------------------------------------------------------------------------------------------------

    @rule()
    def wait(self):
        for widget in self.widgets:
            _ended(widget)

    @rule()
    def all_is_right(self):
        for widget in self.widgets:
            widget._view_count = 1
            if widget._status["state"] == "cancelled":
                widget.refresh()
        errors = [_ended(widget) for widget in self.widgets]
        with iw.Session(MODEL) as restored, iw.Session(MODEL) as executed, warnings.catch_warnings():
            warnings.simplefilter("ignore", NoEffectWarning)
            for widget, error in zip(self.widgets, errors, strict=True):
                self._says_what_acts(widget)
                _is_rebuilt(widget, error, iw.restore(json.loads(json.dumps(widget.state)), restored))
                names = {"session": executed}
                exec(widget.code(), names)
                _is_rebuilt(widget, error, names["widget"])
        assert state_of(MODEL).logits == self.start.logits
        assert self.session._results.held <= self.session._results.budget

    def _says_what_acts(self, widget):
        entries = self.list.entries
        assert widget.experiments is self.list
        assert [(e["code"], e["on"], e["name"], e["group"]) for e in widget._experiments] == [
            (repr(e.intervention), e.on, e.name, e.group) for e in entries
        ]
        assert widget._history == {"undo": self.list.can_undo, "redo": self.list.can_redo}
        assert widget._pinned["differs"] == (tuple(self.list) != self.list.baseline)
        assert len(widget._pinned["labels"]) == len(self.list.baseline)

    def teardown(self):
        self.all_is_right()
        before = self.list.entries, self.list.baseline
        steps = 0
        while self.list.can_undo:
            self.list.undo()
            steps += 1
        assert (self.list.entries, self.list.baseline) == ((), ())
        for _ in range(steps):
            self.list.redo()
        assert (self.list.entries, self.list.baseline) == before
        self.bench.close()
        self.session.close()
        assert state_of(MODEL) == self.start


def _ended(widget):
    """Wait; the errors of its runs. What is raised is drawn, and the other way round."""
    raised = None
    try:
        widget.wait(LONG)
    except TimeoutError:
        raise
    except Exception as error:  # noqa: BLE001 - compared with what is drawn
        raised = str(error)
    status = widget._status
    assert (raised is None) == (status["error"] is None)
    assert status["state"] in ("idle", "cancelled", "error"), status
    return {str(error) for lane, (error, _) in widget._failures.items() if lane != "request"}


def _is_rebuilt(widget, error, again):
    assert _ended(again) == error
    assert again.state == widget.state
    assert again.selection == widget.selection
    if error:
        return
    assert [e["note"] for e in again._experiments] == [e["note"] for e in widget._experiments]
    mine, its = numbers(widget), numbers(again)
    # A metric of the lens that was looked at stays in its result.
    assert its.keys() <= mine.keys()
    assert {name for name in mine if name.startswith(("_", "drilled"))} <= its.keys()
    about = {} if again.result is None else again.result.attrs
    ends = [abs(about.get(name, 1.0)) for name in ("clean", "corrupted")]
    # Shares of a gap are as rough as the gap is small.
    gap = abs(about.get("clean", 1.0) - about.get("corrupted", 0.0))
    rough = 1e-4 * max(1.0, *ends) / max(1e-6, min(1.0, gap))
    for name, values in its.items():
        shares = name in ("effect", "baseline_effect", "difference", "drilled")
        assert np.allclose(mine[name], values, atol=rough if shares else 1e-4, equal_nan=True), name


AWorkbench.TestCase.settings = settings(
    max_examples=int(os.environ.get("EXAMPLES", "5")), stateful_step_count=20, deadline=None,
    derandomize="EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck), phases=[Phase.generate],
)  # fmt: skip
TestWorkbench = AWorkbench.TestCase
