"""What a session proves about a model before anyone looks at it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .architecture import UnsupportedModel
from .context import without_gradients
from .device import differs_from_cpu
from .edits import compile_edits
from .forward import Edit, ForwardPass
from .interventions import Patch
from .probe import Probe
from .prompts import SourceTarget
from .resume import Resume
from .sites import SITES, Site
from .sweep import Sweep
from .tolerance import TOLERANCE

if TYPE_CHECKING:
    from ..session import Session
    from ..tokens import Tokens
    from .engine import Engine


class DeviceWarning(UserWarning):
    """The model computes something else on its device than on the CPU."""


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
    on_cpu: float | str | None = None
    """Of a model elsewhere: the largest difference from the CPU's logits, relative to the largest; or why not known."""

    @property
    def ok(self) -> bool:
        return all(item.ok for item in self.items)

    @property
    def summary(self) -> str:
        if not self.ok:
            return "; ".join(f"not so: {i.name} (off by {i.error:.0e})" for i in self.items if not i.ok)
        cpu = f"; the CPU, {self.on_cpu:.0e}" if isinstance(self.on_cpu, float) else ""
        return f"matches Hugging Face, {self.items[0].error:.0e}{cpu}"

    def __str__(self) -> str:
        lines = [f"{'ok  ' if i.ok else 'FAIL'} {i.name}: {i.error:.1e}" for i in self.items]
        form = "sweeps: one pass" if self.one_pass else "sweeps: full batch (rows cannot join late in this attention)"
        return "\n".join([*lines, form, *([self.on_cpu] if isinstance(self.on_cpu, str) else [])])


def check(session: Session) -> Check:
    """Run the probe plainly and instrumented, and compare.

    Raises UnsupportedModel if what we would show is not what the model computes.
    """
    engine = session.engine
    tolerance = 10 * TOLERANCE.get(engine.dtype, 1e-5)
    tokens = _tokens(session)
    probe = Probe(torch.tensor([tokens.ids], device=engine.device), engine.probe.source)
    plain = without_gradients(lambda: engine.model(**probe.inputs(), use_cache=False).logits)
    places = [(stack, layer) for stack, s in engine.architecture.stacks.items() for layer in range(s.n_layers)]
    had = [(site, layer) for stack, layer in places for site in engine.sites(layer, stack)]
    capture: set[tuple[str, int | None]] = {
        (site, layer) for site, layer in had if SITES[site].base in ("pattern", "resid_pre", "resid_post")
    }
    forward = ForwardPass(engine, probe.source, capture=capture)
    logits = engine.run(probe.ids, forward, use_cache=False)

    def relative(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a.float() - b.float()).abs().max() / b.float().abs().max().clamp_min(1e-12))

    errors = {"instrumented logits equal plain logits": relative(logits, plain)}
    last = forward.captured["resid_post", engine.architecture.n_layers - 1][0]
    errors["unembedded last residual equals the logits"] = relative(engine.readout(last), plain[0])
    sums = [p.sum(-1) for (site, _), p in forward.captured.items() if SITES[site].base == "pattern"]
    if sums:
        sums_ = torch.cat([s.flatten() for s in sums])
        # Attention sinks take part of a row's weight: such rows sum to at most 1.
        over = (sums_ - 1).clamp_min(0) if _has_sinks(session) else (sums_ - 1).abs()
        errors["rows of attention sum to 1"] = float(over.max())
    streams = [(site, layer) for site, layer in had if SITES[site].base == "resid_pre"]
    patches = tuple(Patch(site, layer=layer, source=tokens.prompt) for site, layer in streams)
    session.ask(
        tokens, tuple(Site(site) for site in dict.fromkeys(site for site, _ in streams))
    )  # all are read at once
    # Not `run`, whose warning is expected here: warning filters are the whole process', not this thread's.
    itself = session.ask(tokens, (), patches, all_logits=True)
    patched = torch.from_numpy(itself.logits.values)
    errors["patching a run with itself changes nothing"] = relative(patched, plain[0].cpu())
    on_cpu = differs_from_cpu(engine.model, probe)
    # Eager attention takes its softmax in float32, whatever the model's dtype.
    allowed = {"rows of attention sum to 1": max(tolerance, 1e-6)}
    items = tuple(Item(name, error, error <= allowed.get(name, tolerance)) for name, error in errors.items())
    if not all(item.ok for item in items):
        failed = "; ".join(f"{i.name}: off by {i.error:.1e}" for i in items if not i.ok)
        raise UnsupportedModel(f"{type(engine.model).__name__} failed the session's check: {failed}")
    if isinstance(on_cpu, float):
        items += (_compared(on_cpu, engine.device.type, tolerance),)
    engine.resumes = not engine.has_encoder and _resumes(engine, forward.captured, plain, tolerance)
    # What an encoder has read would have to grow with the batch.
    return Check(items, not engine.has_encoder and _one_pass_holds(session, tolerance), on_cpu)


def _tokens(session: Session) -> Tokens:
    probe = session.engine.probe
    ids = tuple(probe.ids[0].tolist())
    return session.tokenize(ids if probe.source is None else SourceTarget(tuple(probe.source[0].tolist()), ids))


def _compared(error: float, device: str, tolerance: float) -> Item:
    """The comparison with the CPU; warns if it is more than rounding, for the model is still the user's to look at."""
    if error > tolerance:
        warnings.warn(
            f"on {device} the logits of a short probe differ from the CPU's by {error:.1e} of the largest, where "
            f"rounding explains {tolerance:.0e}: what you see may be wrong. Compare with model.to('cpu')",
            DeviceWarning,
            stacklevel=4,
        )
    return Item(f"logits on {device} equal the CPU's", error, error <= tolerance)


def _has_sinks(session: Session) -> bool:
    return any(hasattr(b.attention, "sinks") for b in session.engine.architecture.blocks)


def _resumes(
    engine: Engine, known: dict[tuple[str, int | None], torch.Tensor], plain: torch.Tensor, tolerance: float
) -> bool:
    """Compare passes that begin at some blocks to the plain one: blocks may have more from above than the stream.

    `known` are the streams of the plain one.
    """
    n_layers, ids = engine.architecture.n_layers, engine.probe.ids
    pairs = [(known["resid_post", i], known["resid_pre", i + 1]) for i in range(n_layers - 1)]
    engine.passes_on = all(torch.equal(left, entered) for left, entered in pairs)
    for block in {1, n_layers // 2, n_layers // 2 + 1, n_layers - 1} & set(range(1, n_layers)):
        late = ForwardPass(engine, resume=Resume(block, known["resid_pre", block][0]))
        try:
            logits = engine.run(ids, late, use_cache=False)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError):
            return False  # a block that reads what another one has left behind for it
        if not float((logits - plain).abs().max()) <= tolerance / 10 * float(plain.abs().max()):
            return False
    return True


def _one_pass_holds(session: Session, tolerance: float) -> bool:
    """Compare the packed sweep, with prefix, late rows and rows of several lengths, to the full batch on the probe."""
    engine = session.engine
    if any(block.kind != "registry" for block in engine.architecture.blocks):
        return False
    ids = engine.probe.ids
    last = engine.architecture.n_layers - 1
    other = (*ids[0, :3].tolist(), *ids[0, :3].tolist())
    session.ask(session.tokenize(other), (Site("resid_pre"), Site("resid_post")))  # both are read at once
    read = session.read(session.tokenize(ids), whole=True)
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
