"""What a session proves about a model before anyone looks at it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .architecture import UnsupportedModel
from .causality import is_causal, is_masked
from .context import without_gradients
from .device import differs_from_cpu
from .edits import Read, compile_edits
from .finite import require_finite
from .forward import Edit, ForwardPass
from .interventions import Patch
from .resume import Resume
from .sites import SITES
from .sweep import Prefix, Sweep
from .tolerance import TOLERANCE

if TYPE_CHECKING:
    from .engine import Engine

Captured = Mapping[tuple[str, int | None], torch.Tensor]
"""(row, position, [head,] width) of sites and layers."""

_EVERY = 16  # tokens of the vocabulary from one that is compared to the next


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


def check(engine: Engine) -> Check:
    """Run the probe plainly and instrumented, and compare; find out what the engine may take for granted.

    Raises UnsupportedModel if what we would show is not what the model computes, NotFinite if that is not finite.
    """
    tolerance = 10 * TOLERANCE.get(engine.dtype, 1e-5)
    probe = engine.probe
    plain = without_gradients(lambda: engine.model(**probe.inputs(), use_cache=False).logits)
    places = [(stack, layer) for stack, s in engine.architecture.stacks.items() for layer in range(s.n_layers)]
    had = [(site, layer) for stack, layer in places for site in engine.sites(layer, stack)]
    # All that is asked of this run below, so that it is made once.
    bases = ("pattern", "resid_pre", "resid_post")
    capture: set[tuple[str, int | None]] = {
        (site, layer) for site, layer in had if SITES[site].base in bases or site in ("k", "v")
    }
    forward = ForwardPass(engine, probe.source, capture=capture)
    logits = engine.run(probe.ids, forward, use_cache=False)
    known = forward.captured
    require_finite(logits[0, -1], engine, probe.ids, probe.source, [], ())
    engine.causal = is_causal(engine, known, logits)
    _require_purpose(engine)

    def relative(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a.float() - b.float()).abs().max() / b.float().abs().max().clamp_min(1e-12))

    errors = {"instrumented logits equal plain logits": relative(logits, plain)}
    last = known["resid_post", engine.architecture.n_layers - 1][0]
    errors["unembedded last residual equals the logits"] = relative(engine.readout(last), plain[0])
    sums = [p.sum(-1) for (site, _), p in known.items() if SITES[site].base == "pattern"]
    if sums:
        sums_ = torch.cat([s.flatten() for s in sums])
        # Attention sinks take part of a row's weight: such rows sum to at most 1.
        over = (sums_ - 1).clamp_min(0) if _has_sinks(engine) else (sums_ - 1).abs()
        errors["rows of attention sum to 1"] = float(over.max())
    source_length = 0 if probe.source is None else probe.source.shape[1]
    patches = [Patch(site, layer=layer, source=()) for site, layer in had if SITES[site].base == "resid_pre"]
    edits = compile_edits(engine, patches, probe.ids.shape[1], _reader(known), source_length=source_length)
    itself = engine.run(probe.ids, ForwardPass(engine, probe.source, edits=edits), use_cache=False)
    errors["patching a run with itself changes nothing"] = relative(itself, plain)
    on_cpu = differs_from_cpu(engine.model, probe)
    # Eager attention takes its softmax in float32, whatever the model's dtype.
    allowed = {"rows of attention sum to 1": max(tolerance, 1e-6)}
    items = tuple(Item(name, error, error <= allowed.get(name, tolerance)) for name, error in errors.items())
    if not all(item.ok for item in items):
        failed = "; ".join(f"{i.name}: off by {i.error:.1e}" for i in items if not i.ok)
        raise UnsupportedModel(f"{type(engine.model).__name__} failed the session's check: {failed}")
    if isinstance(on_cpu, float):
        items += (_compared(on_cpu, engine.device.type, tolerance),)
    engine.resumes = not engine.has_encoder and _resumes(engine, known, plain, tolerance)
    # What an encoder has read would have to grow with the batch.
    return Check(items, not engine.has_encoder and _one_pass_holds(engine, known, tolerance), on_cpu)


def _reader(captured: Captured) -> Read:
    """A reader of one run's activations, whichever prompt is named."""
    return lambda prompt, site, layer: captured[site, layer][0]


def _require_purpose(engine: Engine) -> None:
    """Raise UnsupportedModel for a model of which it is not known what it predicts."""
    if engine.causal or is_masked(engine.model):
        return
    # The causal form of an encoder's family, whose config leaves it an encoder.
    may_decode = getattr(getattr(engine.model, "config", None), "is_decoder", None) is False
    hint = " A decoder of this family needs config.is_decoder=True." if may_decode else ""
    raise UnsupportedModel(
        f"{type(engine.model).__name__} is not causal: its positions depend on later ones. Nor is it a masked "
        f"language model: what it is to predict is not known.{hint}"
    )


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


def _has_sinks(engine: Engine) -> bool:
    return any(hasattr(b.attention, "sinks") for b in engine.architecture.blocks)


def _resumes(engine: Engine, known: Captured, plain: torch.Tensor, tolerance: float) -> bool:
    """Compare passes that begin at some blocks to the plain one: blocks may have more from above than the stream.

    `known` are the streams of the plain one.
    """
    n_layers, ids = engine.architecture.n_layers, engine.probe.ids
    pairs = [(known["resid_post", i], known["resid_pre", i + 1]) for i in range(n_layers - 1)]
    engine.passes_on = all(torch.equal(left, entered) for left, entered in pairs)
    # Some tokens' logits show an error in the stream as well as all of them, for less.
    tokens = list(range(0, engine.architecture.n_vocab, _EVERY))
    for block in {1, n_layers // 2, n_layers // 2 + 1, n_layers - 1} & set(range(1, n_layers)):
        late = ForwardPass(engine, resume=Resume(block, known["resid_pre", block][0]))
        try:
            logits = engine.run_for(ids, late, lambda x: x[0], tokens, use_cache=False)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError):
            return False  # a block that reads what another one has left behind for it
        if not float((logits - plain[0, :, tokens]).abs().max()) <= tolerance / 10 * float(plain.abs().max()):
            return False
    return True


def _one_pass_holds(engine: Engine, known: Captured, tolerance: float) -> bool:
    """Compare the packed sweep, with prefix, late rows and rows of several lengths, to the full batch on the probe.

    `known` are the probe's streams, keys and values.
    """
    if any(block.kind != "registry" for block in engine.architecture.blocks):
        return False
    ids, n_layers = engine.probe.ids, engine.architecture.n_layers
    last = n_layers - 1
    places = [("resid_pre", layer, position) for layer in sorted({0, last // 2, last}) for position in (3, 4, 5)]
    places += [("resid_post", layer, 4) for layer in sorted({0, last})]
    other = ForwardPass(engine, capture={(site, layer) for site, layer, _ in places})
    engine.run(ids[:, [0, 1, 2, 0, 1, 2]], other, use_cache=False, **engine.last_logits_only)
    rows: list[list[Edit]] = [
        compile_edits(engine, [Patch(site, layer=layer, position=position, source=())], 6, _reader(other.captured))
        for site, layer, position in places
    ]

    def summary(logits: torch.Tensor) -> torch.Tensor:
        return logits.float().std(-1)

    full = Sweep(engine, ids, rows, 5, packed=False).run(summary, budget=1 << 40)
    expected = torch.tensor([full.base, *full.values])
    shared: list[Prefix | None] = [None]
    if engine.causal:
        keys, values = ([known[site, i][0, :3].transpose(0, 1) for i in range(n_layers)] for site in ("k", "v"))
        shared.append(Prefix(keys, values, 3))
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
