"""What a measurement was made on and under: the machine, the versions, torch's threads, the load."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import psutil
import torch

from . import peers


def described() -> list[str]:
    """Lines of facts that hold for a whole run."""
    gpu = [f"GPU: {torch.cuda.get_device_name()}"] if torch.cuda.is_available() else []
    return [
        f"{_processor()}, {os.cpu_count()} CPUs, {psutil.virtual_memory().total / 2**30:.0f} GiB; {platform.system()}",
        *gpu,
        f"torch: {torch.get_num_threads()} threads, one process; peers have the same parameters in memory",
        f"Python {platform.python_version()}, " + ", ".join(f"{k} {v}" for k, v in peers.versions().items()),
        time.strftime("%Y-%m-%d"),
    ]


def load() -> str:
    """Load averages over 1, 5 and 15 minutes."""
    return " ".join(f"{average:.1f}" for average in os.getloadavg())


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
