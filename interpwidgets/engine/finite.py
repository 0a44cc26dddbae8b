"""Where NaN and infinity begin in a model; looked for only after the logits were found to hold them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .engine import Engine
from .forward import Edit, ForwardPass, standard
from .interventions import Intervention
from .probe import Probe
from .sites import SITES

_REMEDY = "half precision overflows easily: load the model with dtype='bfloat16' or 'float32'"


class NotFinite(ValueError):
    """The model's logits hold NaN or infinity; the text says where they begin."""


def is_finite(logits: Tensor) -> bool:
    """Whether no logit is NaN or +inf; -inf is how some models forbid a token."""
    return bool((logits < torch.inf).all())


def require_finite(
    logits: Tensor,
    engine: Engine,
    ids: Tensor,
    source: Tensor | None,
    edits: list[Edit],
    interventions: Sequence[Intervention],
    capture: Collection[tuple[str, int | None]] = (),
) -> None:
    """Raise NotFinite, saying where it begins, if the logits of a run of `ids` (1, position) are not finite.

    `source`: see `ForwardPass`. `edits` acted in the run, which kept `capture`; they come from `interventions`.
    """
    if is_finite(logits):
        return
    search = _Search(engine, source, edits, capture)
    try:
        engine.run(ids, search, use_cache=False)
    except _Found as found:
        place = f"at {found.site!r}" + ("" if found.layer is None else f" of layer {found.layer}")
        begins = f"{place}, position {found.position}"
        here = (e for e in edits if (e.site, e.layer) == (found.site, found.layer))
        cause = next((interventions[e.owner] for e in here), None)
        if cause is not None:
            raise NotFinite(f"the logits are not finite. It begins {begins}, where {cause!r} acts") from None
    else:
        begins = "in the logits themselves"
    raise NotFinite(f"the logits are not finite. It begins {begins}{_why(engine.model)}")


def require_finite_anywhere(model: nn.Module) -> None:
    """The same for a model whose parts could not be found: names the module whose output is not finite first."""
    found: list[str] = []

    def watch(path: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple | list) and output else output
            if not found and isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
                found.append(path)

        return hook

    handles = [m.register_forward_hook(watch(path)) for path, m in model.named_modules() if path]
    try:
        with torch.no_grad():
            logits = getattr(model(**Probe.of(model).inputs(), use_cache=False), "logits", None)
    finally:
        for handle in handles:
            handle.remove()
    if logits is not None and not is_finite(logits):
        begins = f"at the output of {found[0]!r}" if found else "in the logits themselves"
        raise NotFinite(f"the logits are not finite. It begins {begins}{_why(model)}")


def _why(model: nn.Module) -> str:
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f": the weight {name!r} holds values that are not finite"
    dtypes = {p.dtype for p in model.parameters()}
    return f"; {_REMEDY}" if torch.float16 in dtypes else ""


class _Found(Exception):
    """Ends the search at the first site whose value is not finite."""

    def __init__(self, site: str, layer: int | None, position: int) -> None:
        self.site, self.layer, self.position = site, layer, position


class _Search(ForwardPass):
    """A pass that looks at every value as it goes by, and keeps none."""

    def __init__(
        self, engine: Engine, source: Tensor | None, edits: list[Edit], capture: Collection[tuple[str, int | None]]
    ) -> None:
        super().__init__(engine, source, edits=edits)
        self._asked = {*capture, *((e.site, e.layer) for e in edits)}

    def wants(self, site: str, layer: int | None) -> bool:
        # Reading scores and pattern takes another way through attention: only where the run took it.
        return (site, layer) in self._asked or SITES[site].base not in ("scores", "pattern", "result")

    def visit(self, site: str, layer: int | None, x: Tensor) -> Tensor:
        x = super().visit(site, layer, x)
        # Scores are -inf by design.
        if SITES[site].base != "scores" and not x.isfinite().all():
            bad = ~standard(site, x, self.rows)[0].isfinite()  # (position, [head,] width)
            raise _Found(site, layer, int(bad.flatten(1).any(1).nonzero()[0, 0]))
        return x
