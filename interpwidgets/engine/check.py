"""What a session proves about a model before anyone looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .architecture import UnsupportedModel
from .context import without_gradients
from .edits import compile_edits
from .forward import Edit, ForwardPass
from .interventions import Patch
from .sweep import Sweep
from .tolerance import TOLERANCE

if TYPE_CHECKING:
    from ..session import Session


@dataclass(frozen=True)
class Item:
    """One property that was tested: the largest error found, relative to the largest value compared."""

    name: str
    error: float
    ok: bool


@dataclass(frozen=True)
class Check:
    """The outcome of `session.check()`."""

    items: tuple[Item, ...]
    one_pass: bool  # rows of a sweep may join late, share a prefix, and lie in one sequence
    reason: str = ""

    @property
    def ok(self) -> bool:
        return all(item.ok for item in self.items)

    @property
    def summary(self) -> str:
        worst = self.items[0].error
        return f"matches Hugging Face, {worst:.0e}" if self.ok else "; ".join(i.name for i in self.items if not i.ok)

    def __str__(self) -> str:
        lines = [f"{'ok  ' if i.ok else 'FAIL'} {i.name}: {i.error:.1e}" for i in self.items]
        form = "sweeps: one pass" if self.one_pass else "sweeps: full batch (rows cannot join late in this attention)"
        return "\n".join([*lines, form])


def check(session: Session) -> Check:
    """Run the probe plainly and instrumented, and compare.

    Raises UnsupportedModel if what we would show is not what the model computes.
    """
    engine = session.engine
    probe, tolerance = engine.probe.to(engine.device), 10 * TOLERANCE.get(engine.dtype, 1e-5)
    plain = without_gradients(lambda: engine.model(input_ids=probe, use_cache=False).logits)
    layers = range(engine.architecture.n_layers)
    capture: set[tuple[str, int | None]] = {
        (site, layer) for layer in layers for site in engine.sites(layer) if site in ("pattern", "resid_post")
    }
    forward = ForwardPass(engine, capture=capture)
    logits = engine.run(probe, forward, use_cache=False)

    def relative(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a.float() - b.float()).abs().max() / b.float().abs().max().clamp_min(1e-12))

    errors = {"instrumented logits equal plain logits": relative(logits, plain)}
    last = forward.captured["resid_post", engine.architecture.n_layers - 1][0]
    errors["unembedded last residual equals the logits"] = relative(engine.readout(last), plain[0])
    sums = [p.sum(-1) for (site, _), p in forward.captured.items() if site == "pattern"]
    if sums:
        sums_ = torch.cat([s.flatten() for s in sums])
        # Attention sinks take part of a row's weight: such rows sum to at most 1.
        over = (sums_ - 1).clamp_min(0) if _has_sinks(session) else (sums_ - 1).abs()
        errors["rows of attention sum to 1"] = float(over.max())
    ids = tuple(probe[0].tolist())
    patches = tuple(Patch("resid_pre", layer=layer, source=ids) for layer in layers)
    # Not `run`, whose warning is expected here: warning filters are the whole process', not this thread's.
    itself = session.ask(session.tokenize(ids), (), patches, all_logits=True)
    patched = torch.from_numpy(itself.logits.values)
    errors["patching a run with itself changes nothing"] = relative(patched, plain[0].cpu())
    # Eager attention takes its softmax in float32, whatever the model's dtype.
    allowed = {"rows of attention sum to 1": max(tolerance, 1e-6)}
    items = tuple(Item(name, error, error <= allowed.get(name, tolerance)) for name, error in errors.items())
    if not all(item.ok for item in items):
        failed = "; ".join(f"{i.name}: off by {i.error:.1e}" for i in items if not i.ok)
        raise UnsupportedModel(f"{type(engine.model).__name__} failed the session's check: {failed}")
    return Check(items, one_pass=_one_pass_holds(session, tolerance))


def _has_sinks(session: Session) -> bool:
    return any(hasattr(b.attention, "sinks") for b in session.engine.architecture.blocks)


def _one_pass_holds(session: Session, tolerance: float) -> bool:
    """Compare the packed sweep, with prefix, late rows and rows of several lengths, to the full batch on the probe."""
    engine = session.engine
    if any(block.kind != "registry" for block in engine.architecture.blocks):
        return False
    ids = engine.probe
    last = engine.architecture.n_layers - 1
    other = (*ids[0, :3].tolist(), *ids[0, :3].tolist())
    read = session.read(session.tokenize(ids))
    places = [("resid_pre", layer, position) for layer in sorted({0, last // 2, last}) for position in (3, 4, 5)]
    places += [("resid_post", layer, 4) for layer in sorted({0, last})]
    rows: list[list[Edit]] = [
        compile_edits(engine, [Patch(site, layer=layer, position=position, source=other)], 6, read)
        for site, layer, position in places
    ]

    def summary(logits: torch.Tensor) -> torch.Tensor:
        return logits.float().std(-1)

    full = Sweep(engine, ids, rows, 5, packed=False).run(summary, budget=1 << 40)
    expected = torch.tensor([full.base, *full.values])
    shared = [None, session.prefix(tuple(ids[0].tolist()), 3)] if engine.causal else [None]
    for engine.narrows in (True, False):
        try:
            packed = [Sweep(engine, ids, rows, 5, prefix=prefix).run(summary, budget=1 << 40) for prefix in shared]
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError):
            # What cannot take a growing sequence or our cache fails in as many ways as there are models.
            continue
        errors = [(torch.tensor([p.base, *p.values]) - expected).abs().max() for p in packed]
        if max(errors) <= tolerance * expected.abs().max():
            return True
    return False
