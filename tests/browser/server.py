"""Runs a web server of a front end for as long as a test needs it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
_PATIENCE = 120.0  # seconds until a server on a busy machine must have answered


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(command: list[str], url: str, folder: Path, **environment: str) -> Iterator[None]:
    """Run `command` in `folder`, where its log goes too, until the block ends; `url` answers once it is up.

    What it starts can import this repository's tests.
    """
    variables = os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=variables, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_for(url, process, folder / "server.log")
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended before it answered:\n{log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            process_waits(process)
    raise TimeoutError(f"nothing answered at {url}:\n{log.read_text()[-2000:]}")


def process_waits(process: subprocess.Popen[bytes], seconds: float = 0.5) -> None:
    """Give a process half a second, less if it ends."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return
