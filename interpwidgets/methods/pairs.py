"""Patching sweeps over a data set of prompt pairs: the mean map, how sure it is, and each pair's own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from ..engine.sites import parse_name
from ..session import Session
from ..tokens import Tokens
from .cells import Grid, grid
from .patching import TOKEN_OF, TokenWarning, ZeroGapWarning, run_grid, sources
from .task import METRICS, patching_task, prompt_pair

_AT_ONCE = 2**14
"""Tokens of plain runs that share a pass: enough for the weights not to be what is waited for."""
_HELD = 2**23
"""Bytes of means of resampled or sign-flipped effects that are held at once."""


@dataclass(frozen=True)
class Pair:
    """Two prompts of the same token length and what is asked of them; see `patch_sweep` for the defaults."""

    clean: Any
    corrupted: Any
    answer: int | str | None = None
    foil: int | str | None = None


def patch_pairs(
    session: Session,
    pairs: Sequence[Pair | tuple[Any, ...]],
    site: str = "z",
    metric: str = "logit_diff",
    direction: Literal["denoise", "noise"] = "denoise",
    normalize: bool = True,
    *,
    layer: int | None = None,
    head: int | None = None,
    by_position: bool = False,
    neurons: Sequence[int] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    partial: Callable[[xr.Dataset], None] | None = None,
) -> xr.Dataset:
    """`patch_sweep` of many pairs of prompts, and what they have in common.

    `pairs`: `Pair`s or tuples (clean, corrupted[, answer[, foil]]). Maps without positions take pairs of any lengths;
    maps by position, query or key need the same number of tokens in all. Gives, over the map's axes: `effect` (pair,
    ...), the patched metric minus the unpatched one, in shares of the pair's own gap between its clean and corrupted
    run (positive towards the run patched from) or, with `normalize=False`, in the metric's units; its `mean`; the
    bootstrap percentile interval `low` to `high` of the mean over prompts (Efron & Tibshirani 1993, chapter 13); and
    `p_value`, two-sided, of the sign-flip test that effects are symmetric about 0 (exact up to 12 pairs). All are NaN
    where there is no such cell (see `patch_sweep`). Pairs whose gap is zero cannot be normalised: they are warned of,
    and NaN. Answers and foils without their leading space are warned of in the end, all at once.

    Runs of pairs of the same length share passes. `progress(pairs done, pairs)`; `partial(dataset)` after each pair,
    over the pairs so far. Raises ValueError for no pairs, and where `patch_sweep` does.

    Example: `iw.patch_pairs(session, [(clean, corrupted), ...], "z")["mean"]`
    """
    site, named = parse_name(site)
    layer = named if layer is None else layer
    asked = [pair if isinstance(pair, Pair) else Pair(*pair) for pair in pairs]
    if not asked:
        raise ValueError("pairs is empty: one pair of prompts or several are needed")
    tokens = [prompt_pair(session, pair.clean, pair.corrupted) for pair in asked]

    def where(prompt: Tokens) -> Grid:
        return grid(session, site, prompt, layer=layer, head=head, by_position=by_position, neurons=neurons)

    maps = [where(clean) for clean, _ in tokens]
    first = maps[0]
    if len({each.shape for each in maps}) > 1:
        lengths = sorted({n for each in maps for dim, n in zip(each.dims, each.shape, strict=True) if dim in TOKEN_OF})
        raise ValueError(
            f"a map by {first.dims[-1]} needs pairs of the same length, and these have {lengths} tokens: sweep heads "
            "over all positions, or make the prompts equally long"
        )
    effects = np.full((len(asked), *first.shape), np.nan)
    gaps = np.full(len(asked), np.nan)
    order = sorted(range(len(asked)), key=lambda i: len(tokens[i][0]))
    done: list[int] = []
    hints: dict[int, str] = {}
    for chunk in _chunks(session, site, order, tokens):
        session.ask_all([t for i in chunk for t in tokens[i]], sources(session, site))
        for i in chunk:
            task = patching_task(session, *tokens[i], asked[i].answer, asked[i].foil, metric)
            values = run_grid(session, task, where(task.clean), direction)
            unpatched = task.corrupted_value if direction == "denoise" else task.clean_value
            toward = task.gap if direction == "denoise" else -task.gap
            gaps[i] = task.gap
            if task.hint:
                hints[i] = task.hint
            effects[i] = (values - unpatched) / ((np.nan if task.gap_is_zero else toward) if normalize else 1.0)
            done.append(i)
            if progress is not None:
                progress(len(done), len(asked))
            if partial is not None:
                partial(_summary(first, effects, gaps, done, confidence, resamples, seed))
    if hints:
        hinted = sorted(hints)
        warnings.warn(f"in pairs {hinted}: of pair {hinted[0]}, {hints[hinted[0]]}", TokenWarning, stacklevel=2)
    zero = np.flatnonzero(np.isnan(effects).reshape(len(asked), -1).all(1)).tolist() if normalize else []
    if zero:
        warnings.warn(
            f"clean and corrupted score the same in pairs {zero}, so that their effects cannot be normalised; they are "
            "left out", ZeroGapWarning, stacklevel=2,
        )  # fmt: skip
    data = _summary(first, effects, gaps, sorted(done), confidence, resamples, seed)
    data.attrs = {
        "metric": metric, "direction": direction, "normalized": normalize, "confidence": confidence,
        "units": "share of the pair's gap" if normalize else METRICS[metric],
    }  # fmt: skip
    return data


def _chunks(
    session: Session, site: str, order: Sequence[int], tokens: Sequence[tuple[Tokens, Tokens]]
) -> Iterator[list[int]]:
    """Pairs of one length whose runs share a pass, as many as the memory for results will keep."""
    waiting = list(order)
    while waiting:
        length = len(tokens[waiting[0]][0])
        (run,) = session.ask_all(tokens[waiting[0]][:1], sources(session, site))
        count = max(1, min(session.memory_budget // 4 // (2 * run.nbytes), _AT_ONCE // (2 * length)))
        chunk = [i for i in waiting[:count] if len(tokens[i][0]) == length]
        yield chunk
        del waiting[: len(chunk)]


def _summary(
    where: Grid,
    effects: np.ndarray,
    gaps: np.ndarray,
    chosen: Sequence[int],
    confidence: float,
    resamples: int,
    seed: int,
) -> xr.Dataset:
    known = effects[list(chosen)]
    finite = known[~np.isnan(known).reshape(len(known), -1).all(1)]
    low, high = bootstrap_interval(finite, confidence, resamples, seed)
    mean = finite.mean(0) if len(finite) else np.full(where.shape, np.nan)
    values = {"mean": mean, "low": low, "high": high, "p_value": sign_flip_p(finite, seed=seed)}
    maps: dict[str, Any] = {name: (where.dims, value) for name, value in values.items()}
    maps |= {"effect": (("pair", *where.dims), known), "gap": (("pair",), gaps[list(chosen)])}
    return xr.Dataset(maps, coords={"pair": np.array(chosen), **where.coords})


def bootstrap_interval(
    effects: np.ndarray, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The percentile interval of the mean over the first axis of (pair, ...), by drawing pairs with replacement.

    NaN where there is no pair.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence!r}: a number between 0 and 1 is needed, such as 0.95")
    n = len(effects)
    if n == 0:
        return (np.full(effects.shape[1:], np.nan),) * 2
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples) / n  # (resample, pair)
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = _by_cells(effects, resamples, lambda part: np.quantile(drawn @ part, ends, axis=0))
    return low, high


def sign_flip_p(effects: np.ndarray, flips: int = 10_000, seed: int = 0) -> np.ndarray:
    """Two-sided p-value of (pair, ...) effects being symmetric about 0, by flipping the pairs' signs.

    All flips up to 12 pairs; of more, `flips` at random, the one observed counted with them (Phipson & Smyth 2010).
    NaN where there is no pair, and where an effect is not finite.
    """
    n = len(effects)
    if n == 0:
        return np.full(effects.shape[1:], np.nan)
    if n <= 12:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)  # (flip, pair)
    else:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(flips, n))
        signs[0] = 1.0

    def p_value(part: np.ndarray) -> np.ndarray:
        """(cell,) of (pair, cell)."""
        observed = np.abs(part.mean(0))
        # Flips of equal mean differ by rounding.
        reached = observed - 1e-12 * np.abs(part).max(0)
        p = (np.abs(signs @ part / n) >= reached).mean(0)
        # No comparison with NaN holds: 0 would be the surest effect of all.
        return np.where(np.isfinite(observed), p, np.nan)

    with np.errstate(invalid="ignore"):
        return _by_cells(effects, len(signs), p_value)


def _by_cells(effects: np.ndarray, rows: int, statistic: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A statistic of (pair, ...) effects that takes `rows` numbers a cell, of as many cells at a time as may be held.

    `statistic` maps (pair, cell) to (..., cell).
    """
    cells = effects.reshape(len(effects), -1)
    step = max(1, _HELD // (8 * rows))
    parts = [statistic(cells[:, start : start + step]) for start in range(0, max(1, cells.shape[1]), step)]
    whole = np.concatenate(parts, -1)
    return whole.reshape(*whole.shape[:-1], *effects.shape[1:])
