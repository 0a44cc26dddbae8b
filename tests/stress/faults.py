"""Faults that are put into a run: an error at any module, a signal at any point where Python can deliver one."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch

import interpwidgets as iw
from interpwidgets.engine.forward import Cancelled
from interpwidgets.engine.jobs import Ticket
from interpwidgets.engine.memory import NotEnoughMemory

from .state import CORRUPTED, PROMPT, state_of

INTERVENTIONS = (
    iw.Ablate("z", layer=1, head=2, how="mean"),
    iw.CutEdge(layer=0, head=1, query=6, key=3),
    iw.Patch("resid_post", layer=0, position=3, source=CORRUPTED),
)


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def interrupt() -> None:
    """Ctrl-C, as the kernel sends it: handled by the main thread at its next opportunity."""
    signal.raise_signal(signal.SIGINT)


def bug() -> None:
    raise ZeroDivisionError("a bug in a hook of the user's")


def leave() -> None:
    raise SystemExit("sys.exit() in a hook of the user's")


def stop() -> None:
    raise Cancelled


FAULTS: dict[str, tuple[Callable[[], None], type[BaseException] | tuple[type[BaseException], ...]]] = {
    "out of memory": (out_of_memory, (torch.OutOfMemoryError, NotEnoughMemory)),
    "interrupt": (interrupt, KeyboardInterrupt),
    "bug in a hook": (bug, ZeroDivisionError),
    "exit": (leave, SystemExit),
    "stop": (stop, Cancelled),
}


def operations(session) -> dict[str, Callable[[], Any]]:
    """What a cell can do with a session; none is answered from the cache."""

    def cold(ask: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            session._results.clear()
            return ask()

        return run

    pair = {"clean": PROMPT, "corrupted": CORRUPTED, "answer": 7, "foil": 11, "normalize": False}
    return {
        "run": cold(lambda: session.run(PROMPT)),
        "run with interventions": cold(lambda: session.run(PROMPT, ["pattern", "resid_mid", "z"], INTERVENTIONS)),
        "sweep": cold(lambda: iw.patch_sweep(session, **pair)),
        "sweep under interventions": cold(lambda: iw.patch_sweep(session, **pair, interventions=INTERVENTIONS[:2])),
        "lens": cold(lambda: iw.logit_lens(session, PROMPT, interventions=INTERVENTIONS)),
        "generate": cold(lambda: session.generate(PROMPT, 3, INTERVENTIONS[:1])),
        "check": cold(session.check),
        "second session": lambda: iw.Session(session.model).close(),
    }


@contextlib.contextmanager
def failing(module, before: bool, fault: Callable[[], None]) -> Iterator[None]:
    """A hook of the user's that fails."""
    register = module.register_forward_pre_hook if before else module.register_forward_hook
    handle = register(lambda *_: fault())
    try:
        yield
    finally:
        handle.remove()


def fail_at(session, operation: str, module: str, before: bool, fault: str) -> Counter:
    """Let one operation fail at one module; afterwards the model and its session are as they were."""
    model = session.model
    start = state_of(model)
    raise_it, kind = FAULTS[fault]
    raised = False
    with failing(model.get_submodule(module), before, raise_it):
        try:
            operations(session)[operation]()
        except kind:
            raised = True
    assert state_of(model) == start
    return Counter({"faults injected": int(raised), "model states compared": 1})


def stop_at_block(session, operation: str, block: int) -> Counter:
    """Press Stop when a job reaches a block."""
    model = session.model
    start = state_of(model)
    outcome = []

    def job(ticket: Ticket) -> None:
        try:
            operations(session)[operation]()
        except Cancelled:
            outcome.append("cancelled")

    ticket = Ticket(job)
    with failing(session.engine.architecture.blocks[block].module, True, ticket.cancel):
        ticket.run()
    assert state_of(model) == start
    return Counter({"faults injected": len(outcome), "model states compared": 1})


def points(call: Callable[[], Any]) -> int:
    """At how many points of a call Python could deliver a signal."""
    count = 0

    def profile(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_return")

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


def strike(call: Callable[[], Any], at: int) -> bool:
    """Run a call and interrupt it at a point of that number; whether the interrupt came out of it.

    CPython delivers a signal on entering a Python function, after a call into C and at the end of a loop's body; the
    first two are what a profile function sees. Python swallows an interrupt in a finalizer.
    """
    count = 0

    def profile(frame, event, arg):
        nonlocal count
        if event in ("call", "c_return"):
            count += 1
            if count == at:
                sys.setprofile(None)
                raise KeyboardInterrupt(f"at point {at}, in {frame.f_code.co_qualname}")

    sys.setprofile(profile)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def interrupt_at(session, operation: str, at: int) -> Counter:
    """Interrupt an operation of an open session."""
    start = state_of(session.model)
    struck = strike(operations(session)[operation], at)
    assert state_of(session.model) == start
    return Counter({"faults injected": int(struck), "model states compared": 1})


def interrupt_opening(model, at: int) -> Counter:
    """Interrupt `Session(model)`, with the close that follows if it had opened."""
    start = state_of(model)
    opened = []
    struck = strike(lambda: opened.append(iw.Session(model)), at)
    for session in opened:
        session.close()
    assert state_of(model) == start
    return Counter({"faults injected": int(struck), "model states compared": 1})


def interrupt_closing(model, at: int) -> Counter:
    """Interrupt `session.close()`; closing again finishes it."""
    start = state_of(model)
    session = iw.Session(model)
    struck = strike(session.close, at)
    session.close()
    assert state_of(model) == start
    return Counter({"faults injected": int(struck), "model states compared": 1})


def every_module(model) -> list[tuple[str, bool]]:
    """Every place for a fault: before and after every module of a model that has one."""
    return [(name, before) for name, _ in model.named_modules() for before in (True, False)]
