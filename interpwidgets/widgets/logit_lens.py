"""LogitLens: what the model would say after each layer; replace a token, transplant a hidden state, track a word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import traitlets as t
import xarray as xr

from ..engine.interventions import Intervention, Patch
from ..engine.plain import short
from ..methods.lens import UNITS, changed_cells, lens_run, read_stack
from ..presets import Preset
from ..session import Session
from ..tokens import Tokens, elide
from . import static
from .answer import Likeliest, answer_in_words
from .bands import MOST, Windowed, band_edges, drawn_edges
from .base import LiveWidget
from .esm import bundle, stylesheet
from .exporting import Column
from .heatmap import Heatmap
from .lens_bands import KEPT, bands_to_wire, touched_bands
from .lens_scale import metric_says, metric_scale
from .selection import Selection
from .view import View
from .wire import Wire, parse_prompt, prompt_code, prompt_question, prompt_to_wire, to_wire, whole

_CHEAP = ("probability", "log_probability", "entropy", "rank", "cross_entropy")


@dataclass(frozen=True)
class _Shown:
    """What is on the screen: the baseline's reading, and with experiments the other one and the cells they reach."""

    number: int
    """Of the baseline's reading."""
    tokens: Tokens
    reading: xr.Dataset
    now: xr.Dataset | None = None
    touched: np.ndarray | None = None


