"""A worker in a process of its own: requests come on stdin, what `answer` sends goes to stdout, framed by length."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import IO

from transformers import AutoModelForCausalLM

import interpwidgets as iw
from interpwidgets.engine.executor import answer


class Worker:
    """The process, from the side of the one who asks; `ask` is what `Remote` is given."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.worker", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, request: bytes) -> Generator[bytes, None, None]:
        done = False
        try:
            write(self._process.stdin, request)
            while (message := read(self._process.stdout)) is not None:
                yield message
            done = True
        finally:
            if not done:
                self.close()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def write(stream: IO[bytes], message: bytes) -> None:
    stream.write(struct.pack("<q", len(message)) + message)
    stream.flush()


def read(stream: IO[bytes]) -> bytes | None:
    """The next message; None at the end of an answer, or of the stream."""
    header = stream.read(8)
    size = struct.unpack("<q", header)[0] if len(header) == 8 else 0
    return stream.read(size) if size else None


def main() -> None:
    out = sys.stdout.buffer
    with (
        contextlib.redirect_stdout(sys.stderr),
        iw.Session(AutoModelForCausalLM.from_pretrained(sys.argv[1])) as session,
    ):
        while (request := read(sys.stdin.buffer)) is not None:
            answer(session, session.model, request, lambda message: write(out, message))
            write(out, b"")


if __name__ == "__main__":
    main()
