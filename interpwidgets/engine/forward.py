"""One forward pass with captures and interventions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .context import Place
from .sites import HEAD_SITES, SITES

if TYPE_CHECKING:
    from .bins import Bins
    from .engine import Engine
    from .resume import Resume

Write = Callable[[Tensor, list[int], int | None], Tensor]
"""(addressed part (row, position, [head,] width), its absolute positions, its head) -> what to write there."""


class BeforeUnembedding(Exception):
    """Leaves a pass whose caller wants some tokens' logits only; carries what would have been unembedded."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


class Enough(Exception):
    """Leaves a pass in front of the first block that nothing is asked of."""


class Cancelled(Exception):
    """The pass was stopped between two blocks because a newer request came or the user pressed Stop."""


@dataclass(eq=False)
class Edit:
    """One intervention at one site of one layer, ready to run."""

    site: str
    layer: int | None
    write: Write
    heads: list[int] | None = None
    positions: list[int] | None = None  # absolute; None for all, also those that are generated later
    row: int | None = None  # None for every row of the batch
    owner: int = 0  # index of the intervention that it came from
    entries: list[int] | None = None  # of the last axis; None for all. Of scores and pattern absolute, as positions are
    changed: Tensor | float = 0.0  # largest |difference| that it made


class ForwardPass:
    """What one forward pass captures and edits. Values are viewed as (row, position, [head,] width) everywhere.

    `source` are the ids (1, position) that the encoder reads, where the model has one.
    `start` is the absolute position of the first position that is computed (those before it come from a cache).
    `reduce` are patterns of which only bins are kept. `resume` says at which block to begin; nothing may be captured or
    edited in those above. `until` is the last block that is run; Enough is raised behind it.
    """

    def __init__(
        self,
        engine: Engine,
        source: Tensor | None = None,
        *,
        edits: list[Edit] | None = None,
        capture: set[tuple[str, int | None]] | None = None,
        start: int = 0,
        check: Callable[[], None] | None = None,
        on_block: Callable[[int], None] | None = None,
        watch: bool = False,
        unembed: bool = True,
        resume: Resume | None = None,
        until: int | None = None,
        reduce: Iterable[tuple[Bins, int]] = (),
    ) -> None:
        self.engine = engine
        self.source = source
        self.resume = resume
        self._until = until
        self.skips = False
        self.encoded = source is None  # whether what comes next is the decoder's
        self.start = start
        self.rows = 1
        self.attending: Place | None = None
        self.captured: dict[tuple[str, int | None], Tensor] = {}  # (row, position, [head,] width) each
        self._capture = capture or set()
        self.reduced: dict[tuple[Bins, int], Tensor] = {}  # (row, head, bin, bin) each
        self._reduce: dict[tuple[str, int | None], list[Bins]] = {}
        for bins, layer in reduce:
            self._reduce.setdefault((bins.site, layer), []).append(bins)
        self._edits: dict[tuple[str, int | None], list[Edit]] = {}
        for edit in edits or []:
            self._edits.setdefault((edit.site, edit.layer), []).append(edit)
        self._check = check
        self._on_block = on_block
        self._watch = watch
        self.unembed = unembed

    @property
    def listens(self) -> bool:
        """Whether anything is asked of attention that only torch's own calls show."""
        asked = ((SITES[site], layer) for site, layer in (*self._capture, *self._edits, *self._reduce))
        return any((info.stack, layer) in self.engine.direct for info, layer in asked if info.base in HEAD_SITES)

    def attention_place(self, module: nn.Module) -> Place | None:
        return self.engine.attention_places.get(id(module))

    def attends(self, queries: int, keys: int) -> bool:
        assert self.attending is not None
        info = SITES[f"{self.attending[0]}pattern"]
        here = self.source_length if info.of_source else self.engine.length
        return queries == here and (keys == self.source_length if info.keys_of_source else keys >= queries)

    @property
    def source_length(self) -> int:
        return 0 if self.source is None else self.source.shape[1]

    def wants(self, site: str, layer: int | None) -> bool:
        place = (site, layer)
        return place in self._capture or place in self._edits or place in self._reduce

    def enter_block(self, layer: int, x: Tensor) -> Tensor:
        if self._until is not None and layer > self._until:
            raise Enough
        if self._check is not None:
            self._check()
        if self._on_block is not None:
            self._on_block(layer)
        self.rows = x.shape[0]
        if self.resume is not None:
            self.skips = layer < self.resume.block
            if layer == self.resume.block:
                x = self.resume.stream[None].to(x).clone()
        return self.visit("resid_pre", layer, x)

    def enter_encoder_block(self, layer: int, x: Tensor) -> Tensor:
        if self._check is not None:
            self._check()
        self.rows = x.shape[0]
        return self.visit("encoder.resid_pre", layer, x)

    def arguments(self, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """What a block is to be given beside the stream."""
        return args, kwargs

    def visit(self, site: str, layer: int | None, x: Tensor) -> Tensor:
        """Edit and capture the value of a site; gives back the value that the model goes on with."""
        edits = self._edits.get((site, layer))
        if edits:
            x = x.clone()
            view = standard(site, x, self.rows)
            # Keys and values hold the cached positions too, the readout perhaps the last position only.
            offset = 0 if SITES[site].of_source else self.start + self.engine.length - view.shape[1]
            for edit in edits:
                self._apply(edit, view, offset)
        if (site, layer) in self._capture:
            self.captured[site, layer] = standard(site, x, self.rows).detach().clone()
        for bins in self._reduce.get((site, layer), ()):
            assert layer is not None
            self.reduced[bins, layer] = bins(standard(site, x, self.rows).detach())
        return x

    def _apply(self, edit: Edit, view: Tensor, offset: int) -> None:
        if edit.row is not None:
            view = view[edit.row : edit.row + 1]
        positions = range(offset, offset + view.shape[1])
        local: slice | list[int] = slice(None)
        absolute = list(positions)
        if edit.positions is not None:
            absolute = [p for p in edit.positions if p in positions]
            if not absolute:
                return
            local = _index([p - offset for p in absolute])
        self._write(edit, view, local, absolute)

    def _write(self, edit: Edit, view: Tensor, local: Any, positions: list[int]) -> None:
        """Edit the part of (row, position, [head,] width) that `local` picks along its second axis."""
        entries = self._entries(edit, view.shape[-1])
        if entries == []:
            return
        for head in edit.heads if edit.heads is not None else [None]:
            at = (slice(None), local) if head is None else (slice(None), local, slice(head, head + 1))
            part = view[at]
            old = part if entries is None else part[..., entries]
            new = edit.write(old, positions, head).to(view.dtype)
            if self._watch:
                change = (new - old).abs().nan_to_num(0.0, posinf=torch.inf).max()
                edit.changed = torch.maximum(torch.as_tensor(edit.changed, device=change.device), change)
            if entries is not None:
                part[..., entries] = new
                new = part
            if entries is None or not isinstance(local, slice):  # by slices, a part is a view
                view[at] = new

    def _entries(self, edit: Edit, width: int) -> slice | list[int] | None:
        """Which of `width` entries an edit addresses; none where they are no longer there."""
        info, gone = SITES[edit.site], 0
        if edit.entries is None:
            return None
        keys = info.base in ("scores", "pattern")
        if not keys:
            require_entry(edit.site, max(edit.entries), width)
        if keys and not info.keys_of_source:
            # The cache of a sliding window lets go of the first keys.
            gone = max(0, self.start + self.engine.length - width)
        here = [entry - gone for entry in edit.entries if entry >= gone]
        return _index(here) if here else []


def _index(places: list[int]) -> slice | list[int]:
    """Places along an axis; as a slice, which copies nothing, if they follow each other."""
    first, last = places[0], places[-1]
    return slice(first, last + 1) if places == list(range(first, last + 1)) else places


def standard(site: str, x: Tensor, rows: int) -> Tensor:
    """View a site's raw tensor as (row, position, [head,] width); for scores and pattern, (row, query, head, key)."""
    if SITES[site].base in ("q", "k", "v", "scores", "pattern"):
        return x.transpose(1, 2)
    if x.dim() == 2:  # positions flattened into the batch, as in OPT's MLP
        return x.view(rows, -1, x.shape[-1])
    return x


def require_entry(site: str, entry: int, width: int) -> None:
    """Raise ValueError unless an activation of this width has the entry."""
    if entry >= width:
        raise ValueError(f"entry {entry} is out of range: {site!r} has {width} (entries 0 to {width - 1})")
