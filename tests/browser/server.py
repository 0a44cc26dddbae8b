"""Runs a web server of a front end for as long as a test needs it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).parents[2]
_PATIENCE = 120.0  # seconds until a server on a busy machine must have answered


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Process:
    """A server of a front end, which can be ended and started again at its place."""

    command: list[str]
    url: str
    folder: Path
    environment: dict[str, str]

    def start(self) -> None:
        """Come back once it answers."""
        variables = os.environ | {"PYTHONPATH": str(REPOSITORY)} | self.environment
        with (self.folder / "server.log").open("w") as log:
            self._process = subprocess.Popen(
                self.command, env=variables, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT
            )
        _wait_for(self.url, self._process, self.folder / "server.log")

    def kill(self) -> None:
        """End it and what it has started without a word, as a machine that runs out of memory would."""
        everything = [self._process.pid, *(child.pid for child in psutil.Process(self._process.pid).children(True))]
        for number in everything:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def serving(command: list[str], url: str, folder: Path, **environment: str) -> Iterator[Process]:
    """Run `command` in `folder`, where its log goes too, until the block ends; `url` answers once it is up.

    What it starts can import this repository's tests.
    """
    process = Process(command, url, folder, environment)
    try:
        process.start()
        yield process
    finally:
        process.stop()


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


def process_waits(process: subprocess.Popen[bytes], seconds: float = 0.1) -> None:
    """Give a process a moment, less if it ends."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return
