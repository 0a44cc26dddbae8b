"""How our sweep's time grows with the prompt's length, the model's depth and torch's threads."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

import interpwidgets as iw
from tests.models import tiny

from . import floor, peers
from .workloads import DEMO, DemoPrompts, Pair, Workload, model_of, random_pair

LENGTHS = (15, 32, 64, 128, 256, 512, 1024)
DEPTHS = (3, 6, 12, 24)


@dataclass(frozen=True)
class Curve:
    """Seconds of a sweep over something that grows, and the operations it needs."""

    what: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    operations: tuple[int, ...]

    @property
    def exponent(self) -> float:
        """Slope of log seconds over log size, by least squares."""
        return _slope(self.sizes, self.seconds)

    @property
    def expected(self) -> float:
        """The same slope of the operations."""
        return _slope(self.sizes, self.operations)


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def curves(*, quick: bool) -> list[Curve]:
    """Over length with the last 16 tokens and with all tokens differing, and over depth."""
    if quick:
        model = small = tiny("llama")
        late = [random_pair(97, n, n - 4) for n in (8, 16, 32)]
        early = [random_pair(97, n, 1) for n in (8, 16, 32)]
        deep = [tiny("gpt2", n_layer=n) for n in (2, 4)]
    else:
        model, small, say = model_of(DEMO, False), _gpt2(2, 128), DemoPrompts()
        late = [say.long(n, 16) for n in LENGTHS[1:]]
        early = [random_pair(50257, n, 1) for n in LENGTHS[:-1]]
        deep = [_gpt2(n, 768) for n in DEPTHS]
    depth_pair = random_pair(97, 15, 5)
    return [
        _curve("tokens, the last 16 may differ", [(model, pair) for pair in late]),
        _curve("tokens, all but the first may differ (random, 2 layers, width 128)", [(small, pair) for pair in early]),
        _curve("layers (random, width 768; 15 tokens, the last 10 may differ)", [(m, depth_pair) for m in deep], True),
    ]


def _gpt2(layers: int, width: int) -> PreTrainedModel:
    """A random model of this depth and width; heads of width 64."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_layer=layers, n_embd=width, n_head=width // 64)).eval()


def _curve(what: str, steps: list[tuple[PreTrainedModel, Pair]], by_depth: bool = False) -> Curve:
    sizes, seconds, operations = [], [], []
    for model, pair in steps:
        workload = Workload(what, "", (pair,))
        sizes.append(model.config.num_hidden_layers if by_depth else len(pair.clean))
        seconds.append(_seconds(model, workload))
        operations.append(floor.operations(model, workload))
    return Curve(what, tuple(sizes), tuple(seconds), tuple(operations))


def _seconds(model: PreTrainedModel, workload: Workload, runs: int = 3) -> float:
    """The median of cold runs; of one that takes long, that one."""
    with iw.Session(model) as session:
        run = peers.interpwidgets(session, workload)
        times: list[float] = []
        while len(times) < runs and sum(times) < 20:
            start = time.perf_counter()
            run(())
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def by_threads(*, quick: bool) -> dict[int, float]:
    """Seconds of the IOI sweep by the number of torch's threads."""
    model = model_of(DEMO, quick)
    pair = random_pair(97, 15, 10) if quick else DemoPrompts().ioi()
    counts = sorted({1, *(n for n in (2, 4, 8, 16, 32) if n < (os.cpu_count() or 1)), os.cpu_count() or 1})
    found = {}
    for count in counts:
        with _threads(count):
            found[count] = _seconds(model, Workload("IOI", "", (pair,)), runs=5)
    return found


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
