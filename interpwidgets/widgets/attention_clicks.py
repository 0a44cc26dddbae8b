"""Ablations of a head and cuts of an edge as clicks make them: found again among experiments, and as requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ..engine.interventions import Ablate, CutEdge, Intervention
from ..engine.sites import StackName, on_stack
from ..experiments import Experiment, Experiments


def ablation_of(entries: Iterable[Experiment], stack: StackName, layer: int, head: int) -> int | None:
    """The index of the first experiment that acts and ablates this head, at all positions; None if there is none."""
    return _first(entries, lambda i: _ablated(i) == (on_stack(stack, "z"), layer, head))


def cut_of(entries: Iterable[Experiment], stack: StackName, layer: int, head: int, query: int, key: int) -> int | None:
    """The index of the first experiment that acts and cuts this edge; None if there is none."""
    return _first(entries, lambda i: _cut(i) == (stack, layer, head, query, key))


def switch_on(experiments: Experiments, intervention: Intervention) -> None:
    """Add the intervention; one that is there, switched off, is switched on again."""
    there = _first(experiments.entries, lambda i: i == intervention, on=False)
    if there is None:
        experiments.append(intervention)
    else:
        experiments.toggle(there)


def requests_for(intervention: Intervention, stacks: Sequence[StackName]) -> Iterator[dict[str, Any]]:
    """The request, without its id, by which a click makes this intervention, or takes it back."""
    sites = {on_stack(stack, "z"): stack for stack in stacks}
    match intervention:
        case Ablate(reference=None) as i if (place := _ablated(i)) is not None and i.site in sites:
            _, layer, head = place
            yield {"op": "ablate", "layer": layer, "head": head, "how": i.how, "stack": sites[i.site]}
        case CutEdge() as i if (edge := _cut(i)) is not None:
            stack, layer, head, query, key = edge
            yield {
                "op": "cut", "layer": layer, "head": head, "query": query, "key": key, "renormalize": i.renormalize,
                "stack": stack,
            }  # fmt: skip


def single_cuts(acting: Iterable[Intervention], stack: StackName) -> list[list[int]]:
    """Cuts of one edge of one head of this stack, [layer, head, query, key] each."""
    return [list(edge) for of, *edge in filter(None, map(_cut, acting)) if of == stack]


def single_ablations(acting: Iterable[Intervention], stack: StackName) -> list[list[Any]]:
    """Ablations of one head of this stack at all positions, [layer, head, how] each."""
    site = on_stack(stack, "z")
    return [[i.layer, i.head, i.how] for i in acting if isinstance(i, Ablate) and _ablated(i) and i.site == site]


def _ablated(intervention: Intervention) -> tuple[str, int, int] | None:
    """Site, layer and head, if one head is ablated, all of it and at all positions."""
    match intervention:
        case Ablate(layer=int(layer), head=int(head), position=None, entry=None) as i:
            return i.site, layer, head
    return None


def _cut(intervention: Intervention) -> tuple[StackName, int, int, int, int] | None:
    """Stack, layer, head, query and key, if one edge is cut."""
    match intervention:
        case CutEdge(layer=int(layer), head=int(head), query=int(query), key=int(key)) as i:
            return i.stack, layer, head, query, key
    return None


def _first(entries: Iterable[Experiment], fits: Callable[[Intervention], bool], *, on: bool = True) -> int | None:
    return next((n for n, e in enumerate(entries) if e.on == on and fits(e.intervention)), None)
