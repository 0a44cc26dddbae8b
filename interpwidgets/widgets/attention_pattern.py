"""AttentionPattern: every head of a live model; ablate a head, cut an edge, and see what follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, get_args

import numpy as np
import traitlets as t
import xarray as xr

from ..engine.bins import Bins
from ..engine.interventions import Ablate, CutEdge, Intervention
from ..engine.sites import SITES, Site, StackName, on_stack
from ..methods.predictions import compare_predictions
from ..presets import Preset
from ..session import Run, Session
from ..tokens import Tokens
from . import static
from .bands import Windowed
from .base import LiveWidget
from .esm import bundle, stylesheet
from .exporting import Column
from .heatmap import Heatmap
from .page import Answer
from .selection import Selection
from .view import View
from .wire import Wire, parse_prompt, prompt_code, prompt_question, prompt_to_wire, to_wire, whole

if TYPE_CHECKING:
    from ..engine.architecture import Stack

_THUMBNAIL = 32  # cells along the side of a head's thumbnail
_PICTURE = 256  # cells along the side of the large picture: a longer prompt's weights come for the window in view
_MOST_IN_A_PAGE = 200_000  # weights of all heads that a saved page holds exactly
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
        ("Ctrl or ⌘ with the wheel, + − 0", "zoom in, out, and to the whole of a long prompt"),
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
        self._versions = 0
        self._moving = False  # while several traits of one place are set
        self.session = session
        stack = stack or self._stacks()[-1]
        self._check_head(layer, head, stack)
        super().__init__(session, linked=linked, **settings)
        self._go_to(stack, layer, head, self.edge)
        self._prompt = prompt_to_wire(self._tokens, session)
        self.refresh()

    def run(self, prompt: Any) -> None:
        """Show another prompt."""
        self._tokens = self.session.tokenize(parse_prompt(self.session, prompt, self._tokens))
        self.edge = []
        self.refresh()

    def _run_preset(self, preset: Preset) -> None:
        self.run(preset.clean)

    def select(self, layer: int, head: int, stack: StackName | None = None) -> None:
        """Show this head large, of the stack that is shown or another one.

        Of a long prompt only the patterns of the layer in view are held: another one is computed from what enters it.
        """
        self._check_head(layer, head, stack or self.stack)
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
        """Ablate this head's z, of the stack that is shown or another one, or restore it if it is ablated."""
        stack = stack or self.stack
        self._check_head(layer, head, stack)
        site = on_stack(stack, "z")
        for i, experiment in enumerate(self.experiments.entries):
            match experiment.intervention:
                case Ablate(layer=int(at), head=int(which), position=None) as ablation if (
                    ablation.site,
                    at,
                    which,
                ) == (site, layer, head):
                    self.experiments.pop(i)
                    return
        self.experiments.append(
            Ablate(site, layer=layer, head=head, how=how or cast(Literal["zero", "mean"], self.how))
        )

    def cut(
        self, layer: int, head: int, query: int, key: int, renormalize: bool | None = None,
        stack: StackName | None = None,
    ) -> None:  # fmt: skip
        """Cut this attention edge, of the stack that is shown or another one, or restore it if it is cut."""
        stack = stack or self.stack
        self._check_head(layer, head, stack)
        if renormalize not in (None, True, False):
            raise TypeError(f"renormalize={renormalize!r}: True or False is needed")
        self._check_edge(query, key, stack, self._tokens)
        if (stack, layer, head) == (self.stack, self.layer, self.head):
            self._go_to(stack, layer, head, [query, key])
        for i, experiment in enumerate(self.experiments.entries):
            match experiment.intervention:
                case CutEdge(layer=int(), head=int(), query=int(), key=int()) as edge if (
                    edge.stack,
                    edge.layer,
                    edge.head,
                    edge.query,
                    edge.key,
                ) == (stack, layer, head, query, key):
                    self.experiments.pop(i)
                    return
        scaled = self.renormalize if renormalize is None else renormalize
        cut = CutEdge(layer=layer, head=head, query=query, key=key, renormalize=scaled, stack=stack)
        self.experiments.append(cut)

    def _ask(self) -> None:
        tokens, acting, pinned = self._tokens, tuple(self.experiments), self.experiments.baseline

        def compute() -> Wire:
            stacks, whole = self._stacks(), self._keeps_all()
            patterns = tuple(Site(on_stack(stack, "pattern")) for stack in stacks) if whole else ()
            bins = tuple(self._bins(stack) for stack in stacks)
            # The stream is kept for the next run to go on from, z so that a mean ablation needs no run of its own.
            kept = (*patterns, Site("resid_pre"))
            z = tuple(Site(on_stack(stack, "z")) for stack in stacks) if whole else ()
            look = self.session.look()
            baseline = self.session.ask(tokens, (*kept, *z), pinned, reduce=bins, look=look)
            now = baseline if acting == pinned else self.session.ask(tokens, kept, acting, reduce=bins, look=look)
            self._baseline, self._now, self._held = baseline, now, self._with_layer(baseline, now)
            self._note_idle(acting, now.idle)
            return {
                "_prompt": prompt_to_wire(tokens, self.session),
                **self._overview_to_wire(),
                **self._detail_to_wire(),
                "_predictions": self._predictions_to_wire(),
            }

        self._submit(compute)

    def runs(self) -> list[Run]:
        return [run for run in (self._baseline, self._now, *(self._held or ())) if run is not None]

    def _bins(self, stack: StackName) -> Bins:
        return Bins(on_stack(stack, "pattern"), _THUMBNAIL)

    def _keeps_all(self) -> bool:
        """Whether the patterns of all layers are small enough to be kept."""
        cells = 0
        for stack in self._stacks():
            queries, keys = (len(tokens) for tokens in _axes(self._tokens, stack))
            cells += sum(self._of(stack).n_heads) * queries * keys
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

    def _stacks(self) -> list[StackName]:
        """The stacks of which any layer shows its pattern; a model without an encoder is one."""
        engine = self.session.engine
        counted = [(name, range(stack.n_layers)) for name, stack in engine.architecture.stacks.items()]
        seen = [
            name for name, layers in counted if any(on_stack(name, "pattern") in engine.sites(i, name) for i in layers)
        ]
        return seen if engine.has_encoder else ["decoder"]

    def _axes(self, stack: StackName) -> tuple[Tokens, Tokens]:
        """Queries and keys of what is shown, which may be the prompt before the one that is running."""
        return _axes(self._tokens if self._now is None else self._now.tokens, stack)

    def _is_causal(self, stack: StackName) -> bool:
        return stack == "decoder" and self.session.causal

    def _rests(self, stack: StackName) -> bool:
        """Whether position 0 is where heads rest, and may be hidden."""
        queries, _ = self._axes(stack)
        return len(queries) > 1 and (stack == "decoder" or (stack == "encoder" and queries.special[0]))

    def _of(self, stack: StackName) -> Stack:
        if stack not in self._stacks():
            have = ", ".join(map(repr, self._stacks()))
            raise ValueError(f"{self.session.name} shows no attention in stack {stack!r}: it has {have}")
        return self.session.engine.architecture.stacks[stack]

    def _check_head(self, layer: Any, head: Any, stack: StackName) -> None:
        a = self._of(stack)
        if not 0 <= whole(layer, "layer") < a.n_layers or not 0 <= whole(head, "head") < a.n_heads[layer]:
            have = f"layers 0 to {a.n_layers - 1}, heads 0 to {max(a.n_heads) - 1}"
            what = "this model" if stack == "decoder" else f"its {stack}"
            raise ValueError(f"there is no attention head {head} in layer {layer}: {what} has {have}")

    @t.validate("stack")
    def _in_the_architecture(self, proposal: Any) -> str:
        try:
            self._of(proposal["value"])
        except ValueError as error:
            raise t.TraitError(str(error)) from None
        return str(proposal["value"])

    def _check_edge(self, query: Any, key: Any, stack: StackName, tokens: Tokens) -> None:
        queries, keys = (len(tokens) for tokens in _axes(tokens, stack))
        causal = self._is_causal(stack)
        in_prompt = 0 <= whole(key, "key") < keys and 0 <= whole(query, "query") < queries
        if not in_prompt or (causal and key > query):
            before = "keys come before queries, and " if causal else ""
            there = f"{queries} tokens" if queries == keys else f"{queries} queries and {keys} keys"
            raise ValueError(f"no edge from query {query} to key {key}: {before}there are {there}")

    @t.observe("stack", "layer", "head", "edge")
    def _on_place(self, change: Any) -> None:
        if self._moving:
            return
        # Layers of a model, and stacks of it, may differ in how many heads they have.
        a = self._of(self.stack)
        layer = min(self.layer, a.n_layers - 1)
        edge = self.edge if change["name"] == "edge" else []
        self._go_to(self.stack, layer, min(self.head, a.n_heads[layer] - 1), edge)

    def _checked_selection(self, chosen: Selection) -> Selection:
        return self._checked_place(chosen, self.stack, self._tokens)

    def _checked_place(self, chosen: Selection, stack: StackName, tokens: Tokens) -> Selection:
        chosen = replace(chosen.only("layer", "head", "query", "key"), token=None)
        self._check_head(chosen.layer, chosen.head, stack)
        if chosen.query is not None or chosen.key is not None:
            self._check_edge(chosen.query, chosen.key, stack, tokens)
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
        a = self._of(self.stack)
        limit = a.n_layers if name == "layer" else max(a.n_heads)
        if not 0 <= value < limit:
            raise t.TraitError(f"{name} {value} is out of range: there are {limit} ({name}s 0 to {limit - 1})")
        return value

    @t.validate("edge")
    def _in_the_pattern(self, proposal: Any) -> list[int]:
        edge = proposal["value"]
        if edge:
            try:
                query, key = edge
                self._check_edge(query, key, self.stack, self._tokens)
            except (TypeError, ValueError) as error:
                raise t.TraitError(f"edge={edge!r}: [query, key] is needed; {error}") from None
        return edge

    def _release(self) -> None:
        self._baseline = self._now = self._held = None

    def _changed(self) -> bool:
        return self._now is not self._baseline

    def _overview_to_wire(self) -> Wire:
        assert self._now is not None
        assert self._baseline is not None
        stack: StackName = self.stack
        a, bins, causal = self._of(stack), self._bins(stack), self._is_causal(stack)
        edges, key_edges = (bins.edges(len(tokens)) for tokens in self._axes(stack))
        here, before = (self._thumbnails(run) for run in (self._now, self._baseline))
        changed, exact = self._changes()
        first = next((layer for layer in range(a.n_layers) if changed[layer].any()), a.n_layers)
        baseline = {
            "id": self._result_id(),
            "stack": stack,
            "stacks": self._stacks(),
            "causal": causal,
            "rests": self._rests(stack),
            "edges": edges,
            "key_edges": key_edges,
            "present": [bins.site in self.session.engine.sites(layer, stack) for layer in range(a.n_layers)],
            "weights": to_wire(before, triangle=causal),
        }
        overview = {
            "id": self._result_id(),
            "stack": stack,
            "acts": self._changed(),
            "first": first,
            "now": to_wire(here[first:], triangle=causal) if first < a.n_layers else None,
            "changed": to_wire(changed) if self._changed() else None,
            "exact": exact,
            "ablated": self._single_ablations(),
            "cut": self._single_cuts(),
        }
        return {"_baseline_overview": baseline, "_overview": overview}

    def _thumbnails(self, run: Run) -> np.ndarray:
        """The largest weight of each bin in 255ths, (layer, head, query bin, key bin)."""
        a = self._of(self.stack)
        reduced = run.reduced[self._bins(self.stack)]
        shape = next(iter(reduced.values())).shape[1:]
        found = np.zeros((a.n_layers, max(a.n_heads), *shape), np.uint8)
        for layer, weights in reduced.items():
            found[layer, : len(weights)] = _in_255ths(weights.float().cpu().numpy())
        return found

    def _changes(self) -> tuple[np.ndarray, bool]:
        """How much the weights of each head differ at most from the baseline's, (layer, head), and whether it is exact.

        Where whole patterns are not held, it is the largest difference of any two bins' largest weights: no more than
        the largest difference of two weights.
        """
        assert self._now is not None
        assert self._baseline is not None
        a, bins = self._of(self.stack), self._bins(self.stack)
        exact = True
        changed = np.zeros((a.n_layers, max(a.n_heads)), np.float32)
        for layer, binned in self._now.reduced[bins].items():
            if binned is self._baseline.reduced[bins][layer]:
                continue
            if self._now.holds(bins.site, layer) and self._baseline.holds(bins.site, layer):
                heads = [run.tensor(bins.site, layer).float() for run in (self._now, self._baseline)]
                most = (heads[0] - heads[1]).abs_().amax((0, 2))
            else:
                most = (binned.float() - self._baseline.reduced[bins][layer].float()).abs().amax((1, 2))
                exact = exact and all(len(tokens) <= bins.most for tokens in self._axes(self.stack))
            changed[layer, : len(most)] = most.cpu().numpy()
        return changed, exact

    def _single_cuts(self) -> list[list[int]]:
        """Acting cuts of one edge of one head of this stack, as clicks make them."""
        cuts = (i for i in self.experiments if isinstance(i, CutEdge) and i.stack == self.stack)
        places = ([i.layer, i.head, i.query, i.key] for i in cuts)
        return [[x for x in place if isinstance(x, int)] for place in places if all(isinstance(x, int) for x in place)]

    def _single_ablations(self) -> list[list[Any]]:
        """Acting ablations of one head of this stack, as clicks make them."""
        site = on_stack(self.stack, "z")
        ablations = (i for i in self.experiments if isinstance(i, Ablate) and i.site == site)
        return [[i.layer, i.head, i.how] for i in ablations if isinstance(i.layer, int) and isinstance(i.head, int)]

    def _detail_to_wire(self) -> Wire:
        assert self._held is not None
        shown = self._head_to_wire(self.layer, self.head, self._held)
        if shown["_detail"] | {"id": 0, "version": 0} != self._detail | {"id": 0, "version": 0}:
            self._versions += 1
        shown["_detail"]["version"] = self._versions
        return shown | {"result": self._dataset(*self._shown())}

    def _head_to_wire(self, layer: int, head: int, runs: tuple[Run, Run]) -> Wire:
        """A head's weights in the baseline and now, as the page shows them large."""
        a, causal = self._of(self.stack), self._is_causal(self.stack)
        group = a.n_heads[layer] // max(1, a.n_kv_heads[layer])
        before, here = self._weights(layer, head, runs)
        place = {
            "id": self._result_id(),
            "stack": self.stack,
            "layer": layer,
            "head": head,
        }
        bins = Bins(on_stack(self.stack, "pattern"), _PICTURE)
        sides = [len(tokens) for tokens in self._axes(self.stack)]
        coarse = max(sides) > _PICTURE
        same = np.array_equal(here, before)
        baseline = place | {
            "kv_head": head // max(1, group),
            "edges": bins.edges(sides[0]) if coarse else None,
            "key_edges": bins.edges(sides[1]) if coarse else None,
            "weights": to_wire(_in_255ths(bins.of(before)) if coarse else before, triangle=causal),
        }
        now, difference, bound = here, None, 0.0
        if coarse and not same:
            now = _in_255ths(bins.of(here))
            rise, fall = bins.of(here - before), bins.of(before - here)
            bound = float(max(rise.max(), fall.max()))
            signed = np.where(rise >= fall, rise, -fall) / bound
            difference = np.rint(127 * signed + 127).astype(np.uint8)
        detail = place | {
            "acts": self._changed(),
            "now": None if same else to_wire(now, triangle=causal),
            "difference": to_wire(difference, triangle=causal),
            "bound": bound,
        }
        return {"_baseline_detail": baseline, "_detail": detail | {"version": 0}}

    def _dataset(self, before: np.ndarray, here: np.ndarray) -> xr.Dataset:
        queries, keys = self._axes(self.stack)
        return xr.Dataset(
            # Copies: views would hold the runs' whole patterns for as long as the result is known.
            {"pattern": (("query", "key"), here.copy()), "baseline": (("query", "key"), before.copy())},
            coords={
                "query": np.arange(len(queries)), "key": np.arange(len(keys)), "layer": self.layer, "head": self.head
            },
            attrs={"stack": self.stack, "tokens": list(queries.strings), "key_tokens": list(keys.strings)},
        )  # fmt: skip

    @t.observe("_asked")
    def _on_asked(self, change: Any) -> None:
        asked = change["new"]
        with self.session.publishing:
            # Of a picture that is gone, or has been replaced: the page asks again once it has the new one.
            place = (self.stack, self.layer, self.head, asked.get("version"))
            if self._held is None or place != tuple(self._detail.get(k) for k in ("stack", "layer", "head", "version")):
                return
            rows, cols = slice(*asked["rows"]), slice(*asked["cols"])
            before, here = (weights[rows, cols] for weights in self._shown())
            if before.shape != (rows.stop - rows.start, cols.stop - cols.start):
                raise ValueError(f"there are no weights at queries {asked['rows']}, keys {asked['cols']}")
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

    def _arguments(self) -> list[str]:
        stack = [] if self.stack == self._stacks()[-1] else [f"stack={self.stack!r}"]
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
        match intervention:
            case Ablate(layer=int(), head=int(), position=None) as i if i.site in map(_z, self._stacks()):
                stack = next(stack for stack in self._stacks() if _z(stack) == i.site)
                yield {"op": "ablate", "layer": i.layer, "head": i.head, "how": i.how, "stack": stack}
            case CutEdge(layer=int(), head=int(), query=int(), key=int()) as i:
                yield {
                    "op": "cut", "layer": i.layer, "head": i.head, "query": i.query, "key": i.key,
                    "renormalize": i.renormalize, "stack": i.stack,
                }  # fmt: skip

    def _answers(self) -> Iterator[Answer]:
        """Also the exact weights of every head, as long as they are not too many for a page."""
        yield from super()._answers()
        site = on_stack(self.stack, "pattern")
        queries, keys = (len(tokens) for tokens in self._axes(self.stack))
        a = self._of(self.stack)
        runs = [run for run in (self._baseline, self._now) if run is not None]
        if not runs or sum(a.n_heads) * queries * keys > _MOST_IN_A_PAGE:
            return
        for layer, n_heads in enumerate(a.n_heads):
            if not all(run.holds(site, layer) for run in runs):
                continue
            for head in range(n_heads):
                request = {"op": "select", "layer": layer, "head": head, "stack": self.stack}
                yield request, self._head_to_wire(layer, head, (runs[0], runs[-1]))

    def _numbers(self) -> dict[str, Column]:
        if self._held is None:
            raise RuntimeError("there are no numbers yet: the model is still running")
        before, here = self._shown()
        causal = self._is_causal(self.stack)
        query, key = np.tril_indices(len(here)) if causal else np.indices(here.shape).reshape(2, -1)
        queries, keys = self._axes(self.stack)
        columns: dict[str, Column] = {
            "stack": [self.stack] * len(query), "layer": [self.layer] * len(query), "head": [self.head] * len(query),
            "query": query.tolist(), "query_token": [queries.strings[i] for i in query],
            "key": key.tolist(), "key_token": [keys.strings[i] for i in key],
        }  # fmt: skip
        weights = {"baseline": before, "now": here} if self._changed() else {"weight": here}
        return columns | {name: values[query, key] for name, values in weights.items()}

    def _ready(self) -> None:
        if self._now is None and not self._running():
            self.refresh()
        self.wait()

    def _heatmap(self, *, whole: bool = False) -> Heatmap | None:
        """The selected head's pattern, or its difference from baseline, (query, key)."""
        if self._held is None or not self._predictions:
            return None
        before, here = self._shown()
        weights = (before if self.view == "baseline" else here).copy()
        difference = self.view == "difference" and self._changed()
        if difference:
            weights -= before
        self._blank_masked(weights)
        first = 1 if self.hide_bos and self._rests(self.stack) and not whole else 0
        queries, keys = (tokens.strings[first:] for tokens in self._axes(self.stack))
        hidden = ", position 0 hidden" if first else ""
        return Heatmap(
            weights[first:, first:], queries, keys, row_title="query", column_title="key", signed=difference,
            title=f"attention of {self._head_name()}, query (row) to key (column){hidden}",
            unit="now − baseline" if difference else "attention weight",
        )  # fmt: skip

    def _tables(self) -> str:
        runs = ("baseline", "now") if self._changed() else ("baseline",)
        rows = [[r["text"], *(f"{r[name]:.1%}" for name in runs)] for r in self._predictions["rows"]]
        return static.table(["next token" if self.session.causal else "masked token", *runs], rows) if rows else ""

    def _blank_masked(self, weights: np.ndarray) -> None:
        """Leave out of a picture (query, key) what a causal model's queries cannot see."""
        if self._is_causal(self.stack):
            weights[np.triu_indices(len(weights), 1)] = np.nan

    def _shown(self) -> tuple[np.ndarray, np.ndarray]:
        """The selected head's weights in the baseline and now, (query, key) each."""
        assert self._held is not None
        return self._weights(self.layer, self.head, self._held)

    def _weights(self, layer: int, head: int, runs: tuple[Run, Run]) -> tuple[np.ndarray, np.ndarray]:
        site = on_stack(self.stack, "pattern")
        before, here = (run.tensor(site, layer)[:, head].float().cpu().numpy() for run in runs)
        return before, here

    def _head_name(self) -> str:
        return ("" if self.stack == "decoder" else f"{self.stack} ") + f"L{self.layer}H{self.head}"


def _edge(chosen: Selection) -> list[int]:
    return [i for i in (chosen.query, chosen.key) if i is not None]


def _axes(tokens: Tokens, stack: StackName) -> tuple[Tokens, Tokens]:
    """The tokens that are queries and those that are keys."""
    site = SITES[on_stack(stack, "pattern")]
    return tokens.of(site), tokens.keys_of(site)


def _z(stack: StackName) -> str:
    return on_stack(stack, "z")


def _in_255ths(weights: np.ndarray) -> np.ndarray:
    return np.rint(255 * weights.clip(0, 1)).astype(np.uint8)
