"""PatchingHeatmap: which activations carry the difference between two prompts; a click shows that patched run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
import traitlets as t

from ..engine.gradient import Recorded
from ..engine.interventions import Intervention
from ..engine.plain import short
from ..engine.prompts import Prompt
from ..engine.sites import Site
from ..methods.attribution import way_back
from ..methods.cells import HEAD_SITES, RESIDUAL_SITES
from ..methods.patching import sources, unaffected
from ..methods.task import METRICS, Task, patching_task, prompt_pair
from ..presets import PRESETS, Preset
from ..session import Session
from ..tokens import Tokens
from .bands import band_edges, drawn_edges, layer_edges
from .base import LiveWidget
from .esm import bundle, stylesheet
from .exporting import Column
from .filling import Filling, Finished
from .heatmap import Heatmap
from .patched_cells import PatchedCell, check_site, checked_cell, patched_run, selection_of
from .patching_map import PatchingMap, ShownMap
from .selection import Selection
from .view import View
from .wire import Wire, parse_prompt, prompt_code, prompt_question, prompt_to_wire, whole

_SITES = (*(s for s in RESIDUAL_SITES if s != "resid_post"), *HEAD_SITES)


class PatchingHeatmap(LiveWidget):
    """Activation patching between a clean and a corrupted prompt, as a heatmap that fills while it is computed.

    Residual sites by layer and position, head sites by layer and head. Click a cell to see that patched run's
    predictions beside the clean and corrupted ones; shift-click to patch several cells jointly; from an attention
    row, descend to the heads of that layer by position. `answer` defaults to the clean run's top
    prediction, `foil` to the corrupted run's likeliest other token.

    `selection` has the layer and position or head of the cell that was patched last, and the clean token there.
    `result` has the whole map, (layer, position) or (layer, head): `value`, the metric of each patched run, and
    `effect`, what the patch changes in it as it is drawn; the task stands in its attributes. While `view` is not
    "now", `baseline_value` and `baseline_effect` are those in the baseline, and `difference` is what the experiments
    change in the patches' effects.

    Example: `iw.PatchingHeatmap(session, clean="... Mary gave the bag to", corrupted="... John gave the bag to")`
    """

    title = "Patching heatmap"
    operations = ("run", "set", "patch", "drill")
    terms = ("activation patching", "denoising", "noising", "logit difference", "residual stream", "head")
    shortcuts = (
        ("click or Enter on a cell", "run that patch"),
        ("with Shift", "patch it together with those chosen before; Esc forgets them"),
        ("D on an attention row", "descend to the heads of this layer, by position"),
        ("click or Enter on a narrow column", "open its positions, with Shift beside those that are open; Esc folds"),
        ("click or Enter on a row of several layers", "open it in the same way"),
    )
    prompt_names = ("clean", "corrupted")
    settings = ("site", "metric", "direction", "normalize", "estimate", "view")
    chooses: ClassVar[Mapping[str, tuple[str, ...]]] = {"set": ("normalize", "estimate")}
    priority = 2
    _esm = bundle("patching_heatmap.js")
    _css = stylesheet("patching_heatmap.css")

    site = t.Enum(_SITES, "resid_pre").tag(sync=True)
    """The activation that is patched."""
    metric = t.Enum(tuple(METRICS), "logit_diff").tag(sync=True)
    """What is measured where the answer is read: at the last position, or at the mask."""
    direction = t.Enum(("denoise", "noise"), "denoise").tag(sync=True)
    """Whether clean activations restore the corrupted run, or corrupted ones break the clean run."""
    normalize = t.Bool(True).tag(sync=True)
    """Whether effects are shown as shares of the gap between the clean and the corrupted run."""
    estimate = t.Bool(True).tag(sync=True)
    """Whether a map that takes long is shown as an estimate first (attribution patching), hatched until it is exact."""
    view = t.Enum(("now", "difference", "baseline"), "now").tag(sync=True)
    """What is drawn where experiments act: each patch's effect with them, its difference from that in the baseline, or
    the latter; shares of the difference are of the baseline's gap."""

    _sites: t.List[str] = t.List().tag(sync=True)
    _layer_edges: t.List[int] | None = t.List(None, allow_none=True).tag(sync=True)
    """Where rows begin before any is opened, and where the last one ends; None if each layer has its row."""
    _prompts = t.Dict().tag(sync=True)
    _task = t.Dict().tag(sync=True)
    _sweep = t.Dict().tag(sync=True)
    _baseline_sweep: t.Dict[str, Any] | None = t.Dict(None, allow_none=True).tag(sync=True)
    """The same map in the baseline; None where that is what acts, or is not known and not in view."""
    _drill: t.Dict[str, Any] | None = t.Dict(None, allow_none=True).tag(sync=True)
    _patched: t.Dict[str, Any] | None = t.Dict(None, allow_none=True).tag(sync=True)

    def __init__(
        self,
        session: Session,
        clean: Any,
        corrupted: Any,
        *,
        answer: int | str | None = None,
        foil: int | str | None = None,
        linked: bool = True,
        **settings: Any,
    ) -> None:
        self._answer = None if answer is None else session.token_id(answer)
        self._foil = None if foil is None else session.token_id(foil)
        if session.engine.has_encoder:
            raise ValueError(
                f"PatchingHeatmap draws one text's positions, and {session.name} reads a source and a target: "
                "iw.patch_sweep(session, iw.SourceTarget(...), iw.SourceTarget(...), site) gives the map of either"
            )
        self._clean, self._corrupted = _pair(session, clean, corrupted)
        self._together = True  # while several traits of what is asked for are set
        self._cells: list[PatchedCell] = []
        self._drilled: int | None = None
        self._map: PatchingMap | None = None
        self._baseline_map: PatchingMap | None = None
        self._baseline_question: Any = None  # to which `_baseline_sweep` is the answer
        self._finished = Finished(session)
        here = [set(session.engine.sites(layer)) for layer in range(session.engine.architecture.n_layers)]
        sites = [site for site in _SITES if all(site in having for having in here)]
        check_site(settings.get("site", type(self).site.default_value), sites)
        edges = layer_edges(len(here))
        super().__init__(session, linked=linked, _sites=sites, _layer_edges=edges, **settings)
        self._together = False
        self._prompts = self._prompts_to_wire()
        self.refresh()

    def run(self, clean: Any, corrupted: Any) -> None:
        """Show another pair of prompts. Raises ValueError, showing both tokenisations, if their lengths differ.

        The answer and the foil stay what they were set to; those of a preset leave with its prompts.
        """
        asked = (None, None) if self._shows_a_preset() else (self._answer, self._foil)
        self._run_pair(_pair(self.session, clean, corrupted), asked)

    def _run_preset(self, preset: Preset) -> None:
        asked = self.session.token_id(preset.answer), self.session.token_id(preset.foil)
        self._run_pair(_pair(self.session, preset.clean, preset.corrupted), asked)

    def _shows_a_preset(self) -> bool:
        """Whether the pair, the answer and the foil are a preset's."""
        shown = self._clean.given, self._corrupted.given, self._answer, self._foil
        for preset in PRESETS:
            with suppress(TypeError, ValueError):  # another tokenizer, or none, may not have its tokens
                asked = (self.session.token_id(token) for token in (preset.answer, preset.foil))
                if shown == (preset.clean, preset.corrupted, *asked):
                    return True
        return False

    def _run_pair(self, pair: tuple[Tokens, Tokens], asked: tuple[int | None, int | None]) -> None:
        with self.session.publishing:
            self._clean, self._corrupted = pair
            self._answer, self._foil = asked
            self._choose([])
            self._drilled = None
            self.refresh()

    def set(
        self,
        site: str | None = None,
        metric: str | None = None,
        direction: Literal["denoise", "noise"] | None = None,
        normalize: bool | None = None,
        answer: int | str | None = None,
        foil: int | str | None = None,
        estimate: bool | None = None,
    ) -> None:
        """Change what is patched, measured and shown; the map is computed anew if it must be.

        None leaves as it is; `answer` and `foil` are tokens, or "" for what the clean and the corrupted run predict.
        """
        if site is not None:
            check_site(site, self._sites)
        answer_id, foil_id = (
            known if token is None else None if token == "" else self.session.token_id(token)
            for token, known in ((answer, self._answer), (foil, self._foil))
        )
        given = {"site": site, "metric": metric, "direction": direction, "normalize": normalize}
        given["estimate"] = estimate
        for name, value in given.items():  # all before any is set
            if value is not None:
                self.traits()[name]._validate(self, value)
        changes = {k: v for k, v in given.items() if v is not None and v != getattr(self, k)}
        recompute = bool(changes.keys() - {"normalize", "estimate"}) or (answer_id, foil_id) != (
            self._answer,
            self._foil,
        )
        with self.session.publishing, self.hold_sync():
            self._set_together(changes)
            self._answer, self._foil = answer_id, foil_id
            if "site" in changes:
                self._close_panels()
            self._code = self.code()
            if recompute:
                self.refresh()

    def _set_together(self, changes: dict[str, Any]) -> None:
        self._together = True
        try:
            for name, value in changes.items():
                self.set_trait(name, value)
        finally:
            self._together = False

    def _close_panels(self) -> None:
        """What was patched and opened is of the site before."""
        self._drilled, self._patched, self._drill = None, None, None
        self._choose([])

    @t.validate("site")
    def _in_the_model(self, proposal: Any) -> str:
        try:
            check_site(proposal["value"], self._sites)
        except ValueError as error:
            raise t.TraitError(str(error)) from None
        return str(proposal["value"])

    @t.observe("site", "metric", "direction")
    def _on_task(self, change: Any) -> None:
        if self._together:
            return
        with self.session.publishing:
            if change["name"] == "site":
                self._close_panels()
            self.refresh()

    def patch(self, cells: list[dict[str, Any]]) -> None:
        """Patch these cells jointly and show the predictions.

        Each cell is {"site", "layer", "head", "position"}; None stands for all.
        """
        self._choose([self._checked_cell(cell, len(self._clean)) for cell in cells])
        self._patch_cells()

    def _choose(self, cells: list[PatchedCell]) -> None:
        with self.session.publishing:
            self._cells = cells
            self.selection = self._selected()

    def drill(self, layer: int | None = None) -> None:
        """Show a layer's heads by position: z, or the head site that is on screen. None closes the panel."""
        self._check_layer(layer)
        self._drilled = layer
        self._drill_heads()
        self._keep_visit()

    def _check_layer(self, layer: Any) -> None:
        n_layers = self.session.engine.architecture.n_layers
        if layer is not None and not 0 <= whole(layer, "layer") < n_layers:
            raise ValueError(f"layer {short(layer)} is out of range: there are {n_layers}")

    def _ask(self) -> None:
        self._fill("_sweep", self.site, None, "view")
        self._patch_cells()
        self._drill_heads()

    def _fill(self, name: str, site: str, layer: int | None, lane: str) -> None:
        """Compute the map of a site, or of a layer's heads, as the trait `name`; and then that in the baseline."""
        acting, pinned = tuple(self.experiments), self.experiments.baseline
        now = self._filling(site, layer, acting)
        compared = None if layer is not None or acting == pinned else self._filling(site, None, pinned)
        filled = [(name, now)]  # the last is what a stop leaves
        prompts = self._prompts_to_wire()

        @cache
        def question() -> Any:
            return None if compared is None else self._finished.question(compared)

        def drawn() -> Wire:
            maps = {"_task": now.task_to_wire(), name: now.to_wire(self._result_id())}
            return maps if layer is not None else other_baseline() | {"_prompts": prompts} | maps

        def other_baseline() -> Wire:
            """Takes a map of another question away, with which the new one must not be compared."""
            return {} if self._baseline_question == question() else {"_baseline_sweep": None}

        def compared_to_wire() -> Wire:
            assert compared is not None
            self._baseline_question = question()
            return {"_baseline_sweep": compared.to_wire(self._result_id())}

        def compute() -> Wire:
            self._complete(now, drawn)
            if layer is not None:
                return drawn()
            self._map, self._baseline_map = now.so_far(), None
            known = compared is not None and (self.view != "now" or self._finished.known(compared) is not None)
            if compared is not None and known:
                if self._finished.known(compared) is None:
                    self._show(drawn())
                    filled.append(("_baseline_sweep", compared))
                self._complete(compared, compared_to_wire)
                self._baseline_map = compared.so_far()
            values = self._map.values
            bad = int((~np.isfinite(values)).sum())
            said = (f"{values.size} cells", f"{bad} of them not finite" if bad else "", self._map.task.hint, now.note)
            result = {
                "at_last": lambda: {"result": self._shown().dataset(self.session)},
                "message": " · ".join(filter(None, said)),
            }
            return drawn() | now.cost() | (compared_to_wire() if known else {"_baseline_sweep": None}) | result

        def left() -> Wire:
            trait, filling = filled[-1]
            results = filling.left(trait, self._result_id())
            if layer is not None or (filling is now and not results):
                return results
            if filling is now:
                self._map = now.so_far()
                if gone := other_baseline():
                    self._baseline_map = None
                results = gone | results
            elif results:
                self._baseline_map = filling.so_far()
            return results | {"result": self._shown().dataset(self.session)}

        self._submit(compute, lane, left=left)

    def _filling(self, site: str, layer: int | None, acting: tuple[Intervention, ...]) -> Filling:
        """The map of what is asked for now, with these interventions."""
        clean, corrupted, answer, foil = self._clean, self._corrupted, self._answer, self._foil
        metric, direction = self.metric, self.direction

        def ask() -> Task:
            capture = sources(self.session, site)
            return patching_task(self.session, clean, corrupted, answer, foil, metric, acting, capture)

        def record() -> Recorded | None:
            return way_back(self.session, clean, corrupted, site, direction, acting)

        asked = clean.prompt, corrupted.prompt, answer, foil, metric, direction, site, layer, acting
        return Filling(self.session, ask, record, site, direction, layer, self.estimate, asked)

    def _complete(self, filling: Filling, drawn: Callable[[], Wire]) -> None:
        """Compute a map, unless it is known; `drawn` is published as it fills."""

        def progress(done: int, total: int) -> None:
            self._progress(done, total, **filling.cost())

        def planned() -> None:
            self._show({} if filling.estimate is None else drawn(), **filling.cost())

        self._finished.complete(filling, planned, lambda: self._publish_part(drawn), progress)

    def _patch_cells(self) -> None:
        acting = tuple(self.experiments)
        cells, direction, metric = list(self._cells), self.direction, self.metric
        clean, corrupted, answer, foil = self._clean, self._corrupted, self._answer, self._foil
        if not cells:
            self._drop("patch")
            self._patched = None
            return

        def compute() -> Wire:
            # The stream is kept for the patched run to go on from.
            stream = (Site("resid_pre"),)
            task = patching_task(self.session, clean, corrupted, answer, foil, metric, acting, stream)
            patched = patched_run(self.session, task, cells, direction)
            return {"_patched": {"id": self._result_id(), **patched}}

        self._submit(compute, lane="patch")

    def _drill_heads(self) -> None:
        if self._drilled is None:
            self._drop("drill")
            self._drill = None
            return
        self._fill("_drill", self.site if self.site in HEAD_SITES else "z", self._drilled, "drill")

    def _drop(self, lane: str) -> None:
        """End what is computed for a panel that is closed."""
        self._failures.pop(lane, None)
        if (ticket := self._tickets.pop(lane, None)) is not None:
            ticket.cancel()

    def _selected(self) -> Selection:
        return selection_of(self._cells, self._clean)

    def _checked_selection(self, chosen: Selection) -> Selection:
        place = chosen.only("layer", "head", "position").to_json()
        if chosen == self._selected() or not place.keys() - {"token"}:
            return chosen
        if "layer" not in place:
            raise ValueError(f"{chosen!r}: a cell has a layer")
        return selection_of([self._checked_cell({"site": self.site, **place}, len(self._clean))], self._clean)

    def _following(self, place: Selection) -> Selection | None:
        axes = ("layer", "position" if self.site in RESIDUAL_SITES else "head")
        cell = {axis: value for axis, value in self._selected().to_json().items() if axis in axes}
        cell |= {axis: value for axis, value in place.to_json().items() if axis in axes}
        # A cell has both, and those that are patched jointly were chosen one by one.
        if len(cell) < 2 or cell["layer"] < 0 or len(self._cells) > 1:
            return None
        return Selection(**cell)

    def _follow_prompt(self, prompt: Prompt) -> None:
        clean = self.session.tokenize(prompt)
        preset = next((p for p in PRESETS if p.clean == clean.text), None)
        if clean.prompt == self._clean.prompt:
            return
        if preset is not None:
            self._run_preset(preset)
        elif len(clean) == len(self._corrupted):
            self.run(prompt, self._corrupted.given)

    def _show_selection(self, chosen: Selection) -> None:
        if chosen != self._selected():
            place = {"layer": chosen.layer, "head": chosen.head, "position": chosen.position}
            self.patch([] if chosen.layer is None else [{"site": self.site, **place}])

    def _checked_cell(self, cell: Any, length: int) -> PatchedCell:
        return checked_cell(self.session, cell, self._sites, length)

    def _prompts_to_wire(self) -> Wire:
        clean, corrupted = self._clean, self._corrupted
        differing = [i for i, (a, b) in enumerate(zip(clean.ids, corrupted.ids, strict=True)) if a != b]
        same = [*differing, len(clean) - 1][0] if self.session.causal else 0
        return {
            "clean": prompt_to_wire(clean, self.session),
            "corrupted": prompt_to_wire(corrupted, self.session),
            "differing": differing,
            "edges": band_edges(len(clean), same),
        }

    def _arguments(self) -> list[str]:
        prompts = [f"{name}={prompt_code(tokens)}" for name, tokens in self._prompts_asked().items()]
        asked = (("answer", self._answer), ("foil", self._foil))
        return [*prompts, *(f"{name}={token}" for name, token in asked if token is not None)]

    def _calls(self, name: str) -> list[str]:
        patched = [f"{name}.patch({self._cells!r})"] if self._cells else []
        return patched if self._drilled is None else [*patched, f"{name}.drill({self._drilled})"]

    def _prompts_asked(self) -> dict[str, Tokens]:
        return {"clean": self._clean, "corrupted": self._corrupted}

    def _settings(self) -> dict[str, Any]:
        own = {"answer": self._answer, "foil": self._foil, "cells": self._cells, "drill": self._drilled}
        return super()._settings() | own

    def _question(self, view: View) -> Any:
        asked = ("site", "metric", "direction", "answer", "foil")
        return super()._question(view), [view.settings[name] for name in asked]

    def _about(self) -> str:
        return f"{self.site}, {self.metric}, {self.direction}"

    def _adopt(self, view: View) -> Callable[[], None]:
        clean, corrupted = _pair(self.session, view.prompts["clean"], view.prompts["corrupted"])
        settings = self._checked_settings(view.settings)
        check_site(settings["site"], self._sites)
        tokens = (view.settings[name] for name in ("answer", "foil"))
        answer, foil = (None if token is None else self.session.token_id(token) for token in tokens)
        given, layer = view.settings["cells"], view.settings["drill"]
        if not isinstance(given, list):
            raise TypeError(f"cells={short(given)}: a list is needed")
        cells = [self._checked_cell(cell, len(clean)) for cell in given]
        self._check_layer(layer)
        chosen = selection_of(cells, clean)
        if replace(view.selection, token=chosen.token) != chosen:
            raise ValueError(f"{view.selection!r} is not the last of the patched cells, {chosen!r}")

        def take() -> None:
            self._set_together(settings)
            self._clean, self._corrupted, self._answer, self._foil = clean, corrupted, answer, foil
            self._patched = self._drill = None
            self._drilled = layer
            self._choose(cells)

        return take

    def _depends_on(self) -> dict[str, Any]:
        return {
            "clean": prompt_question(self._clean), "corrupted": prompt_question(self._corrupted),
            "site": self.site, "metric": self.metric, "direction": self.direction, "answer": self._answer,
            "foil": self._foil, "cells": [dict(cell) for cell in self._cells] or None, "layer": self._drilled,
        }  # fmt: skip

    def _numbers(self) -> dict[str, Column]:
        if self._map is None:
            raise RuntimeError("there are no numbers yet: no run has finished")
        return self._shown().numbers()

    def _heatmap(self, *, whole: bool = False) -> Heatmap | None:
        """The map, (layer, position) or (layer, head): the change that each patch makes, as it is in view."""
        if self._map is None:
            return None
        task, shown = self._map.task, replace(self._shown().heatmap(), row_edges=self._layer_edges)
        if self._map.over != "position":
            return shown
        same = min(unaffected(self.session, task), len(task.clean) - 1)
        return replace(shown, column_edges=drawn_edges(band_edges(len(task.clean), same), alone=int(same > 0)))

    def _tables(self) -> str:
        return self._shown().tables()

    def _shown(self) -> ShownMap:
        assert self._map is not None
        return ShownMap(self._map, self._baseline_map, self.normalize, self.view)

    @t.observe("normalize")
    def _on_normalize(self, change: Any) -> None:
        if self._map is not None:
            self.set_trait("result", self._shown().dataset(self.session))

    @t.observe("view")
    def _on_view(self, change: Any) -> None:
        if self._map is None:
            return
        self.set_trait("result", self._shown().dataset(self.session))
        missing = self._baseline_map is None and tuple(self.experiments) != self.experiments.baseline
        if missing and self.view != "now":
            self._renew()


def _pair(session: Session, clean: Any, corrupted: Any) -> tuple[Tokens, Tokens]:
    return prompt_pair(session, parse_prompt(session, clean), parse_prompt(session, corrupted))
