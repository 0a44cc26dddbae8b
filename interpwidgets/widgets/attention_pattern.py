"""AttentionPattern: every head of a live model; ablate a head, cut an edge, and see what follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from operator import itemgetter
from typing import Any, ClassVar, Literal, cast, get_args

import traitlets as t

from ..engine.interventions import Ablate, CutEdge, Intervention
from ..engine.sites import Site, StackName, on_stack
from ..methods.predictions import compare_predictions
from ..presets import Preset
from ..session import Run, Session
from ..tokens import Tokens
from . import static
from .answer import answer_in_words
from .attention_clicks import ablation_of, cut_of, requests_for, switch_on
from .attention_head import HeadPattern, answers_of_heads
from .attention_overview import Overview, thumbnail_bins
from .attention_places import axes_of, check_edge, check_head, stack_named, stacks_of
from .bands import Windowed
from .base import LiveWidget
from .esm import bundle, stylesheet
from .exporting import Column
from .heatmap import Heatmap
from .page import Answer
from .selection import Selection
from .view import View
from .wire import Wire, parse_prompt, prompt_code, prompt_question, prompt_to_wire, to_wire

_KEPT_SHARE = 8  # patterns of all layers are kept while they take no more than this part of the memory budget


class AttentionPattern(Windowed, LiveWidget):
    """Attention patterns of all layers and heads, the selected head large, the model's prediction beside it.

    Click a head to select it, ablate it with the button or Enter; click a cell to cut that attention edge. Everything
    downstream is run again; the "difference from baseline" view shows what changed. Of a model with an encoder, `stack`
    chooses between the decoder's attention to itself, the encoder's, and that from the decoder to the encoder, which is
    shown first.

    `selection` has a layer, a head and, of the edge that was cut last, query and key. `result` has the selected head's
    weights, `pattern` with the experiments and `baseline` without them, or with those that are pinned, (query, key)
    each.

    Example: `iw.AttentionPattern(session, "The cat sat on the mat", layer=3, head=1)`
    """

    title = "Attention pattern"
    operations = ("run", "select", "ablate", "cut")
    terms = ("head", "attention pattern", "ablation", "residual stream", "logit difference")
    shortcuts = (
        ("click or arrow key on a head", "show it large"),
        ("Enter on a head", "ablate it, or restore it"),
        ("click or Enter on a cell", "cut that edge, or restore it; where a cell is several positions, zoom in"),
        ("Ctrl\u00a0or\u00a0⌘ with the wheel, +\u00a0−\u00a00", "zoom in, out, and to the whole of a long prompt"),
        ("drag, or drag the small map's frame", "move to another part of a long prompt"),
    )
    settings = ("hide_bos", "view", "how", "renormalize")
    from_page = ("_asked",)
    chooses: ClassVar[Mapping[str, tuple[str, ...]]] = {"select": ("layer", "head")}
    _esm = bundle("attention_pattern.js")
    _css = stylesheet("attention_pattern.css")

    stack = t.Enum(get_args(StackName), "decoder").tag(sync=True)
    """Which attention is shown: the "decoder"'s to itself, the "encoder"'s, or "cross", from the one to the other."""
    layer = t.Int(0).tag(sync=True)
    """The selected layer."""
    head = t.Int(0).tag(sync=True)
    """The selected head."""
    edge = t.List(t.Int(), default_value=[]).tag(sync=True)
    """The selected edge of that head, [query, key]; [] for none."""
    hide_bos = t.Bool(True).tag(sync=True)
    """Leave position 0, on which most heads rest, out of the picture; not in attention to an encoder, nor in an encoder
    whose text begins with no special token."""
    view = t.Enum(("now", "difference", "baseline"), "now").tag(sync=True)
    """What is drawn: the pattern with the experiments, its difference from the baseline, or the latter."""
    how = t.Enum(("zero", "mean"), "zero").tag(sync=True)
    """How the ablate button ablates."""
    renormalize = t.Bool(True).tag(sync=True)
    """Whether the rest of a row is scaled to sum to 1 after an edge is cut."""

    _prompt = t.Dict().tag(sync=True)
    _baseline_overview = t.Dict().tag(sync=True)
    """All heads in the baseline, small."""
    _overview = t.Dict().tag(sync=True)
    """What experiments change in it."""
    _baseline_detail = t.Dict().tag(sync=True)
    """The selected head in the baseline."""
    _detail = t.Dict().tag(sync=True)
    """What experiments change in it."""
    _window = t.Dict().tag(sync=True)
    """The exact weights of the window that was `_asked` for, by the picture's `version`."""
    _predictions = t.Dict().tag(sync=True)

    def __init__(
        self,
        session: Session,
        prompt: Any,
        *,
        layer: int = 0,
        head: int = 0,
        stack: StackName | None = None,
        linked: bool = True,
        **settings: Any,
    ) -> None:
        self._tokens = session.tokenize(parse_prompt(session, prompt))
        self._baseline: Run | None = None
        self._now: Run | None = None
        self._held: tuple[Run, Run] | None = None  # baseline and now, with all weights of the layer in view
        self._moving = False  # while several traits of one place are set
        self.session = session
        stack = stack or stacks_of(self.session)[-1]
        check_head(self.session, layer, head, stack)
        edge = self._checked_edge(settings.pop("edge", []), stack)
        super().__init__(session, linked=linked, **settings)
        self._go_to(stack, layer, head, edge)
        self._prompt = prompt_to_wire(self._tokens, session)
        self.refresh()

    def run(self, prompt: Any) -> None:
        """Show another prompt."""
        tokens = self.session.tokenize(parse_prompt(self.session, prompt, self._tokens))
        with self.session.publishing:
            self._tokens = tokens
            self.edge = []
            self.refresh()

    def _run_preset(self, preset: Preset) -> None:
        self.run(preset.clean)

    def select(self, layer: int, head: int, stack: StackName | None = None) -> None:
        """Show this head large, of the stack that is shown or another one.

        Of a long prompt only the patterns of the layer in view are held: another one is computed from what enters it.
        """
        check_head(self.session, layer, head, stack or self.stack)
        self._go_to(stack or self.stack, layer, head, [])

    def _go_to(self, stack: StackName, layer: int, head: int, edge: list[int]) -> None:
        """Show a place that has been checked."""
        with self.session.publishing, self.hold_sync():
            moved = self._now is not None and self._overview.get("stack") != stack
            self._moving = True
            try:
                self.stack, self.layer, self.head, self.edge = stack, layer, head, edge
            finally:
                self._moving = False
            if moved:
                for name, value in self._overview_to_wire().items():
                    self._set_result(name, value)
            self._show_selected()
            query, key = edge or (None, None)
            self.selection = Selection(layer=layer, head=head, query=query, key=key)
            self._code = self.code()

    def ablate(
        self, layer: int, head: int, how: Literal["zero", "mean"] | None = None, stack: StackName | None = None
    ) -> None:
        """Ablate this head's z, of the stack that is shown or another one, or restore it if it is ablated.

        An equal ablation that is in the list, switched off, is switched on.
        """
        stack = stack or self.stack
        check_head(self.session, layer, head, stack)
        chosen = cast(Literal["zero", "mean"], self.how) if how is None else how
        ablation = Ablate(on_stack(stack, "z"), layer=layer, head=head, how=chosen)
        made = ablation_of(self.experiments.entries, stack, layer, head)
        if made is None:
            switch_on(self.experiments, ablation)
        else:
            self.experiments.pop(made)

    def cut(
        self, layer: int, head: int, query: int, key: int, renormalize: bool | None = None,
        stack: StackName | None = None,
    ) -> None:  # fmt: skip
        """Cut this attention edge, of the stack that is shown or another one, or restore it if it is cut.

        An equal cut that is in the list, switched off, is switched on.
        """
        stack = stack or self.stack
        check_head(self.session, layer, head, stack)
        if renormalize not in (None, True, False):
            raise TypeError(f"renormalize={renormalize!r}: True or False is needed")
        check_edge(self.session, query, key, stack, self._tokens)
        if (stack, layer, head) == (self.stack, self.layer, self.head):
            self._go_to(stack, layer, head, [query, key])
        made = cut_of(self.experiments.entries, stack, layer, head, query, key)
        if made is not None:
            self.experiments.pop(made)
            return
        scaled = self.renormalize if renormalize is None else renormalize
        cut = CutEdge(layer=layer, head=head, query=query, key=key, renormalize=scaled, stack=stack)
        switch_on(self.experiments, cut)

    def _ask(self) -> None:
        tokens, acting, pinned = self._tokens, tuple(self.experiments), self.experiments.baseline

        def compute() -> Wire:
            stacks, whole = stacks_of(self.session), self._keeps_all()
            patterns = tuple(Site(on_stack(stack, "pattern")) for stack in stacks) if whole else ()
            bins = tuple(thumbnail_bins(stack) for stack in stacks)
            # The stream is kept for the next run to go on from, z so that a mean ablation needs no run of its own.
            kept = (*patterns, Site("resid_pre"))
            z = tuple(Site(on_stack(stack, "z")) for stack in stacks) if whole else ()
            look = self.session.look()
            baseline = self.session.ask(tokens, (*kept, *z), pinned, reduce=bins, look=look)
            now = baseline if acting == pinned else self.session.ask(tokens, kept, acting, reduce=bins, look=look)
            self._baseline, self._now, self._held = baseline, now, self._with_layer(baseline, now)
            self._note_idle(acting, now.idle)
            place, selected = self._place(), self._overview_to_wire() | self._detail_to_wire()

            def at_last() -> Wire:
                return selected if self._place() == place else self._overview_to_wire() | self._detail_to_wire()

            predictions = self._predictions_to_wire()
            return {
                "_prompt": prompt_to_wire(tokens, self.session),
                "_predictions": predictions,
                "message": self._answer_in_words(predictions["rows"]),
                "at_last": at_last,
            }

        self._submit(compute)

    def _place(self) -> tuple[str, int, int]:
        return self.stack, self.layer, self.head

    def runs(self) -> list[Run]:
        return [run for run in (self._baseline, self._now, *(self._held or ())) if run is not None]

    def _keeps_all(self) -> bool:
        """Whether the patterns of all layers are small enough to be kept."""
        cells = 0
        for stack in stacks_of(self.session):
            queries, keys = (len(tokens) for tokens in axes_of(self._tokens, stack))
            cells += sum(stack_named(self.session, stack).n_heads) * queries * keys
        return cells * self.session.engine.dtype.itemsize <= self.session.memory_budget // _KEPT_SHARE

    def _with_layer(self, baseline: Run, now: Run) -> tuple[Run, Run]:
        """Both runs, or parts of them, with all weights of the layer in view."""
        site = Site(on_stack(self.stack, "pattern"), layer=self.layer)

        def part(run: Run) -> Run:
            if run.holds(site.name, self.layer):
                return run
            return self.session.ask(run.tokens, (site,), run.interventions)

        first = part(baseline)
        return first, first if now is baseline else part(now)

    def _show_selected(self) -> None:
        """Show what is selected; at once if it is held."""
        if self._now is None:
            return
        site = on_stack(self.stack, "pattern")
        if all(run.holds(site, self.layer) for run in (self._baseline, self._now) if run is not None):
            self._held = cast(tuple[Run, Run], (self._baseline, self._now))
        elif self._running() or self._held is None or not self._held[0].holds(site, self.layer):
            self._held = None  # or two layers' weights would be held while the new ones are computed
            self.refresh()
            return
        for name, value in self._detail_to_wire().items():
            self._set_result(name, value)

    @t.validate("stack")
    def _in_the_architecture(self, proposal: Any) -> str:
        try:
            stack_named(self.session, proposal["value"])
        except ValueError as error:
            raise t.TraitError(str(error)) from None
        return str(proposal["value"])

    @t.observe("stack", "layer", "head", "edge")
    def _on_place(self, change: Any) -> None:
        if self._moving:
            return
        # Layers of a model, and stacks of it, may differ in how many heads they have.
        a = stack_named(self.session, self.stack)
        layer = min(self.layer, a.n_layers - 1)
        edge = self.edge if change["name"] == "edge" else []
        self._go_to(self.stack, layer, min(self.head, a.n_heads[layer] - 1), edge)

    def _checked_selection(self, chosen: Selection) -> Selection:
        return self._checked_place(chosen, self.stack, self._tokens)

    def _checked_place(self, chosen: Selection, stack: StackName, tokens: Tokens) -> Selection:
        chosen = replace(chosen.only("layer", "head", "query", "key"), token=None)
        check_head(self.session, chosen.layer, chosen.head, stack)
        if chosen.query is not None or chosen.key is not None:
            check_edge(self.session, chosen.query, chosen.key, stack, tokens)
        return chosen

    def _place_chosen(self) -> Selection:
        # An encoder's layers and positions are no other widget's.
        return Selection() if self.stack == "encoder" else super()._place_chosen()

    def _following(self, place: Selection) -> Selection | None:
        if self.stack == "encoder":
            return None
        layer = self.layer if place.layer is None else place.layer
        head = self.head if place.head is None else place.head
        return None if (layer, head) == (self.layer, self.head) else Selection(layer=layer, head=head)

    def _show_selection(self, chosen: Selection) -> None:
        if (chosen.layer, chosen.head, _edge(chosen)) != (self.layer, self.head, self.edge):
            assert chosen.layer is not None
            assert chosen.head is not None
            self._go_to(self.stack, chosen.layer, chosen.head, _edge(chosen))

    @t.validate("layer", "head")
    def _in_the_model(self, proposal: Any) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        a = stack_named(self.session, self.stack)
        limit = a.n_layers if name == "layer" else max(a.n_heads)
        if not 0 <= value < limit:
            raise t.TraitError(f"{name} {value} is out of range: there are {limit} ({name}s 0 to {limit - 1})")
        return value

    @t.validate("edge")
    def _in_the_pattern(self, proposal: Any) -> list[int]:
        return self._checked_edge(proposal["value"], self.stack)

    def _checked_edge(self, edge: Any, stack: StackName) -> list[int]:
        if edge:
            try:
                query, key = edge
                check_edge(self.session, query, key, stack, self._tokens)
            except (TypeError, ValueError) as error:
                raise t.TraitError(f"edge={edge!r}: [query, key] is needed; {error}") from None
        return list(edge)

    def _release(self) -> None:
        self._baseline = self._now = self._held = None

    def _changed(self) -> bool:
        return self._now is not self._baseline

    def _overview_to_wire(self) -> Wire:
        assert self._now is not None
        assert self._baseline is not None
        overview = Overview(self.session, self.stack, self._baseline, self._now)
        return overview.to_wire(self._result_id(), self.experiments)

    def _detail_to_wire(self) -> Wire:
        shown = self._shown()
        return shown.to_wire(self._result_id()) | {"result": shown.dataset()}

    def _shown(self) -> HeadPattern:
        """The selected head's weights."""
        assert self._held is not None
        return HeadPattern.read(self.session, self.stack, self.layer, self.head, self._held)

    @t.observe("_asked")
    def _on_asked(self, change: Any) -> None:
        asked = change["new"]
        with self.session.publishing:
            # Of a picture that is gone, or has been replaced: the page asks again once it has the new one.
            place = (*self._place(), asked.get("version"))
            if self._held is None or place != tuple(self._detail.get(k) for k in ("stack", "layer", "head", "version")):
                return
            before, here = self._shown().window(slice(*asked["rows"]), slice(*asked["cols"]))
            same = self._detail["now"] is None
            self._window = asked | {"baseline": to_wire(before), "now": None if same else to_wire(here)}

    def _predictions_to_wire(self) -> Wire:
        assert self._now is not None
        assert self._baseline is not None
        runs = {"baseline": self._baseline} | ({"now": self._now} if self._changed() else {})
        if self._now.answer_position is None:
            return {"id": self._result_id(), "rows": [], "note": ""}
        rows, kl = compare_predictions(self.session, runs)
        note = f"KL from baseline {kl['now']:.3f} nats" if self._changed() else ""
        return {"id": self._result_id(), "rows": rows, "note": note}

    def _answer_in_words(self, rows: list[Wire]) -> str:
        """The likeliest of the rows of `_predictions`; nothing where the prompt has no answer."""
        if not rows:
            return ""
        runs = ("baseline", "now") if "now" in rows[0] else ("baseline",)
        likeliest = [max(((row["text"], row[run]) for row in rows), key=itemgetter(1)) for run in runs]
        return answer_in_words(*likeliest, causal=self.session.causal)

    def _arguments(self) -> list[str]:
        stack = [] if self.stack == stacks_of(self.session)[-1] else [f"stack={self.stack!r}"]
        edge = [f"edge={list(self.edge)}"] if self.edge else []
        return [prompt_code(self._tokens), f"layer={self.layer}", f"head={self.head}", *stack, *edge]

    def _prompts_asked(self) -> dict[str, Tokens]:
        return {"prompt": self._tokens}

    def _settings(self) -> dict[str, Any]:
        return {"stack": self.stack, **super()._settings()}

    def _adopt(self, view: View) -> Callable[[], None]:
        tokens = self.session.tokenize(parse_prompt(self.session, view.prompts["prompt"]))
        settings = self._checked_settings(view.settings)
        stack = settings.pop("stack")
        chosen = self._checked_place(view.selection, stack, tokens)
        assert chosen.layer is not None
        assert chosen.head is not None
        layer, head, edge = chosen.layer, chosen.head, _edge(chosen)

        def take() -> None:
            self._release()
            self._tokens = tokens
            for name, value in settings.items():
                self.set_trait(name, value)
            self._go_to(stack, layer, head, edge)

        return take

    def _depends_on(self) -> dict[str, Any]:
        return {"prompt": prompt_question(self._tokens), "stack": self.stack}

    def _requests_for(self, intervention: Intervention) -> Iterator[dict[str, Any]]:
        return requests_for(intervention, stacks_of(self.session))

    def _answers(self) -> Iterator[Answer]:
        """Also the exact weights of every head, as long as they are not too many for a page."""
        yield from super()._answers()
        if self._baseline is not None and self._now is not None:
            yield from answers_of_heads(self.session, self.stack, (self._baseline, self._now), self._result_id())

    def _numbers(self) -> dict[str, Column]:
        if self._held is None:
            raise RuntimeError("there are no numbers yet: no run has finished")
        return self._shown().columns()

    def _ready(self) -> None:
        if self._now is None and not self._running():
            self.refresh()
        self.wait()

    def _heatmap(self, *, whole: bool = False) -> Heatmap | None:
        """The selected head's pattern, or its difference from baseline, (query, key)."""
        if self._held is None or not self._predictions:
            return None
        return self._shown().heatmap(self.view, hide_bos=self.hide_bos and not whole)

    def _tables(self) -> str:
        runs = ("baseline", "now") if self._changed() else ("baseline",)
        rows = [[r["text"], *(f"{r[name]:.1%}" for name in runs)] for r in self._predictions["rows"]]
        return static.table(["next token" if self.session.causal else "masked token", *runs], rows) if rows else ""


def _edge(chosen: Selection) -> list[int]:
    return [i for i in (chosen.query, chosen.key) if i is not None]
