"""A pass whose rows lie end to end in one sequence, each with the positions only that it can change.

Outside of attention, a block treats every position by itself: it does not see where one row ends and the next begins.
Attention is done for the rows that begin at the same position together: each sees the undisturbed run's keys and values
before its first position, and its own from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .forward import Edit, ForwardPass, standard
from .resume import Resume

if TYPE_CHECKING:
    from .engine import Engine

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None, dict[str, Any]], tuple[Tensor, Tensor | None]]
"""(query, key, value, mask, keyword arguments) -> (z (row, query, head, d_head), weights), as the model does it."""


@dataclass(frozen=True)
class Span:
    """Where a row begins: at which block (the number of blocks: after the last one) and at which position."""

    block: int
    position: int


@dataclass(frozen=True)
class Group:
    """Rows that begin at the same position, end to end; `first` is the place of the first one in the sequence."""

    position: int
    rows: np.ndarray
    first: int
    length: int  # positions of each row

    @property
    def tokens(self) -> slice:
        return slice(self.first, self.first + len(self.rows) * self.length)


class Layout:
    """Which token of the sequence is which position of which row. Row 0, the undisturbed run, comes first."""

    def __init__(self, rows: np.ndarray, starts: np.ndarray, end: int, size: int) -> None:
        """Lay out `rows`, which begin at `starts` and end before `end`; `size` rows will have been there at last."""
        self.groups: list[Group] = []
        self.first = np.full(size, -1)
        self.start = np.full(size, end)
        self.start[rows] = starts
        first = 0
        for start in np.unique(starts):
            members, length = rows[starts == start], end - int(start)
            self.groups.append(Group(int(start), members, first, length))
            self.first[members] = first + length * np.arange(len(members))
            first += length * len(members)
        self.size = first
        self.positions = np.concatenate([np.tile(np.arange(g.position, end), len(g.rows)) for g in self.groups])

    def sources(self, before: Layout) -> np.ndarray:
        """The token of an earlier layout that each token is copied from: its own, or row 0's for a new row."""
        return np.concatenate([before._tokens(g).ravel() for g in self.groups])

    def _tokens(self, group: Group) -> np.ndarray:
        present = self.first[group.rows] >= 0
        first = np.where(present, self.first[group.rows], 0)
        skipped = group.position - np.where(present, self.start[group.rows], self.start[0])
        return (first + skipped)[:, None] + np.arange(group.length)  # (row, position)

    def answers(self, rows: np.ndarray, at: int) -> np.ndarray:
        """The token of each row at one position."""
        return self.first[rows] + at - self.start[rows]

    def where(self, edit: Edit) -> tuple[slice | np.ndarray, list[int]]:
        """The tokens that an edit addresses, and their positions."""
        if edit.row is None:
            at = (
                np.arange(self.size) if edit.positions is None else np.isin(self.positions, edit.positions).nonzero()[0]
            )
            return at, self.positions[at].tolist()
        start, end = int(self.start[edit.row]), int(self.positions[-1]) + 1
        positions = [p for p in (range(start, end) if edit.positions is None else edit.positions) if start <= p < end]
        at = int(self.first[edit.row]) - start + np.array(positions, int)
        together = len(at) > 0 and at[-1] - at[0] + 1 == len(at)
        return (slice(int(at[0]), int(at[-1]) + 1) if together else at), positions