class LogitLens(Windowed, LiveWidget):
    """The logit lens of a prompt, layer by position, with the top token in each cell.

    Click a cell for its ten likeliest tokens; click one of them to track it over the layers; click a token of the
    prompt to replace it; transplant a hidden state from one cell to another, and a second grid shows what changed.
    Layers count as in `iw.logit_lens`: -1 is the embedding. Of a long prompt, runs of positions are one column each,
    which a click opens.

    `selection` has the layer and position of the selected cell, and the token there. `result` is the reading, as
    `iw.logit_lens` gives it, with one more dimension, `run`: "baseline" and "now".

    Example: `iw.LogitLens(session, "The Eiffel Tower is in the city of")`
    """

    title = "Logit lens"
    operations = ("run", "replace", "transplant_cells", "track", "untrack", "compute")
    from_page = ("_asked",)
    terms = ("residual stream", "logit lens", "activation patching")
    shortcuts = (
        ("click or arrow key on a cell", "its ten likeliest tokens"),
        ("click one of these tokens", "follow it over the layers"),
        ("T or Enter on a cell", "transplant from it: then click, or Enter on, the one to write over"),
        ("click a token of the prompt", "replace it"),
        ("click or Enter on a narrow column", "open its positions, with Shift beside those that are open; Esc folds"),
    )
    settings = ("metric", "tracked")
    priority = 1
    _esm = bundle("logit_lens.js")
    _css = stylesheet("logit_lens.css")

    metric = t.Enum(tuple(UNITS), "probability").tag(sync=True)
    """What colours the cells."""
    cell = t.List(t.Int(), default_value=[]).tag(sync=True)
    """The selected cell, [row, position]; row 0 is the embedding."""
    tracked = t.List(t.Int(), default_value=[]).tag(sync=True)
    """Ids of the tokens that are followed over the layers."""

    _prompt = t.Dict().tag(sync=True)
    _grid = t.Dict().tag(sync=True)
    _part: t.Dict[str, Any] | None = t.Dict(None, allow_none=True).tag(sync=True)
    """Rows of the grid that have become known since the part before; None once the whole grid has come."""
    _now = t.Dict(None, allow_none=True).tag(sync=True)
    _window: t.Dict[str, Any] | None = t.Dict(None, allow_none=True).tag(sync=True)
    """Of a long prompt, the exact cells of the window that was `_asked` for, by the `reading`, or is in view anyway."""
    _tracks = t.Dict(None, allow_none=True).tag(sync=True)

    def __init__(self, session: Session, prompt: Any, *, linked: bool = True, **settings: Any) -> None:
        self._tokens = session.tokenize(parse_prompt(session, prompt))
        self._reading: xr.Dataset | None = None
        self._read_for: tuple[Any, ...] = ()
        self._shown: _Shown | None = None
        self._columns: slice | None = None  # of a long prompt, those whose cells were last asked for
        self._metrics = set(_CHEAP)
        self._readings = 0
        self.session = session
        if isinstance(settings.get("tracked"), list | tuple):
            settings["tracked"] = [session.token_id(t) if isinstance(t, str) else t for t in settings["tracked"]]
        super().__init__(session, linked=linked, **settings)
        self._metrics.add(self.metric)
        self._prompt = prompt_to_wire(self._tokens, session)
        self.observe(self._on_metric, names="metric")
        self.observe(self._on_tracked, names="tracked")
        self.refresh()

    def run(self, prompt: Any) -> None:
        """Show another prompt."""
        self._show_run(self.session.tokenize(parse_prompt(self.session, prompt, self._tokens)))

    def _run_preset(self, preset: Preset) -> None:
        self.run(preset.clean)

    def _show_run(self, tokens: Tokens) -> None:
        with self.session.publishing:
            self._show_tokens(tokens)
            self.refresh()

    def _show_tokens(self, tokens: Tokens) -> None:
        with self.session.publishing, self.hold_sync():
            self._tokens = tokens
            self.cell = [self.cell[0], min(self.cell[1], len(tokens) - 1)] if self.cell else []
            self.selection = self._selected()

    def replace(self, position: int, token: int | None = None, text: str | None = None) -> None:
        """Replace the token at `position` by another one (`token`, an id) or by text, which may be several tokens."""
        ids = list(self._tokens.ids)
        if not 0 <= whole(position, "position") < len(ids):
            raise ValueError(f"position {position} is out of range: the prompt has {len(ids)} tokens")
        if token is None:
            token_ids = self.session.text_ids(text or "")
            if not token_ids:
                raise ValueError("the replacement is empty: type at least one character")
        else:
            token_ids = [token]
        ids[position : position + 1] = token_ids
        self._show_run(self.session.tokenize_ids(ids, self._tokens.source))

    def transplant(self, source: tuple[int, int], target: tuple[int, int]) -> None:
        """Write the residual vector at `source`, (layer, position) of this prompt, over the one at `target`.

        Layer -1 is the embedding. Raises ValueError for a place that the grid does not have.
        """
        for layer, position in (source, target):
            self._checked_cell(Selection(layer=whole(layer, "layer"), position=position), self._tokens)
        (from_site, from_layer), (site, layer) = _stream(source[0]), _stream(target[0])
        moved = Patch(
            site, layer=layer, position=target[1], source=self._tokens.given, source_layer=from_layer,
            source_position=source[1], source_site=None if from_site == site else from_site,
        )  # fmt: skip
        self.experiments.append(moved)

    def transplant_cells(self, source: list[int], target: list[int]) -> None:
        """`transplant` by cells [row, position] of the grid, row 0 being the embedding."""
        for name, cell in (("source", source), ("target", target)):
            if not isinstance(cell, list | tuple) or len(cell) != 2:
                raise TypeError(f"{name}={cell!r}: a cell is [row, position]")
        (from_row, from_position), (row, position) = source, target
        self.transplant((whole(from_row, "row") - 1, from_position), (whole(row, "row") - 1, position))

    def track(self, token: int | str) -> None:
        """Follow a token's probability and rank over the layers."""
        token_id = self.session.token_id(token)
        if token_id not in self.tracked:
            self.tracked = [*self.tracked, token_id]

    def untrack(self, token: int | str) -> None:
        """Stop following a token."""
        token_id = self.session.token_id(token)
        self.tracked = [i for i in self.tracked if i != token_id]

    def compute(self, metric: str) -> None:
        """Add a metric to the grid."""
        if metric not in tuple(UNITS):
            raise ValueError(f"unknown metric {metric!r}: one of {', '.join(UNITS)} is needed")
        if metric not in self._metrics:
            self._metrics.add(metric)
            self.refresh()

    def _ask(self) -> None:
        tokens, acting, pinned = self._tokens, tuple(self.experiments), self.experiments.baseline
        metrics = tuple(m for m in UNITS if m in self._metrics)
        track = tuple(self.tracked)

        def compute() -> Wire:
            # Asked before the run: weights that change during it make the reading stale.
            question = tokens.prompt, pinned, metrics, track, self.session.engine.version()
            run = lens_run(self.session, tokens, pinned)
            if self._reading is not None and question[-1] is not None and question == self._read_for:
                reading = self._reading
            else:
                first = {"_prompt": prompt_to_wire(tokens, self.session), "_now": None}
                rows = self._rows_to_wire()

                def part(so_far: xr.Dataset) -> None:
                    self._publish_part(lambda: first | rows(so_far))

                reading = read_stack(self.session, run, 10, track, metrics, partial=part)
                self._reading, self._read_for = reading, question
            results: Wire = {
                "_prompt": prompt_to_wire(tokens, self.session),
                "_part": None,
                "result": _both(reading, reading),
            }
            if acting == pinned:
                self._note_idle(pinned, run.idle)
                said = {"message": self._answer_in_words(run.answer_position, reading)}
                return results | self._shown_to_wire(_Shown(self._readings, tokens, reading)) | said
            disturbed = lens_run(self.session, tokens, acting)
            self._note_idle(acting, disturbed.idle)
            now = read_stack(self.session, disturbed, 10, track, metrics, known=(run, reading))
            touched = changed_cells(disturbed, run).astype(np.uint8)
            results["result"] = _both(reading, now)
            results["message"] = self._answer_in_words(run.answer_position, reading, now)
            return results | self._shown_to_wire(_Shown(self._readings, tokens, reading, now, touched))

        self._submit(compute)

    def _answer_in_words(self, position: int | None, reading: xr.Dataset, now: xr.Dataset | None = None) -> str:
        """The last layer's top token where the model's answer is read; nothing where the prompt has none."""
        if position is None:
            return ""

        def likeliest(of: xr.Dataset) -> Likeliest:
            token, probability = (of[name].values[-1, position, 0] for name in ("top_token", "top_probability"))
            return self.session.show_token(int(token)), float(probability)

        runs = [reading] if now is None else [reading, now]
        return answer_in_words(*map(likeliest, runs), causal=self.session.causal)

    def _on_metric(self, change: Any) -> None:
        self.compute(change["new"])

    def _on_tracked(self, change: Any) -> None:
        self.refresh()

    def _shown_to_wire(self, shown: _Shown) -> Wire:
        """Everything that is drawn of these readings."""
        self._shown = shown
        reading, now = shown.reading, shown.now
        if not _is_long(reading):
            return {
                "_grid": self._grid_to_wire(reading), "_now": self._now_to_wire(shown),
                "_tracks": self._tracks_to_wire(reading, now), "_window": None,
            }  # fmt: skip
        place = {"id": self._result_id(), "reading": shown.number, "rows": _row_names(reading), "units": UNITS}
        changed = None
        if now is not None:
            assert shown.touched is not None
            changed = place | bands_to_wire(now, reading) | {"touched": to_wire(touched_bands(shown.touched))}
        return {"_grid": place | bands_to_wire(reading), "_now": changed} | self._window_to_wire(
            shown, *self._in_view(shown)
        )

    def _in_view(self, shown: _Shown) -> tuple[slice, slice]:
        """All rows of the columns that were last asked for; of the last band where this prompt does not have them."""
        rows, length = slice(0, shown.reading.sizes["layer"]), shown.reading.sizes["position"]
        if self._columns is None or self._columns.stop > length:
            return rows, slice(*(band_edges(length) or [0, length])[-2:])
        return rows, self._columns

    def _window_to_wire(self, shown: _Shown, rows: slice, cols: slice) -> Wire:
        """The exact cells of a window, and the tracked tokens there if it has all rows."""
        reading, now = (
            None if each is None else each.isel(layer=rows, position=cols) for each in (shown.reading, shown.now)
        )
        assert reading is not None
        window = {
            "id": self._result_id(),
            "reading": shown.number,
            "acts": now is not None,
            "rows": [rows.start, rows.stop],
            "cols": [cols.start, cols.stop],
            "baseline": self._grid_to_wire(reading),
            "now": None if now is None else self._grid_to_wire(now),
            "touched": None if shown.touched is None else to_wire(shown.touched[rows, cols]),
        }
        whole = rows.stop - rows.start == shown.reading.sizes["layer"]
        return {"_window": window} | ({"_tracks": self._tracks_to_wire(reading, now, cols.start)} if whole else {})

    @t.observe("_asked")
    def _on_asked(self, change: Any) -> None:
        with self.session.publishing, self.hold_sync():
            shown, asked = self._shown, change["new"]
            # Of a reading that has been replaced: the newer one brings its own window.
            if shown is None or asked.get("reading") != shown.number or not _is_long(shown.reading):
                return
            sizes = shown.reading.sizes
            if asked["rows"][1] > sizes["layer"] or asked["cols"][1] > sizes["position"]:
                raise ValueError(f"there are no cells at rows {asked['rows']}, positions {asked['cols']}")
            rows, cols = slice(*asked["rows"]), slice(*asked["cols"])
            if rows == slice(0, sizes["layer"]):
                self._columns = cols
            for name, value in self._window_to_wire(shown, rows, cols).items():
                self.set_trait(name, value)

    @t.validate("cell")
    def _in_the_grid(self, proposal: Any) -> list[int]:
        cell, rows, length = proposal["value"], self.session.engine.architecture.n_layers + 1, len(self._tokens)
        if cell and not (len(cell) == 2 and 0 <= cell[0] < rows and 0 <= cell[1] < length):
            raise t.TraitError(f"there is no cell {cell}: rows are 0 to {rows - 1}, positions 0 to {length - 1}")
        return cell

    @t.observe("cell")
    def _on_cell(self, change: Any) -> None:
        with self.session.publishing:
            self.selection = self._selected()

    def _selected(self) -> Selection:
        row, position = self.cell or (None, None)
        return self._checked_selection(Selection(layer=None if row is None else row - 1, position=position))

    def _checked_selection(self, chosen: Selection) -> Selection:
        return self._checked_cell(chosen, self._tokens)

    def _checked_cell(self, chosen: Selection, tokens: Tokens) -> Selection:
        layer, position = chosen.only("layer", "position").layer, chosen.position
        if layer is None and position is None:
            return Selection()
        n_layers = self.session.engine.architecture.n_layers
        if not (-1 <= whole(layer, "layer") < n_layers and 0 <= whole(position, "position") < len(tokens)):
            have = f"layers are -1 to {n_layers - 1}, positions 0 to {len(tokens) - 1}"
            raise ValueError(f"no cell at layer {layer}, position {position}: {have}")
        return Selection(layer=layer, position=position, token=tokens.ids[whole(position, "position")])

    def _following(self, place: Selection) -> Selection | None:
        row, position = self.cell or (self.session.engine.architecture.n_layers, len(self._tokens) - 1)
        if place.layer is None and place.position is None:
            return None
        layer = row - 1 if place.layer is None else place.layer
        return Selection(layer=layer, position=position if place.position is None else place.position)

    def _show_selection(self, chosen: Selection) -> None:
        self.cell = [] if chosen.layer is None or chosen.position is None else [chosen.layer + 1, chosen.position]

    @t.validate("tracked")
    def _in_the_vocabulary(self, proposal: Any) -> list[int]:
        n_vocab = self.session.engine.architecture.n_vocab
        for token in proposal["value"]:
            if not 0 <= token < n_vocab:
                raise t.TraitError(f"token id {token} is out of range: the vocabulary has {n_vocab} entries")
        return proposal["value"]

    def _rows_to_wire(self) -> Callable[[xr.Dataset], Wire]:
        """For one reading, which fills from its last row: `_part` with the whole rows that are new since the last call.

        Sending the whole grid each time would cost hundreds of megabytes for a long prompt.
        """
        self._readings += 1
        number, shown, columns = self._readings, self.session.engine.architecture.n_layers + 1, 0

        def rows(so_far: xr.Dataset) -> Wire:
            nonlocal shown, columns
            if _is_long(so_far):
                known = int((so_far["top_token"].values[..., 0] >= 0).all(0).sum())
                # A sixteenth more at least: each part is an overview of the whole.
                if known - columns < so_far.sizes["position"] / 16:
                    return {}
                columns = known
                place = {"id": self._result_id(), "reading": number, "rows": _row_names(so_far), "units": UNITS}
                return {"_part": place | bands_to_wire(so_far)}
            unknown = np.flatnonzero((so_far["top_token"].values[..., 0] < 0).any(1))
            new = slice(unknown[-1] + 1 if len(unknown) else 0, shown)
            if new.start == new.stop:
                return {}
            shown = int(new.start)
            place = {"reading": number, "row": shown, "rows": _row_names(so_far)}
            return {"_part": self._grid_to_wire(so_far.isel(layer=new)) | place}

        return rows

    def _now_to_wire(self, shown: _Shown) -> Wire | None:
        """The grid with the experiments, from the first row on that differs from the baseline, and where they reach."""
        now = shown.now
        if now is None:
            return None
        row = _first_difference(shown.reading, now)
        place = {"row": row, "rows": _row_names(now), "touched": to_wire(shown.touched)}
        return self._grid_to_wire(now.isel(layer=slice(row, None))) | place

    def _grid_to_wire(self, reading: xr.Dataset) -> Wire:
        target = reading["target"].values
        top = reading["top_token"].values
        used = np.unique(np.concatenate([top.ravel(), target]))
        return {
            "id": self._result_id(),
            "rows": _row_names(reading),
            # Most vocabularies fit into two bytes.
            "top": to_wire(top.astype(np.uint16) if top.max() < 2**16 else top),
            "p": to_wire(reading["top_probability"].values),
            "metrics": {name: to_wire(reading[name].values) for name in UNITS if name in reading},
            "units": UNITS,
            "target": to_wire(target),
            "texts": {str(i): self.session.show_token(int(i)) for i in used if i >= 0},
        }

    def _tracks_to_wire(self, reading: xr.Dataset, now: xr.Dataset | None, first: int = 0) -> Wire | None:
        if "token" not in reading.coords:
            return None
        return {
            "id": self._result_id(),
            "first": first,
            "tokens": [{"id": int(i), "text": self.session.show_token(int(i))} for i in reading["token"].values],
            "probability": to_wire(reading["tracked_probability"].values),
            "rank": to_wire(reading["tracked_rank"].values.astype(np.int32)),
            "now_probability": None if now is None else to_wire(now["tracked_probability"].values),
            "now_rank": None if now is None else to_wire(now["tracked_rank"].values.astype(np.int32)),
        }

    def _arguments(self) -> list[str]:
        return [prompt_code(self._tokens), *([f"cell={list(self.cell)}"] if self.cell else [])]

    def _calls(self, name: str) -> list[str]:
        return [f"{name}.compute({metric!r})" for metric in self._settings()["computed"] if metric != self.metric]

    def _prompts_asked(self) -> dict[str, Tokens]:
        return {"prompt": self._tokens}

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"computed": [m for m in UNITS if m in self._metrics and m not in _CHEAP]}

    def _adopt(self, view: View) -> Callable[[], None]:
        tokens = self.session.tokenize(parse_prompt(self.session, view.prompts["prompt"]))
        settings = self._checked_settings(view.settings)
        chosen = self._checked_cell(view.selection, tokens)
        computed = view.settings["computed"]
        if not isinstance(computed, list) or not all(metric in tuple(UNITS) for metric in computed):
            raise ValueError(f"computed={short(computed)}: a list of {', '.join(UNITS)} is needed")

        def take() -> None:
            self._metrics = {*_CHEAP, *computed, settings["metric"]}
            self.cell = []
            self._show_tokens(tokens)
            for name, value in settings.items():
                self.set_trait(name, value)
            self.selection = chosen

        return take

    def _depends_on(self) -> dict[str, Any]:
        return {"prompt": prompt_question(self._tokens)}

    def _requests_for(self, intervention: Intervention) -> Iterator[dict[str, Any]]:
        match intervention:
            case Patch(layer=int(layer), position=int(position), source_layer=int(from_layer), source_position=int(at)):
                # What enters a block is row 0, the embedding; what leaves one is a row further up.
                enters = [
                    site == "resid_pre" for site in (intervention.source_site or intervention.site, intervention.site)
                ]
                source, target = (
                    [0 if first else row + 1, place]
                    for first, row, place in zip(enters, (from_layer, layer), (at, position), strict=True)
                )
                yield {"op": "transplant_cells", "source": source, "target": target}

    def _numbers(self) -> dict[str, Column]:
        if self._shown is None:
            raise RuntimeError("there are no numbers yet: no run has finished")
        shown, tokens = {"baseline": self._shown.reading, "now": self._shown.now}, self._shown.tokens
        parts = [self._numbers_of(name, tokens, reading) for name, reading in shown.items() if reading is not None]
        return {name: [value for part in parts for value in part[name]] for name in parts[0]}

    def _numbers_of(self, name: str, tokens: Tokens, reading: xr.Dataset) -> dict[str, Column]:
        layers, length = reading.sizes["layer"], reading.sizes["position"]
        top = reading["top_token"].values[..., 0].ravel()
        columns: dict[str, Column] = {
            "run": [name] * (layers * length),
            "layer": np.repeat(reading["layer"].values, length).tolist(),
            "position": np.tile(np.arange(length), layers).tolist(),
            "token": list(tokens.strings) * layers,
            "top_token_id": top.tolist(),
            "top_token": [self.session.show_token(int(i)) for i in top],
            "top_probability": reading["top_probability"].values[..., 0].ravel(),
        }
        metrics = {metric: reading[metric].values.astype(np.float32).ravel() for metric in UNITS if metric in reading}
        return columns | metrics

    def _heatmap(self, *, whole: bool = False) -> Heatmap | None:
        """The grid with the experiments, (layer, position), coloured by the metric, with the top tokens written in."""
        if self._shown is None or self.metric not in self._shown.reading:
            return None
        reading, under = _newest(self._shown)
        tokens = reading["top_token"].values[..., 0]
        text = np.array([[elide(self.session.show_token(int(i)), 8) for i in row] for row in tokens])
        runs = [run[self.metric].values for run in (self._shown.reading, self._shown.now) if run is not None]
        most = max(float(np.abs(run[np.isfinite(run)]).max(initial=0)) for run in runs)
        length = len(self._shown.tokens)
        rows = ["emb", *(f"L{i}" for i in reading["layer"].values[1:])]
        return Heatmap(
            reading[self.metric].values, rows, self._shown.tokens.strings, title=f"top token after each layer{under}",
            row_title="layer", column_title="position", upward=True, text=text, unit=metric_says(self.metric),
            scale=metric_scale(self.metric, most), kept=KEPT[self.metric],
            column_names=[str(i) for i in range(length)],
            column_edges=drawn_edges(band_edges(length), opened=min(self.cell[1] if self.cell else length, length - 1)),
        )  # fmt: skip

    def _tables(self) -> str:
        assert self._shown is not None
        reading, under = _newest(self._shown)
        last = reading.isel(layer=-1)
        words, shares = last["top_token"].values[-1], last["top_probability"].values[-1]
        rows = [[self.session.show_token(int(i)), f"{p:.1%}"] for i, p in zip(words, shares, strict=True)]
        return static.table([f"last layer, last position{under}", "probability"], rows)


