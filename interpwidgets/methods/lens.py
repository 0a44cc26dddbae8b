"""The logit lens: what the model would predict if it stopped after a layer (nostalgebraist 2020, "interpreting GPT").

Each residual vector goes through the model's own final norm, with the norm's statistics of that vector, then the
unembedding, soft cap and scale. The last row is therefore the model's own logits; what acts on `ln_final`, behind the
last block, acts in that row alone.

TransformerLens' `logit_lens` does the same; its stack counts from "0_pre", our layer -1. nnterp's leaves out the
embedding, soft cap and scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..engine.interventions import Intervention
from ..engine.jobs import check_cancelled
from ..engine.metrics import kl_divergence
from ..engine.names import unknown
from ..engine.sites import Site, resolve
from ..session import Run, Session

UNITS = {
    "probability": "",
    "log_probability": "nats",
    "entropy": "nats",
    "rank": "0 = top",
    "kl": "nats",
    "cross_entropy": "nats",
}
"""The metrics and their units."""

_ROWS = 64  # vectors unembedded at once: bounds the logits held to a few times 64 x vocabulary


def logit_lens(
    session: Session,
    prompt: Any,
    metric: str | Sequence[str] = "probability",
    top_k: int = 10,
    *,
    track: Sequence[int | str] = (),
    interventions: Iterable[Intervention] = (),
) -> xr.Dataset:
    """Read every layer's residual stream as a prediction of the next token; of the token itself if that is masked.

    `layer` -1 is the embedding (resid_pre of block 0); layer l is resid_post of block l; the last is the model's own
    output, the only one that `interventions` at `ln_final` reach. Gives a Dataset with

    - `top_token`, `top_probability` (layer, position, k): the k likeliest tokens and their probabilities;
    - one variable (layer, position) for each `metric`: `probability` and `log_probability` of the top token;
      `entropy`; `rank` of the target among all tokens, 0-based (as in TransformerLens; tuned-lens counts from 1);
      `kl`: KL(last layer || this layer), the forward KL of Belrose et al. 2303.08112; `cross_entropy` on the target.
      Nats throughout;
    - `tracked_probability`, `tracked_rank` (token, layer, position) for the tokens in `track`.

    The target is the actual next token, or in a masked language model the token itself. Where the prompt does not say
    (at the last position, or under a mask), it is the model's own top prediction, and `cross_entropy` is NaN. Raises
    ValueError for an unknown metric.
    """
    names = [metric] if isinstance(metric, str) else list(metric)
    for name in names:
        if name not in UNITS:
            raise unknown("metric", name, UNITS)
    if top_k < 1:
        raise ValueError(f"top_k={top_k}: a positive number is needed")
    run = lens_run(session, prompt, tuple(interventions))
    read = read_stack(session, run, top_k, [session.token_id(t) for t in track], names)
    keep = [
        "top_token",
        "top_probability",
        "target",
        *names,
        *(["tracked_probability", "tracked_rank"] if track else []),
    ]
    return read[keep]


def lens_run(session: Session, prompt: Any, interventions: tuple[Intervention, ...] = ()) -> Run:
    """The run that the lens reads: its residual stream at every layer, and all logits where those say more."""
    tokens = session.tokenize(prompt)
    sites = (Site("resid_pre", layer=0), Site("resid_post"))
    return session.ask(tokens, sites, interventions, all_logits=bool(_behind_the_stream(interventions)))


def residual_stack(run: Run) -> Tensor:
    """The residual stream of a lens run, (layer, position, d_model); row 0 is the embedding."""
    rows = _rows_of(run)
    # The layers of a large model may stand on several devices.
    return torch.stack([row.to(rows[-1].device) for row in rows])


def _rows_of(run: Run) -> list[Tensor]:
    return [run.tensor("resid_pre", 0), *run.captured[Site("resid_post")].values()]


def changed_cells(run: Run, other: Run) -> np.ndarray:
    """Of two lens runs of a prompt, which cells (layer, position) are not read of the same, bit for bit."""
    rows = zip(_rows_of(run), _rows_of(other), strict=True)
    changed = torch.stack([(now != before).any(-1).cpu() for now, before in rows]).numpy()
    acting, others = (_behind_the_stream(each.interventions) for each in (run, other))
    if acting != others:
        for intervention in (*acting, *others):
            changed[-1, resolve(intervention.position, len(run.tokens), "position")] = True
    return changed


def _behind_the_stream(interventions: Sequence[Intervention]) -> list[Intervention]:
    return [i for i in interventions if i.site == "ln_final"]


def read_stack(
    session: Session,
    run: Run,
    top_k: int = 10,
    track: Sequence[int] = (),
    metrics: Sequence[str] = tuple(UNITS),
    *,
    known: tuple[Run, xr.Dataset] | None = None,
    partial: Callable[[xr.Dataset], None] | None = None,
) -> xr.Dataset:
    """Read a lens run's whole stack.

    `known` is another run of the same prompt and its reading: cells that are read of the same are copied from it.
    `partial` receives the dataset as it fills, from the last layer down.
    """
    stack = residual_stack(run)  # (layer, position, d_model)
    n_layers, length, _ = stack.shape
    given = bool(_behind_the_stream(run.interventions))

    def read(layers: Sequence[int], positions: Sequence[int]) -> Tensor:
        """The logits (row, token) of cells."""
        logits = session.engine.readout(stack[layers, positions]).float()
        for row, (layer, position) in enumerate(zip(layers, positions, strict=True)):
            if given and layer == n_layers - 1:
                logits[row] = run.logits_at(position)
        return logits

    top_k = min(top_k, session.engine.architecture.n_vocab)
    said = session.targets(run.tokens)
    open_ = [i for i, token in enumerate(said) if token is None]  # the positions whose target is the model's own
    target = torch.tensor([-1 if token is None else token for token in said], device=stack.device)
    target[open_] = read([n_layers - 1] * len(open_), open_).argmax(-1)
    out = _empty(n_layers, length, top_k, track, metrics)
    out["target"] = ("position", target.cpu().numpy().astype(np.int32))
    todo = torch.ones(n_layers, length, dtype=torch.bool)
    if known is not None and _reusable(known[1], out):
        before, reading = known
        same = torch.from_numpy(~changed_cells(run, before))  # (layer, position)
        # What compares with the last layer changes with it: KL everywhere, ranks where the target is the model's own.
        same[:, open_] &= torch.from_numpy(reading["target"].values == out["target"].values)[open_]
        if "kl" in metrics:
            same &= same[-1].clone()
        todo = ~same
        for name in out.data_vars:
            if name != "target":
                where = np.broadcast_to(_spread(~todo.numpy(), out[name].dims), out[name].shape)
                out[name].values[where] = reading[name].values[where]
    for start in range(0, length, _ROWS):
        here = list(range(start, min(start + _ROWS, length)))
        # The last layer's log-probabilities (position, token), which KL compares with.
        final = read([n_layers - 1] * len(here), here).log_softmax(-1) if "kl" in metrics else None
        rows = [(layer, p) for layer in reversed(range(n_layers)) for p in here if todo[layer, p]]
        for at in range(0, len(rows), _ROWS):
            check_cancelled()
            layers, positions = ([row[i] for row in rows[at : at + _ROWS]] for i in (0, 1))
            logits = read(layers, positions)  # (row, token)
            last = None if final is None else final[[p - start for p in positions]]
            for name, values in _measure(logits, last, target[positions], top_k, list(track), metrics).items():
                tokens_first = out[name].dims[0] == "token"
                index = (slice(None), layers, positions) if tokens_first else (layers, positions)
                out[name].values[index] = values.cpu().numpy()
            if partial is not None:
                partial(out)
    if "cross_entropy" in metrics:
        out["cross_entropy"].values[:, open_] = np.nan
    out.attrs["tokens"] = list(run.tokens.strings)
    return out


def _measure(
    logits: Tensor, final: Tensor | None, target: Tensor, top_k: int, track: list[int], metrics: Sequence[str]
) -> dict[str, Tensor]:
    """The metrics of a chunk of logits (row, token); `final` are the last layer's log-probabilities, for KL."""
    log_p = logits.log_softmax(-1)
    top_log, top = log_p.topk(top_k)
    at_target = log_p.gather(1, target[:, None])
    measures: dict[str, Callable[[], Tensor]] = {
        "probability": lambda: top_log[:, 0].exp(),
        "log_probability": lambda: top_log[:, 0],
        # Of a token that is forbidden (-inf) 0, not NaN.
        "entropy": lambda: -(log_p.exp() * log_p.clamp_min(torch.finfo(log_p.dtype).min)).sum(-1),
        "rank": lambda: (log_p > at_target).sum(-1).float(),
        "kl": lambda: _kl(final, log_p),
        "cross_entropy": lambda: -at_target[:, 0],
    }
    measured = {"top_token": top.int(), "top_probability": top_log.exp()} | {name: measures[name]() for name in metrics}
    if track:
        tracked = log_p[:, track]  # (row, token)
        measured["tracked_probability"] = tracked.exp().T
        measured["tracked_rank"] = torch.stack(
            [(log_p > tracked[:, i : i + 1]).sum(-1) for i in range(len(track))]
        ).float()
    return measured