class PackedPass(ForwardPass):
    """One forward pass of all rows; what is captured and edited in it is addressed by row and position.

    `spans` say where each row begins (row 0, the undisturbed run, from the first block on), `at` where the metric
    reads. `keys` and `values` (kv head, position, d_head) of each layer hold what lies before row 0's first position.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        edits: list[Edit],
        spans: Sequence[Span],
        end: int,
        at: int,
        keys: Sequence[Tensor] = (),
        values: Sequence[Tensor] = (),
        check: Callable[[], None] | None = None,
        on_block: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(engine, edits=edits, start=spans[0].position, check=check, on_block=on_block)
        self._blocks = np.array([s.block for s in spans])
        self._positions = np.array([s.position for s in spans])
        self._end, self._at = end, at
        self._keys, self._values = keys, values
        self._last = engine.architecture.n_layers - 1
        self._layout = self._lay_out(-1)
        self._wide: Layout | None = None  # while a layout of less is in force
        self._group: Group | None = None
        self._index = torch.zeros(0, dtype=torch.long)  # which of row 0's positions each token is at

    def _lay_out(self, block: int) -> Layout:
        rows = (self._blocks <= block).nonzero()[0] if block >= 0 else np.array([0])
        return Layout(rows, self._positions[rows], self._end, len(self._blocks))

    @property
    def order(self) -> np.ndarray:
        """The rows in the order in which they lie, and leave the model."""
        return np.concatenate([g.rows for g in self._layout.groups])

    def enter_block(self, layer: int, x: Tensor) -> Tensor:
        before, self._layout = self._layout, self._lay_out(layer)
        if self._layout.size != before.size:
            x = x.index_select(1, torch.from_numpy(self._layout.sources(before)).to(x.device))
        self._index = torch.from_numpy(self._layout.positions - self.start)
        return super().enter_block(layer, x)

    def arguments(self, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return self._by_token(args, (layer, "args")), self._by_token(kwargs, (layer, "kwargs"))

    def _by_token(self, value: Any, path: tuple[Any, ...]) -> Any:
        """What a block is given beside the stream, for the tokens of the sequence instead of row 0's positions."""
        if isinstance(value, Tensor):
            axis = self.engine.position_axes.get(path)
            return value if axis is None else value.index_select(axis, self._index.to(value.device))
        if type(value) in (tuple, list):
            return type(value)(self._by_token(item, (*path, i)) for i, item in enumerate(value))
        if type(value) is dict:
            return {name: self._by_token(item, (*path, name)) for name, item in value.items()}
        return value

    def wants(self, site: str, layer: int | None) -> bool:
        return (site, layer) == ("resid_post", self._last) or super().wants(site, layer)

    def visit(self, site: str, layer: int | None, x: Tensor) -> Tensor:
        if (site, layer) == ("resid_post", self._last):
            x = self._leave(x)
        edits = self._edits.get((site, layer))
        if not edits:
            return x
        x = x.clone()
        if self._group is not None and site in ("scores", "pattern"):
            self._edit_group(self._group, edits, standard(site, x, x.shape[0]))
            return x
        view = standard(site, x, 1)  # (1, token, [head,] width)
        for edit in edits:
            if edit.row is None or self._layout.first[edit.row] >= 0:
                at, positions = self._layout.where(edit)
                if positions:
                    self._write(edit, view, at, positions)
        return x

    def narrow(self, x: Tensor) -> Tensor:
        """Go into the last block's MLP with the answer's positions only: no attention follows that reads the others."""
        if not self.engine.narrows:
            return x
        self._wide, order = self._layout, self.order
        self._layout = self._only_answers(order)
        return x.index_select(-2, torch.from_numpy(self._wide.answers(order, self._at)).to(x.device))

    def widen(self, x: Tensor) -> Tensor:
        """What the last block's MLP adds to the stream of every position, where it is of the answers' only."""
        if self._wide is None:
            return x
        at = torch.from_numpy(self._wide.answers(self.order, self._at)).to(x.device)
        self._layout, self._wide = self._wide, None
        return x.new_zeros(*x.shape[:-2], self._layout.size, x.shape[-1]).index_copy_(-2, at, x)

    def _only_answers(self, order: np.ndarray) -> Layout:
        return Layout(order, np.full(len(order), self._at), self._at + 1, len(self._blocks))

    def _leave(self, x: Tensor) -> Tensor:
        """Go on with the answer's position of each row only; rows that begin here join.

        Some models give what leaves the last block the shape of their input: row 0 again makes it a multiple of that.
        """
        before = self._layout
        whole = self._lay_out(self._last + 1)
        sources = whole.sources(before).reshape(-1)[whole.positions == self._at]
        order = np.concatenate([g.rows for g in whole.groups])
        self._layout = self._only_answers(order)
        sources = np.append(sources, np.repeat(sources[:1], -len(order) % (self._end - self.start)))
        return x.index_select(1, torch.from_numpy(sources).to(x.device))

    def by_row(self, x: Tensor) -> Tensor:
        """What comes after the last block, (row, width), of the rows in `order`."""
        return x.reshape(-1, x.shape[-1])[: self._layout.size]

    def _edit_group(self, group: Group, edits: list[Edit], view: Tensor) -> None:
        places = {int(row): place for place, row in enumerate(group.rows)}
        for edit in edits:
            if edit.row is not None and edit.row not in places:
                continue
            part = view if edit.row is None else view[places[edit.row] : places[edit.row] + 1]
            wanted = range(group.position, self._end) if edit.positions is None else edit.positions
            positions = [p for p in wanted if group.position <= p < self._end]
            if positions:
                self._write(edit, part, [p - group.position for p in positions], positions)

    def by_group(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kwargs: Any, attend: Attend
    ) -> Tensor:
        """Attention of the packed sequence; query, key and value are (1, head, token, d_head). Gives (1, token, ...).

        `mask` is of row 0: (1, head or 1, query, key), or None where the model leaves causality to its attention.
        """
        own = self._layout.groups[0].length  # row 0's, at the front
        keys, values = key[:, :, :own], value[:, :, :own]
        if self._keys:
            keys = torch.cat([self._keys[layer][None].to(key), keys], 2)
            values = torch.cat([self._values[layer][None].to(value), values], 2)
        parts = []
        for group in self._layout.groups:
            skipped = group.position - self.start
            bias = kwargs.get("position_bias")
            changed = kwargs if bias is None else {**kwargs, "position_bias": bias[:, :, skipped:]}
            self._group = group
            own_keys, own_values = _unpack(key, group), _unpack(value, group)
            z, _ = attend(
                _unpack(query, group), _join(keys, own_keys, group.position),
                _join(values, own_values, group.position), self._mask(mask, group, key.device), changed,
            )  # fmt: skip
            parts.append(z.reshape(1, -1, *z.shape[2:]))
        self._group = None
        return torch.cat(parts, 1)

    def _mask(self, mask: Tensor | None, group: Group, device: torch.device) -> Tensor | None:
        if mask is not None:
            return mask[:, :, group.position - self.start :]
        if group.position == 0 or group.length == 1 or not self.engine.causal:
            return None
        allowed = torch.ones(group.length, self._end, dtype=torch.bool, device=device)
        return allowed.tril(group.position)[None, None]


