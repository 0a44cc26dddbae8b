"""Short names of experiments, as they stand on chips."""

from __future__ import annotations

from ..engine.interventions import Ablate, CutEdge, Intervention, Noise, Patch, Scale, Steer
from ..engine.sites import Index


def short_label(intervention: Intervention) -> str:
    """A few characters that say what an intervention does, such as "z L23H3 → 0"."""
    before, strength, after = label_parts(intervention)
    return before if strength is None else f"{before} {strength:g}{after}"


def label_parts(intervention: Intervention) -> tuple[str, float | None, str]:
    """A short label around the number that says how strong the intervention is, if there is one."""
    place = f"{intervention.site} {_place(intervention)}".strip()
    match intervention:
        case Scale(factor=factor):
            return f"{place} ×", factor, ""
        case Steer(strength=strength):
            return f"{place} +", strength, " · direction"
        case Noise(std=std):
            return f"{place} + noise", std, ""
    return _label(intervention, place), None, ""


def _label(intervention: Intervention, place: str) -> str:
    match intervention:
        case CutEdge(query=query, key=key, renormalize=renormalize):
            rest = "" if renormalize else ", rest kept"
            stack = "" if intervention.stack == "decoder" else f"{intervention.stack} "
            heads = stack + _at("L", intervention.layer) + _at("H", intervention.head)
            return f"{heads} cut {_or_all(query)} → {_or_all(key)}{rest}".strip()
        case Ablate(how="zero"):
            return f"{place} → 0"
        case Ablate(how=how):
            return f"{place} → {how}"
        case Patch(source_layer=None, source_position=None):
            return f"{place} patched"
        case Patch(source_layer=layer, source_position=position):
            start = f"{_at('L', layer)} {_at('@', position)}".strip()
            return f"{start} ⇢ {place}"
    return repr(intervention)


def _place(intervention: Intervention) -> str:
    head = _at("H", intervention.head)
    position = _at("@", intervention.position)
    entry = _at("#", getattr(intervention, "entry", None))
    return " ".join(part for part in (_at("L", intervention.layer) + head, position, entry) if part)


def _at(prefix: str, index: Index) -> str:
    return "" if index is None else prefix + _spell(index)


def _or_all(index: Index) -> str:
    return "all" if index is None else _spell(index)


def _spell(index: Index) -> str:
    if isinstance(index, slice):
        return f"{'' if index.start is None else index.start}:{'' if index.stop is None else index.stop}"
    return str(index) if isinstance(index, int) else ",".join(map(str, index or ()))
