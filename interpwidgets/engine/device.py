"""Whether an accelerator computes what the CPU does: some of them are wrong without saying so.

TransformerLens #1178: on MPS, the logit difference of the IOI prompt had the other sign.
"""

from __future__ import annotations

import copy

import psutil
from torch import nn

from .context import without_gradients
from .probe import Probe


def differs_from_cpu(model: nn.Module, probe: Probe) -> float | str | None:
    """The largest difference of logits, relative to the largest logit, between the model and its copy on the CPU.

    None if it is on the CPU already; a text that says why if it cannot be compared. The copy has the model's dtype.
    """
    tensors = [*model.parameters(), *model.buffers()]
    devices = {t.device.type for t in tensors}
    if devices == {"cpu"}:
        return None
    if "meta" in devices:
        return "not compared with the CPU: some weights are kept elsewhere between calls"
    needed = 2 * sum(t.nbytes for t in {id(t): t for t in tensors}.values())
    if needed > psutil.virtual_memory().available:
        return f"not compared with the CPU: a copy would take more than its free memory ({needed / 2**30:.1f} GiB)"
    try:
        return difference(model, on_cpu(model), probe)
    except (RuntimeError, NotImplementedError, TypeError) as error:  # kernels that only the accelerator has
        return f"not compared with the CPU: {type(error).__name__}: {str(error).splitlines()[0]}"


def on_cpu(model: nn.Module) -> nn.Module:
    """A copy of the model whose weights are on the CPU; the model itself is not moved for a moment."""
    weights: dict[int, object] = {}
    for p in model.parameters():
        weights[id(p)] = nn.Parameter(p.detach().to("cpu", copy=True), requires_grad=False)
    for b in model.buffers():
        weights[id(b)] = b.detach().to("cpu", copy=True)
    twin = copy.deepcopy(model, weights)
    if any(hasattr(module, "_hf_hook") for module in twin.modules()):
        from accelerate.hooks import remove_hook_from_submodules

        remove_hook_from_submodules(twin)  # they would carry the activations back to the accelerator
    return twin


def difference(model: nn.Module, twin: nn.Module, probe: Probe) -> float:
    """The largest difference of two models' logits on a probe, relative to the twin's largest."""
    here = without_gradients(lambda: model(**probe.inputs(), use_cache=False).logits).float().cpu()
    inputs = {name: t.cpu() for name, t in probe.inputs().items()}
    there = without_gradients(lambda: twin(**inputs, use_cache=False).logits).float()
    return float((here - there).abs().max() / there.abs().max().clamp_min(1e-12))
