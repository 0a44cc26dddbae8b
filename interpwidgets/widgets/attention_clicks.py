"""Ablations of a head and cuts of an edge as clicks make them: found again among experiments, and as requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..engine.interventions import Ablate, CutEdge, Intervention
from ..engine.sites import StackName, on_stack
from ..experiments import Experiment


def ablation_of(entries: Iterable[Experiment], stack: StackName, layer: int, head: int) -> int | None:
    """The index of the first experiment that ablates this head, at all positions; None if there is none."""
    for i, experiment in enumerate(entries):
        match experiment.intervention:
            case Ablate(layer=int(at), head=int(which), position=None) as ablation:
                if (ablation.site, at, which) == (on_stack(stack, "z"), layer, head):
                    return i
    return None


def cut_of(entries: Iterable[Experiment], stack: StackName, layer: int, head: int, query: int, key: int) -> int | None:
    """The index of the first experiment that cuts this edge; None if there is none."""
    for i, experiment in enumerate(entries):
        match experiment.intervention:
            case CutEdge(layer=int(), head=int(), query=int(), key=int()) as cut:
                if (cut.stack, cut.layer, cut.head, cut.query, cut.key) == (stack, layer, head, query, key):
                    return i
    return None


def requests_for(intervention: Intervention, stacks: Sequence[StackName]) -> Iterator[dict[str, Any]]:
    """The request, without its id, by which a click makes this intervention, or takes it back."""
    sites = {on_stack(stack, "z"): stack for stack in stacks}
    match intervention:
        case Ablate(layer=int(), head=int(), position=None) as i if i.site in sites:
            yield {"op": "ablate", "layer": i.layer, "head": i.head, "how": i.how, "stack": sites[i.site]}
        case CutEdge(layer=int(), head=int(), query=int(), key=int()) as i:
            yield {
                "op": "cut", "layer": i.layer, "head": i.head, "query": i.query, "key": i.key,
                "renormalize": i.renormalize, "stack": i.stack,
            }  # fmt: skip


def single_cuts(acting: Iterable[Intervention], stack: StackName) -> list[list[int]]:
    """Cuts of one edge of one head of this stack, [layer, head, query, key] each."""
    cuts = (i for i in acting if isinstance(i, CutEdge) and i.stack == stack)
    places = ([i.layer, i.head, i.query, i.key] for i in cuts)
    return [[x for x in place if isinstance(x, int)] for place in places if all(isinstance(x, int) for x in place)]


def single_ablations(acting: Iterable[Intervention], stack: StackName) -> list[list[Any]]:
    """Ablations of one head of this stack, [layer, head, how] each."""
    site = on_stack(stack, "z")
    ablations = (i for i in acting if isinstance(i, Ablate) and i.site == site)
    return [[i.layer, i.head, i.how] for i in ablations if isinstance(i.layer, int) and isinstance(i.head, int)]
