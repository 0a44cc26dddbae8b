"""Where attention is: the stacks, heads and edges that a model and a prompt have; others are refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..engine.sites import SITES, StackName, on_stack
from ..session import Session
from ..tokens import Tokens
from .wire import whole

if TYPE_CHECKING:
    from ..engine.architecture import Stack


def stacks_of(session: Session) -> list[StackName]:
    """The stacks of which any layer shows its pattern; a model without an encoder is one."""
    engine = session.engine
    counted = [(name, range(stack.n_layers)) for name, stack in engine.architecture.stacks.items()]
    seen = [name for name, layers in counted if any(on_stack(name, "pattern") in engine.sites(i, name) for i in layers)]
    return seen if engine.has_encoder else ["decoder"]


def stack_named(session: Session, name: StackName) -> Stack:
    """The stack's layers and heads. Raises ValueError if it shows no attention."""
    if name not in stacks_of(session):
        have = ", ".join(map(repr, stacks_of(session)))
        raise ValueError(f"{session.name} shows no attention in stack {name!r}: it has {have}")
    return session.engine.architecture.stacks[name]


def axes_of(tokens: Tokens, stack: StackName) -> tuple[Tokens, Tokens]:
    """The tokens that are queries and those that are keys."""
    site = SITES[on_stack(stack, "pattern")]
    return tokens.of(site), tokens.keys_of(site)


def is_causal(session: Session, stack: StackName) -> bool:
    """Whether queries see only what comes before them."""
    return stack == "decoder" and session.causal


def rests(queries: Tokens, stack: StackName) -> bool:
    """Whether position 0 is where heads rest, and may be hidden."""
    return len(queries) > 1 and (stack == "decoder" or (stack == "encoder" and queries.special[0]))


def head_name(stack: StackName, layer: int, head: int) -> str:
    """A head in short, as papers write it."""
    return ("" if stack == "decoder" else f"{stack} ") + f"L{layer}H{head}"


def check_head(session: Session, layer: Any, head: Any, stack: StackName) -> None:
    """Raises TypeError or ValueError for a head that the stack does not have."""
    a = stack_named(session, stack)
    if not 0 <= whole(layer, "layer") < a.n_layers or not 0 <= whole(head, "head") < a.n_heads[layer]:
        have = f"layers 0 to {a.n_layers - 1}, heads 0 to {max(a.n_heads) - 1}"
        what = "this model" if stack == "decoder" else f"its {stack}"
        raise ValueError(f"there is no attention head {head} in layer {layer}: {what} has {have}")


def check_edge(session: Session, query: Any, key: Any, stack: StackName, tokens: Tokens) -> None:
    """Raises TypeError or ValueError for an edge that the prompt does not have."""
    queries, keys = (len(tokens) for tokens in axes_of(tokens, stack))
    causal = is_causal(session, stack)
    in_prompt = 0 <= whole(key, "key") < keys and 0 <= whole(query, "query") < queries
    if not in_prompt or (causal and key > query):
        before = "keys come before queries, and " if causal else ""
        there = f"{queries} tokens" if queries == keys else f"{queries} queries and {keys} keys"
        raise ValueError(f"no edge from query {query} to key {key}: {before}there are {there}")
