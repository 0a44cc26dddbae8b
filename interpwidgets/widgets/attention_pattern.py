"""AttentionPattern: every head of a live model; ablate a head, cut an edge, and see what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import traitlets as t

from ..engine.interventions import Ablate, CutEdge
from ..engine.sites import SITES, Site, StackName, on_stack
from ..methods.predictions import compare_predictions
from ..session import Run, Session
from ..tokens import Tokens
from . import static
from .base import LiveWidget, Wire, parse_prompt, prompt_code, prompt_to_wire, to_wire, whole
from .esm import bundle, stylesheet

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from ..engine.architecture import Stack

_THUMBNAIL = 32  # cells along the side of a head's thumbnail


class AttentionPattern(LiveWidget):
    """Attention patterns of all layers and heads, the selected head large, the model's prediction beside it.

    Click a head to select it, ablate it with the button or A; click a cell to cut that attention edge. Everything
    downstream is run again; the "difference from baseline" view shows what changed. Of a model with an encoder, `stack`
    chooses between the decoder's attention to itself, the encoder's, and that from the decoder to the encoder, which is
    shown first.

    Example: `iw.AttentionPattern(session, "The cat sat on the mat", layer=3, head=1)`
    """

    title = "Attention pattern"
    operations = ("run", "select", "ablate", "cut")
    _esm = bundle("attention_pattern.js")
    _css = stylesheet("attention_pattern.css")

    stack = t.Enum(get_args(StackName), "decoder").tag(sync=True)
    """Which attention is shown: the "decoder"'s to itself, the "encoder"'s, or "cross", from the one to the other."""
    layer = t.Int(0).tag(sync=True)
    """The selected layer."""
    head = t.Int(0).tag(sync=True)
    """The selected head."""
    hide_bos = t.Bool(True).tag(sync=True)
    """Leave position 0, on which most heads rest, out of the picture; not in attention to an encoder, nor in an encoder
    whose text begins with no special token."""
    view = t.Enum(("now", "difference", "baseline"), "now").tag(sync=True)
    """What is drawn: the pattern with the experiments, its difference from the model as it is, or the latter."""
    how = t.Enum(("zero", "mean"), "zero").tag(sync=True)
    """How the ablate button ablates."""
    renormalize = t.Bool(True).tag(sync=True)
    """Whether the rest of a row is scaled to sum to 1 after an edge is cut."""

    _prompt = t.Dict().tag(sync=True)
    _overview = t.Dict().tag(sync=True)
    _detail = t.Dict().tag(sync=True)
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
        self.session = session
        stack = stack or self._stacks()[-1]
        self._check_head(layer, head, stack)
        super().__init__(session, linked=linked, **settings)
        self.stack, self.layer, self.head = stack, layer, head
        self._prompt = prompt_to_wire(self._tokens, session)
        self.refresh()

    def run(self, prompt: Any) -> None:
        """Show another prompt."""
        self._tokens = self.session.tokenize(parse_prompt(self.session, prompt, self._tokens))
        self.refresh()

    def select(self, layer: int, head: int, stack: StackName | None = None) -> None:
        """Show this head large, of the stack that is shown or another one; nothing is run."""
        self._check_head(layer, head, stack or self.stack)
        with self.session.publishing, self.hold_sync():
            self.stack = stack or self.stack
            self.layer, self.head = layer, head
            if self._now is not None:
                self._detail = self._detail_to_wire()
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
        queries, keys = (len(tokens) for tokens in self._axes(stack))
        if renormalize not in (None, True, False):
            raise TypeError(f"renormalize={renormalize!r}: True or False is needed")
        in_prompt = 0 <= whole(key, "key") < keys and 0 <= whole(query, "query") < queries
        if not in_prompt or (self._is_causal(stack) and key > query):
            before = "keys come before queries, and " if self._is_causal(stack) else ""
            there = f"{queries} tokens" if queries == keys else f"{queries} queries and {keys} keys"
            raise ValueError(f"no edge from query {query} to key {key}: {before}there are {there}")
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
        tokens, acting = self._tokens, tuple(self.experiments)

        def compute() -> Wire:
            shown = self._stacks()
            patterns = tuple(Site(on_stack(stack, "pattern")) for stack in shown)
            # The stream is kept for the next run to go on from, z so that a mean ablation needs no run of its own.
            kept = (*patterns, Site("resid_pre"))
            baseline = self.session.ask(tokens, (*kept, *(Site(on_stack(stack, "z")) for stack in shown)))
            now = self.session.ask(tokens, kept, acting) if acting else baseline
            self._baseline, self._now = baseline, now
            self._note_idle(acting, now.idle)
            return {
                "_prompt": prompt_to_wire(tokens, self.session),
                "_overview": self._overview_to_wire(),
                "_detail": self._detail_to_wire(),
                "_predictions": self._predictions_to_wire(),
            }

        self._submit(compute)

    def runs(self) -> list[Run]:
        return [run for run in (self._baseline, self._now) if run is not None]

    def _stacks(self) -> list[StackName]:
        """The stacks of which any layer shows its pattern; a model without an encoder is one."""
        engine = self.session.engine
        counted = [(name, range(stack.n_layers)) for name, stack in engine.architecture.stacks.items()]
        seen = [
            name for name, layers in counted if any(on_stack(name, "pattern") in engine.sites(i, name) for i in layers)
        ]
        return seen if engine.has_encoder else ["decoder"]

    def _axes(self, stack: StackName) -> tuple[Tokens, Tokens]:
        """The tokens that are queries and those that are keys."""
        site = SITES[on_stack(stack, "pattern")]
        return self._tokens.of(site), self._tokens.keys_of(site)

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

    def _check_head(self, layer: int, head: int, stack: StackName) -> None:
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

    @t.observe("stack")
    def _on_stack(self, change: Any) -> None:
        a = self._of(change["new"])
        with self.session.publishing, self.hold_sync():
            self.layer = min(self.layer, a.n_layers - 1)
            self.head = min(self.head, max(a.n_heads) - 1)
            if self._now is not None:
                self._overview, self._detail = self._overview_to_wire(), self._detail_to_wire()
            self._code = self.code()

    @t.validate("layer", "head")
    def _in_the_model(self, proposal: Any) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        a = self._of(self.stack)
        limit = a.n_layers if name == "layer" else max(a.n_heads)
        if not 0 <= value < limit:
            raise t.TraitError(f"{name} {value} is out of range: there are {limit} ({name}s 0 to {limit - 1})")
        return value

    def _release(self) -> None:
        self._baseline = self._now = None

    def _changed(self) -> bool:
        return self._now is not self._baseline

    def _overview_to_wire(self) -> Wire:
        assert self._now is not None
        assert self._baseline is not None
        stack: StackName = self.stack
        a, site = self._of(stack), on_stack(stack, "pattern")
        edges, key_edges = (_edges(len(tokens)) for tokens in self._axes(stack))
        shape = (a.n_layers, max(a.n_heads), len(edges) - 1, len(key_edges) - 1)
        now, baseline = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
        changed = np.zeros(shape[:2], np.float32)
        present = [site in self.session.engine.sites(layer, stack) for layer in range(a.n_layers)]
        for layer in (i for i, there in enumerate(present) if there):
            here, before = _pattern(self._now, stack, layer), _pattern(self._baseline, stack, layer)
            now[layer, : len(here)] = _thumbnails(here, edges, key_edges)
            if self._changed():
                baseline[layer, : len(here)] = _thumbnails(before, edges, key_edges)
                changed[layer, : len(here)] = np.abs(here - before).max((1, 2))
        return {
            "id": self._result_id(),
            "stack": stack,
            "stacks": self._stacks(),
            "causal": self._is_causal(stack),
            "rests": self._rests(stack),
            "edges": edges,
            "key_edges": key_edges,
            "present": present,
            "now": to_wire(now),
            "baseline": to_wire(baseline) if self._changed() else None,
            "changed": to_wire(changed) if self._changed() else None,
            "ablated": self._single_ablations(),
            "cut": self._single_cuts(),
        }

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
        assert self._now is not None
        assert self._baseline is not None
        a = self._of(self.stack)
        group = a.n_heads[self.layer] // max(1, a.n_kv_heads[self.layer])
        return {
            "id": self._result_id(),
            "stack": self.stack,
            "layer": self.layer,
            "head": self.head,
            "kv_head": self.head // max(1, group),
            "now": to_wire(self._shown(self._now)),
            "baseline": to_wire(self._shown(self._baseline)) if self._changed() else None,
        }

    def _predictions_to_wire(self) -> Wire:
        assert self._now is not None
        assert self._baseline is not None
        runs = {"baseline": self._baseline} | ({"now": self._now} if self._changed() else {})
        if self._now.answer_position is None:
            return {"id": self._result_id(), "rows": [], "note": ""}
        rows, kl = compare_predictions(self.session, runs)
        note = f"KL from baseline {kl['now']:.3f} nats" if self._changed() else ""
        return {"id": self._result_id(), "rows": rows, "note": note}

    def _code_of_view(self) -> str:
        extra = "" if self.stack == self._stacks()[-1] else f", stack={self.stack!r}"
        extra += "" if self.linked else ", linked=False"
        return f"iw.AttentionPattern(session, {prompt_code(self._tokens)}, layer={self.layer}, head={self.head}{extra})"

    def figure(self) -> go.Figure:
        """The selected head's pattern, or its difference from baseline, (query, key)."""
        if self._now is None and not self._running():
            self.refresh()
        self.wait()
        from .figures import heatmap

        assert self._now is not None
        assert self._baseline is not None
        weights = self._shown(self._baseline if self.view == "baseline" else self._now).copy()
        difference = self.view == "difference" and self._changed()
        if difference:
            weights -= self._shown(self._baseline)
        self._blank_masked(weights)
        queries, keys = self._axes(self.stack)
        return heatmap(
            weights, queries.strings, keys.strings, title=self._head_name(), row_title="query",
            column_title="key", unit="now − baseline" if difference else "attention weight", signed=difference,
        )  # fmt: skip

    def _static_picture(self) -> str:
        if self._now is None or not self._predictions:
            return "<div>The model is still running.</div>"
        first = 1 if self.hide_bos and self._rests(self.stack) else 0
        weights = self._shown(self._now)[first:, first:].copy()
        self._blank_masked(weights)
        queries, keys = (tokens.strings[first:] for tokens in self._axes(self.stack))
        hidden = ", position 0 hidden" if first else ""
        caption = f"attention of {self._head_name()}, query (row) to key (column){hidden}"
        runs = ("baseline", "now") if self._changed() else ("baseline",)
        rows = [[r["text"], *(f"{r[name]:.1%}" for name in runs)] for r in self._predictions["rows"]]
        of = "next token" if self.session.causal else "masked token"
        return static.matrix(weights, queries, keys, caption) + (static.table([of, *runs], rows) if rows else "")

    def _blank_masked(self, weights: np.ndarray) -> None:
        """Leave out of a picture (query, key) what a causal model's queries cannot see."""
        if self._is_causal(self.stack):
            weights[np.triu_indices(len(weights), 1)] = np.nan

    def _shown(self, run: Run) -> np.ndarray:
        """The selected head's weights, (query, key)."""
        return _pattern(run, self.stack, self.layer)[self.head]

    def _head_name(self) -> str:
        return ("" if self.stack == "decoder" else f"{self.stack} ") + f"L{self.layer}H{self.head}"


def _pattern(run: Run, stack: StackName, layer: int) -> np.ndarray:
    """(head, query, key) weights of one layer."""
    return run.tensor(on_stack(stack, "pattern"), layer).float().cpu().numpy().transpose(1, 0, 2)


def _edges(length: int) -> list[int]:
    """Bin edges over positions: position 0 alone, the rest in at most `_THUMBNAIL - 1` bins."""
    if length <= _THUMBNAIL:
        return list(range(length + 1))
    return [0, *np.linspace(1, length, _THUMBNAIL).round().astype(int).tolist()]


def _thumbnails(weights: np.ndarray, edges: list[int], key_edges: list[int]) -> np.ndarray:
    """(head, query, key) weights as (head, bin, bin) bytes: the largest of each bin, so that no spike is lost."""
    largest = weights
    for axis, starts in ((1, edges[:-1]), (2, key_edges[:-1])):
        if len(starts) < weights.shape[axis]:
            largest = np.maximum.reduceat(largest, starts, axis=axis)
    return np.rint(255 * largest.clip(0, 1)).astype(np.uint8)
