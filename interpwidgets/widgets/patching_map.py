"""A finished patching map: what each patch changes, beside that in the baseline, as array, table and picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr

from ..methods.cells import RESIDUAL_SITES
from ..methods.patching import unpatched
from ..methods.task import METRICS, Task
from ..session import Session
from . import static
from .exporting import Column
from .heatmap import Heatmap
from .scale import effect_scale

_MOST_DIFFERENCES, _MOST_STRONGEST = 20, 5  # that the static picture lists


class PatchingMap(NamedTuple):
    """The raw metric of each cell's patched run, (layer, position) or (layer, head), and what it is of."""

    task: Task
    site: str
    direction: str
    values: np.ndarray

    @property
    def over(self) -> str:
        """What its columns are: positions or heads."""
        return "position" if self.site in RESIDUAL_SITES else "head"

    @property
    def columns(self) -> Sequence[str]:
        """The columns' names: the clean prompt's tokens, or heads."""
        return self.task.clean.strings if self.over == "position" else [f"H{i}" for i in range(self.values.shape[1])]

    @property
    def change(self) -> np.ndarray:
        """What each patch changes in the metric."""
        return self.values - unpatched(self.task, self.direction)

    def effect(self, normalize: bool) -> tuple[np.ndarray, str]:
        """What each patch changes, as a share of the gap if there is one, and the unit of that."""
        task = self.task
        normalized = normalize and not task.gap_is_zero
        change = f"change in {task.metric} {METRICS[task.metric]}".rstrip()
        return self.change / (task.gap if normalized else 1.0), (
            "share of the clean–corrupted gap" if normalized else change
        )


