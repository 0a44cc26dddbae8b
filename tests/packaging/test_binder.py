"""Binder's steps, run in a fresh environment without Docker: install, postBuild, start, the tour."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
MEMORY_LIMIT_MB = 2000

PEAK_MEMORY = """
import resource, sys
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1_000_000 if sys.platform == "darwin" else 1000))
"""


def run(*command: str | Path, environment: dict[str, str], cwd: Path) -> None:
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of what Binder gets: its steps write into the folder where they run."""
    copy = tmp_path_factory.mktemp("binder") / "repository"
    copy.mkdir()
    for name in ("binder", "interpwidgets", "notebooks"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    yield copy
    # The environment beside it takes more than a gigabyte, and pytest would keep it.
    shutil.rmtree(copy.parent)


@pytest.fixture(scope="module")
def environment(repository: Path) -> dict[str, str]:
    """The environment variables of a shell in which binder/requirements.txt is installed."""
    venv = repository.parent / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    environment = os.environ | {
        "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(venv),
        "INTERPWIDGETS_CACHE": str(repository.parent / "cache"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    environment.pop("PYTHONPATH", None)
    lines = (repository / "binder" / "requirements.txt").read_text().splitlines()
    (index,) = [line for line in lines if line.startswith("--extra-index-url")]
    rest = repository / "binder" / "requirements-without-index.txt"
    rest.write_text("\n".join(line for line in lines if line != index))
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--no-compile"]
    # Where PyTorch's index is out of reach, asking it for every package would take pip half an hour.
    torch = [*pip, "--no-deps", "--timeout", "15", "--retries", "1", *index.split()]
    run(*torch, "-c", "constraints.txt", "torch", environment=environment, cwd=repository)
    run(*pip, "-r", str(rest), environment=environment, cwd=repository)
    return environment


def test_tour_runs_within_binders_memory(repository: Path, environment: dict[str, str], capsys) -> None:
    binder = repository / "binder"
    run(binder / "postBuild", environment=environment, cwd=repository)
    notebook = nbformat.read(repository / "notebooks" / "00_tour.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(PEAK_MEMORY))
    nbformat.write(notebook, repository / "notebooks" / "tour.ipynb")

    execute = ["jupyter", "execute", "--inplace", "--timeout=300", "notebooks/tour.ipynb"]
    run(binder / "start", *execute, environment=environment | {"HF_HUB_OFFLINE": "1"}, cwd=repository)

    executed = nbformat.read(repository / "notebooks" / "tour.ipynb", as_version=4)
    peak = int(executed.cells[-1].outputs[0].text)
    with capsys.disabled():
        print(f"\n[binder] the tour's kernel used at most {peak} MB of {MEMORY_LIMIT_MB} MB")
    assert peak < MEMORY_LIMIT_MB