def _unpack(x: Tensor, group: Group) -> Tensor:
    """A group's part of (1, head, token, d_head) as (row, head, position, d_head)."""
    part = x[0, :, group.tokens]
    return part.view(part.shape[0], len(group.rows), group.length, -1).transpose(0, 1)


def _join(shared: Tensor, own: Tensor, length: int) -> Tensor:
    """The undisturbed run's keys (or values) of the first positions, then each row's own."""
    return torch.cat([shared[:, :, :length].expand(len(own), -1, -1, -1), own], 2) if length else own


class _Shapes(ForwardPass):
    """Notes the shape of every tensor that a block is given beside the stream, by the way to it."""

    def __init__(self, engine: Engine) -> None:
        # Shapes are the same where nothing is computed.
        nothing = Resume(engine.architecture.n_layers, torch.empty(0)) if engine.resumes else None
        super().__init__(engine, resume=nothing)
        self.found: dict[tuple[Any, ...], torch.Size] = {}

    def arguments(self, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self._note(args, (layer, "args"))
        self._note(kwargs, (layer, "kwargs"))
        return args, kwargs

    def _note(self, value: Any, path: tuple[Any, ...]) -> None:
        if isinstance(value, Tensor):
            self.found[path] = value.shape
        elif type(value) in (tuple, list):
            for i, item in enumerate(value):
                self._note(item, (*path, i))
        elif type(value) is dict:
            for name, item in value.items():
                self._note(item, (*path, name))


def position_axes(engine: Engine) -> dict[tuple[Any, ...], int]:
    """Which axis of what a block is given beside the stream follows the prompt's length, by the way to it.

    Found by running two lengths. What has two such axes is a mask, and left to attention.
    """
    shapes = []
    ids = engine.probe.ids
    for length in (ids.shape[1], ids.shape[1] - 2):
        forward = _Shapes(engine)
        engine.run(ids[:, :length], forward, use_cache=False)
        shapes.append(forward.found)
    axes = {}
    for path, shape in shapes[0].items():
        other = shapes[1].get(path, shape)
        differing = [i for i, (a, b) in enumerate(zip(shape, other, strict=True)) if a != b]
        if len(differing) == 1:
            axes[path] = differing[0]
    return axes