def _kl(final: Tensor | None, log_p: Tensor) -> Tensor:
    assert final is not None
    return kl_divergence(final, log_p)


def _empty(n_layers: int, length: int, top_k: int, track: Sequence[int], metrics: Sequence[str]) -> xr.Dataset:
    cells = ("layer", "position")
    data: dict[str, Any] = {
        "top_token": ((*cells, "k"), np.full((n_layers, length, top_k), -1, np.int32)),
        "top_probability": ((*cells, "k"), np.full((n_layers, length, top_k), np.nan, np.float32)),
    }
    for name in metrics:
        data[name] = (cells, np.full((n_layers, length), np.nan, np.float32), {"units": UNITS[name]})
    if track:
        for name in ("tracked_probability", "tracked_rank"):
            data[name] = (("token", *cells), np.full((len(track), n_layers, length), np.nan, np.float32))
    coords: dict[str, Any] = {"layer": np.arange(-1, n_layers - 1), "position": np.arange(length)}
    return xr.Dataset(data, coords=coords | ({"token": list(track)} if track else {}))


def _reusable(reading: xr.Dataset, out: xr.Dataset) -> bool:
    same = all(name in reading and reading[name].shape == out[name].shape for name in out.data_vars)
    return same and ("token" not in out.coords or np.array_equal(reading.token, out.token))


def _spread(cells: np.ndarray, dims: tuple[Any, ...]) -> np.ndarray:
    """A (layer, position) mask shaped to broadcast over a variable's further dimensions."""
    return cells[..., None] if dims[-1] == "k" else cells