def _newest(shown: _Shown) -> tuple[xr.Dataset, str]:
    """The reading with the experiments, or the baseline's where none acts, and what to say of it."""
    return (shown.reading, "") if shown.now is None else (shown.now, ", with experiments")


def _first_difference(baseline: xr.Dataset, now: xr.Dataset) -> int:
    """The first row in which anything is another; the last one if nothing is."""
    same = np.ones(now.sizes["layer"], bool)
    for name in ("top_token", "top_probability", *(name for name in UNITS if name in now)):
        one, other = (reading[name].transpose("layer", ...).values for reading in (baseline, now))
        same &= ((one == other) | ((one != one) & (other != other))).reshape(len(same), -1).all(1)
    return min(int(np.argmin(same)) if not same.all() else len(same), len(same) - 1)


def _is_long(reading: xr.Dataset) -> bool:
    return reading.sizes["position"] > MOST


def _row_names(reading: xr.Dataset) -> list[str]:
    return ["emb" if layer < 0 else str(layer) for layer in reading["layer"].values]


def _both(baseline: xr.Dataset, now: xr.Dataset) -> xr.Dataset:
    runs = xr.DataArray(["baseline", "now"], dims="run", name="run")
    return xr.concat(
        [baseline, now], runs, data_vars="all", coords="minimal", compat="override", combine_attrs="override"
    )


def _stream(layer: int) -> tuple[str, int]:
    """The site and layer of a row of the lens: -1 is the embedding, which enters block 0."""
    return ("resid_pre", 0) if layer < 0 else ("resid_post", layer)
