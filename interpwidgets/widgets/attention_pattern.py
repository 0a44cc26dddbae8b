"""AttentionPattern: every head of a live model; ablate a head, cut an edge, and see what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import traitlets as t

from ..engine.interventions import Ablate, CutEdge
from ..engine.sites import Site
from ..methods.predictions import compare_predictions
from ..session import Run, Session
from . import static
from .base import LiveWidget, Wire, parse_prompt, prompt_code, prompt_to_wire, to_wire, whole
from .esm import bundle, stylesheet

if TYPE_CHECKING:
    import plotly.graph_objects as go

_THUMBNAIL = 32  # cells along the side of a head's thumbnail


class AttentionPattern(LiveWidget):
    """Attention patterns of all layers and heads, the selected head large, next-token predictions beside it.

    Click a head to select it, ablate it with the button or A; click a cell to cut that attention edge. Everything
    downstream is run again; the "difference from baseline" view shows what changed.

    Example: `iw.AttentionPattern(session, "The cat sat on the mat", layer=3, head=1)`
    """

    title = "Attention pattern"
    operations = ("run", "select", "ablate", "cut")
    _esm = bundle("attention_pattern.js")
    _css = stylesheet("attention_pattern.css")

    layer = t.Int(0).tag(sync=True)
    """The selected layer."""
    head = t.Int(0).tag(sync=True)
    """The selected head."""
    hide_bos = t.Bool(True).tag(sync=True)
    """Leave position 0, on which most heads rest, out of the picture."""
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
        linked: bool = True,
        **settings: Any,
    ) -> None:
        self._tokens = session.tokenize(parse_prompt(session, prompt))
        self._baseline: Run | None = None
        self._now: Run | None = None
        self.session = session
        self._check_head(layer, head)
        super().__init__(session, linked=linked, **settings)
        self.layer, self.head = layer, head
        self._prompt = prompt_to_wire(self._tokens, session)
        self.refresh()

    def run(self, prompt: Any) -> None:
        """Show another prompt."""
        self._tokens = self.session.tokenize(parse_prompt(self.session, prompt))
        self.refresh()

    def select(self, layer: int, head: int) -> None:
        """Show this head large; nothing is run."""
        self._check_head(layer, head)
        with self.session.publishing, self.hold_sync():
            self.layer, self.head = layer, head
            if self._now is not None:
                self._detail = self._detail_to_wire()
            self._code = self.code()

    def ablate(self, layer: int, head: int, how: Literal["zero", "mean"] | None = None) -> None:
        """Ablate this head's z, or restore it if it is ablated."""
        self._check_head(layer, head)
        for i, experiment in enumerate(self.experiments.entries):
            match experiment.intervention:
                case Ablate(site="z", layer=int(at), head=int(which), position=None) if (at, which) == (layer, head):
                    self.experiments.pop(i)
                    return
        self.experiments.append(Ablate("z", layer=layer, head=head, how=how or cast(Literal["zero", "mean"], self.how)))

    def cut(self, layer: int, head: int, query: int, key: int, renormalize: bool | None = None) -> None:
        """Cut this attention edge, or restore it if it is cut."""
        self._check_head(layer, head)
        length = len(self._tokens)
        if renormalize not in (None, True, False):
            raise TypeError(f"renormalize={renormalize!r}: True or False is needed")
        if not 0 <= whole(key, "key") <= whole(query, "query") < length:
            raise ValueError(
                f"no edge from query {query} to key {key}: keys come before queries, and there are {length} tokens"
            )
        for i, experiment in enumerate(self.experiments.entries):
            match experiment.intervention:
                case CutEdge(layer=int(), head=int(), query=int(), key=int()) as edge if (
                    edge.layer,
                    edge.head,
                    edge.query,
                    edge.key,
                ) == (layer, head, query, key):
                    self.experiments.pop(i)
                    return
        scaled = self.renormalize if renormalize is None else renormalize
        self.experiments.append(CutEdge(layer=layer, head=head, query=query, key=key, renormalize=scaled))

    def _ask(self) -> None:
        tokens, acting = self._tokens, tuple(self.experiments)

        def compute() -> Wire:
            # z is kept beside the patterns, so that a mean ablation needs no run of its own.
            baseline = self.session.ask(tokens, (Site("pattern"), Site("z")))
            now = self.session.ask(tokens, (Site("pattern"),), acting) if acting else baseline
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

    def _check_head(self, layer: int, head: int) -> None:
        a = self.session.engine.architecture
        if not 0 <= whole(layer, "layer") < a.n_layers or not 0 <= whole(head, "head") < a.n_heads[layer]:
            have = f"layers 0 to {a.n_layers - 1}, heads 0 to {max(a.n_heads) - 1}"
            raise ValueError(f"there is no attention head {head} in layer {layer}: this model has {have}")

    @t.validate("layer", "head")
    def _in_the_model(self, proposal: Any) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        a = self.session.engine.architecture
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
        a = self.session.engine.architecture
        edges = _edges(len(self._tokens))
        shape = (a.n_layers, max(a.n_heads), len(edges) - 1, len(edges) - 1)
        now, baseline = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
        changed = np.zeros(shape[:2], np.float32)
        present = ["pattern" in self.session.engine.sites(layer) for layer in range(a.n_layers)]
        for layer in (i for i, there in enumerate(present) if there):
            here, before = _pattern(self._now, layer), _pattern(self._baseline, layer)
            now[layer, : len(here)] = _thumbnails(here, edges)
            if self._changed():
                baseline[layer, : len(here)] = _thumbnails(before, edges)
                changed[layer, : len(here)] = np.abs(here - before).max((1, 2))
        return {
            "id": self._result_id(),
            "edges": edges,
            "present": present,
            "now": to_wire(now),
            "baseline": to_wire(baseline) if self._changed() else None,
            "changed": to_wire(changed) if self._changed() else None,
            "ablated": self._single_ablations(),
            "cut": self._single_cuts(),
        }

    def _single_cuts(self) -> list[list[int]]:
        """Acting cuts of one edge of one head, as clicks make them."""
        cuts = (i for i in self.experiments if isinstance(i, CutEdge))
        places = ([i.layer, i.head, i.query, i.key] for i in cuts)
        return [[x for x in place if isinstance(x, int)] for place in places if all(isinstance(x, int) for x in place)]

    def _single_ablations(self) -> list[list[Any]]:
        """Acting ablations of one head, as clicks make them."""
        ablations = (i for i in self.experiments if isinstance(i, Ablate) and i.site == "z")
        return [[i.layer, i.head, i.how] for i in ablations if isinstance(i.layer, int) and isinstance(i.head, int)]

    def _detail_to_wire(self) -> Wire:
        assert self._now is not None
        assert self._baseline is not None
        a = self.session.engine.architecture
        group = a.n_heads[self.layer] // max(1, a.n_kv_heads[self.layer])
        return {
            "id": self._result_id(),
            "layer": self.layer,
            "head": self.head,
            "kv_head": self.head // max(1, group),
            "now": to_wire(_pattern(self._now, self.layer)[self.head]),
            "baseline": to_wire(_pattern(self._baseline, self.layer)[self.head]) if self._changed() else None,
        }

    def _predictions_to_wire(self) -> Wire:
        assert self._now is not None
        assert self._baseline is not None
        runs = {"baseline": self._baseline} | ({"now": self._now} if self._changed() else {})
        rows, kl = compare_predictions(self.session, runs)
        note = f"KL from baseline {kl['now']:.3f} nats" if self._changed() else ""
        return {"id": self._result_id(), "rows": rows, "note": note}

    def _code_of_view(self) -> str:
        extra = "" if self.linked else ", linked=False"
        return f"iw.AttentionPattern(session, {prompt_code(self._tokens)}, layer={self.layer}, head={self.head}{extra})"

    def figure(self) -> go.Figure:
        """The selected head's pattern, or its difference from baseline, (query, key)."""
        if self._now is None and not self._running():
            self.refresh()
        self.wait()
        from .figures import heatmap

        assert self._now is not None
        assert self._baseline is not None
        weights = _pattern(self._baseline if self.view == "baseline" else self._now, self.layer)[self.head].copy()
        difference = self.view == "difference" and self._changed()
        if difference:
            weights -= _pattern(self._baseline, self.layer)[self.head]
        weights[np.triu_indices(len(weights), 1)] = np.nan
        return heatmap(
            weights, self._tokens.strings, self._tokens.strings, title=f"L{self.layer}H{self.head}", row_title="query",
            column_title="key", unit="now − baseline" if difference else "attention weight", signed=difference,
        )  # fmt: skip

    def _static_picture(self) -> str:
        if self._now is None or not self._predictions:
            return "<div>The model is still running.</div>"
        first = 1 if self.hide_bos and len(self._tokens) > 1 else 0
        weights = _pattern(self._now, self.layer)[self.head, first:, first:].copy()
        weights[np.triu_indices(len(weights), 1)] = np.nan
        names = self._tokens.strings[first:]
        hidden = ", position 0 hidden" if first else ""
        caption = f"attention of L{self.layer}H{self.head}, query (row) to key (column){hidden}"
        runs = ("baseline", "now") if self._changed() else ("baseline",)
        rows = [[r["text"], *(f"{r[name]:.1%}" for name in runs)] for r in self._predictions["rows"]]
        return static.matrix(weights, names, names, caption) + static.table(["next token", *runs], rows)


def _pattern(run: Run, layer: int) -> np.ndarray:
    """(head, query, key) weights of one layer."""
    return run.tensor("pattern", layer).float().cpu().numpy().transpose(1, 0, 2)


def _edges(length: int) -> list[int]:
    """Bin edges over positions: position 0 alone, the rest in at most `_THUMBNAIL - 1` bins."""
    if length <= _THUMBNAIL:
        return list(range(length + 1))
    return [0, *np.linspace(1, length, _THUMBNAIL).round().astype(int).tolist()]


def _thumbnails(weights: np.ndarray, edges: list[int]) -> np.ndarray:
    """(head, query, key) weights as (head, bin, bin) bytes: the largest of each bin, so that no spike is lost."""
    starts = edges[:-1]
    largest = weights
    if len(starts) < weights.shape[1]:
        largest = np.maximum.reduceat(np.maximum.reduceat(weights, starts, axis=1), starts, axis=2)
    return np.rint(255 * largest.clip(0, 1)).astype(np.uint8)