@dataclass(frozen=True)
class ShownMap:
    """The map with the experiments and, if it is known, that in the baseline, as the widget's settings show them."""

    now: PatchingMap
    baseline: PatchingMap | None
    normalize: bool
    view: str

    def dataset(self, session: Session) -> xr.Dataset:
        """The widget's `result`."""
        task, site, direction, values = self.now
        effect, unit = self.now.effect(self.normalize)
        compared = self._compared()
        dims = ("layer", self.now.over)
        texts = {name: session.show_token(i) for name, i in (("answer", task.answer), ("foil", task.foil))}
        # A copy: what a user does to it must not reach the maps that are kept.
        return xr.Dataset(
            {
                "effect": (dims, effect, {"units": unit}), "value": (dims, values, {"units": METRICS[task.metric]}),
                **{name: (dims, array, {"units": units}) for name, (array, units) in compared.items()},
            },
            coords={dim: np.arange(size) for dim, size in zip(dims, values.shape, strict=True)},
            attrs=texts | {
                "site": site, "metric": task.metric, "direction": direction, "answer_id": task.answer,
                "foil_id": task.foil, "clean": task.clean_value, "corrupted": task.corrupted_value,
                "clean_tokens": list(task.clean.strings), "corrupted_tokens": list(task.corrupted.strings),
            },
        ).copy(deep=True)  # fmt: skip

    def numbers(self) -> dict[str, Column]:
        """Every cell in long form."""
        task, site, direction, values = self.now
        effect, unit = self.now.effect(self.normalize)
        compared = self._compared()
        rows, columns = values.shape
        cells = rows * columns
        across = np.tile(np.arange(columns), rows).tolist()
        place: dict[str, Column] = {self.now.over: across}
        if self.now.over == "position":
            names = {"clean_token": task.clean.strings, "corrupted_token": task.corrupted.strings}
            place |= {name: list(strings) * rows for name, strings in names.items()}
        return {
            "site": [site] * cells, "direction": [direction] * cells,
            "layer": np.repeat(np.arange(rows), columns).tolist(), **place,
            "metric": [task.metric] * cells, "value": values.astype(np.float32).ravel(),
            "clean": [str(np.float32(task.clean_value))] * cells,
            "corrupted": [str(np.float32(task.corrupted_value))] * cells,
            "effect": effect.astype(np.float32).ravel(), "effect_unit": [unit] * cells,
            **{name: array.astype(np.float32).ravel() for name, (array, _) in compared.items()},
        }  # fmt: skip

    def heatmap(self) -> Heatmap:
        """The change that each patch makes, as it is in view."""
        effect, unit = self._in_view()
        bound = self._bound(effect)
        return Heatmap(
            effect, [f"L{i}" for i in range(len(effect))], self.now.columns, row_title="layer", unit=unit,
            column_title=self.now.over, upward=True, title=f"patching {self.now.site}, {self.now.direction}",
            scale=effect_scale(bound), kept="farthest",
            number=lambda value, letters: _short(value, letters) if abs(value) >= 0.05 * bound and bound >= 0.1 else "",
            row_names=[str(i) for i in range(len(effect))],
            column_names=[str(i) for i in range(effect.shape[1])] if self.now.over == "position" else None,
        )  # fmt: skip

    def _bound(self, effect: np.ndarray) -> float:
        """The effect at the ends of the colours: the whole gap, so that they hold still while the map fills, or more.

        Of a difference from baseline, which may be a small part of the gap and is to be seen, a tenth of the gap.
        """
        compared = self.view if self._compared() else "now"
        task = self.now.task if compared == "now" or self.baseline is None else self.baseline.task
        gap = 1.0 if self.normalize and not task.gap_is_zero else abs(task.gap)
        largest = float(np.abs(effect[np.isfinite(effect)]).max(initial=0))
        return max(largest, gap * (0.1 if compared == "difference" else 1)) or 1.0

    def tables(self) -> str:
        """Where the prompts differ, and the strongest effects, as HTML."""
        task, over, columns = self.now.task, self.now.over, self.now.columns
        pairs = enumerate(zip(task.clean.ids, task.corrupted.ids, strict=True))
        places = [i for i, (a, b) in pairs if a != b][:_MOST_DIFFERENCES]
        differing = [[str(i), task.clean.strings[i], task.corrupted.strings[i]] for i in places]
        effect, _ = self._in_view()
        strongest = np.argsort(-np.nan_to_num(np.abs(effect)), axis=None)[:_MOST_STRONGEST]
        cells = [divmod(int(i), effect.shape[1]) for i in strongest if np.isfinite(effect.flat[i])]
        found = [
            [f"L{row}", columns[col] if over == "head" else f"{col} {columns[col]}", f"{effect[row, col]:+.3f}"]
            for row, col in cells
        ]
        note = static.table(["position", "clean token", "corrupted token"], differing)
        return (note if differing else "<div>the prompts are the same</div>") + static.table(
            ["strongest", over, "effect"], found
        )

    def _compared(self) -> dict[str, tuple[np.ndarray, str]]:
        """The map in the baseline, its effects, and by how much those with the experiments differ; each with its unit.

        Shares of the difference are of the baseline's gap. Nothing while they are not in view: what is
        there would depend on which maps happen to be kept.
        """
        baseline = self.baseline
        if baseline is None or self.view == "now":
            return {}
        task = baseline.task
        effect, unit = baseline.effect(self.normalize)
        raw = self.now.change - baseline.change
        share = self.normalize and not task.gap_is_zero
        return {
            "baseline_value": (baseline.values, METRICS[task.metric]),
            "baseline_effect": (effect, unit),
            "difference": (
                raw / task.gap if share else raw,
                f"now − baseline, {'share of the gap in the baseline' if share else unit}",
            ),
        }

    def _in_view(self) -> tuple[np.ndarray, str]:
        """What is drawn, and its unit."""
        compared = self._compared()
        if not compared:
            return self.now.effect(self.normalize)
        if self.view == "difference":
            return compared["difference"]
        effect, unit = compared["baseline_effect"]
        return effect, f"{unit}, in the baseline"


def _short(value: float, letters: int) -> str:
    """A number in a cell, within a tenth of itself, or nothing: half a number would be another number."""
    for digits in (2, 1, 0):
        size = f"{abs(value):.{digits}f}"
        text = ("−" if value < 0 else "") + (size.removeprefix("0") if digits else size)
        if len(text) <= letters:
            return text if abs(float(size) - abs(value)) <= 0.1 * abs(value) else ""
    return ""
