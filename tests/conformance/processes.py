"""Runs each family in a process of its own: a memory limit, a time limit, and no state left to the next."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

MEMORY = 6 << 30
"""Bytes of address space that one family may take."""
SECONDS = 900
"""How long one family may take: most take one; Kimi's linear attention has a slow reference implementation only."""


def examine_all(families: Iterable[str], jobs: int = 2) -> Iterator[tuple[str, dict[str, str], float]]:
    """Give (family, outcomes of its checks, seconds) as they end, `jobs` at a time."""
    # A server that has imported everything and run nothing: forking from it is quick, and no thread is lost in it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.conformance.checks", "tests.conformance.families"])
    waiting, running = list(families)[::-1], {}
    while waiting or running:
        while waiting and len(running) < jobs:
            family = waiting.pop()
            mine, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_examine, args=(family, theirs))
            process.start()
            theirs.close()
            running[mine] = (family, process, time.monotonic())
        ended = wait(list(running), timeout=1.0)
        for connection, (family, process, started) in list(running.items()):
            took = time.monotonic() - started
            if connection in ended:
                yield family, _received(connection, process), took
            elif took > SECONDS:
                process.kill()
                yield family, {"model": f"FAIL: took more than {SECONDS} s"}, took
            else:
                continue
            process.join()
            del running[connection]


def _received(connection: Connection, process: Any) -> dict[str, str]:
    try:
        return connection.recv()
    except EOFError:
        process.join()
        return {"model": f"FAIL: the process ended with {process.exitcode}"}


def _examine(family: str, connection: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    import torch

    from tests.conformance.checks import examine
    from tests.conformance.families import tiny

    torch.set_num_threads(1)
    try:
        model = tiny(family)
        with torch.no_grad():
            model(input_ids=torch.tensor([[5, 17, 33]]), use_cache=False)
    except Exception as error:  # noqa: BLE001 - what does not build is listed with the reason
        outcomes = {"model": f"not built: {type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    else:
        outcomes = {"model": type(model).__name__, **examine(model)}
    connection.send(outcomes)
