"""Which models a session takes: what its check proves, what it refuses, and loading from a folder."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertLMHeadModel,
    LlamaForCausalLM,
)

import interpwidgets as iw
from tests.models import FAMILIES, tiny
from tests.tiny_tokenizers import VOCABULARY, byte_level
from tests.unit.test_session import PROMPT, hooks, off_by, plain


@pytest.mark.parametrize("family", FAMILIES)
def test_the_check_passes_and_says_what_it_tested(family):
    with iw.Session(tiny(family)) as session:
        check = session.check()
        assert check.ok
        assert check.one_pass
        assert all(0 <= item.error < 1e-4 for item in check.items)
        assert len(check.items) == 4
        assert check.summary.startswith("matches Hugging Face")


class Louder(LlamaForCausalLM):
    """Mixes neighbouring logits: no final norm and unembedding alone gives that."""

    mixes = True

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        if self.mixes:
            out.logits = out.logits + out.logits.roll(1, -1)
        return out


def test_a_model_whose_readout_is_not_understood_is_refused():
    model = Louder(tiny("llama").config).eval()
    with pytest.raises(iw.UnsupportedModel, match="readout of Louder could not be reproduced"):
        iw.Session(model)
    assert hooks(model) == 0
    assert model.config._attn_implementation == "sdpa"


def test_a_model_that_breaks_later_fails_the_check():
    model = Louder(tiny("llama").config).eval()
    model.mixes = False
    with iw.Session(model) as session:
        model.mixes = True
        with pytest.raises(iw.UnsupportedModel, match="unembedded last residual equals the logits: off by"):
            session.check()


def test_a_model_without_its_unembedding_is_refused_with_a_way_out():
    with pytest.raises(iw.UnsupportedModel, match="LlamaModel gives no logits: load it with AutoModelForCausalLM"):
        iw.Session(tiny("llama").model)


SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip


def test_a_language_model_that_reads_ahead_is_refused_rather_than_swept_as_if_causal():
    model = BertLMHeadModel(BertConfig(**SIZES)).eval()
    with pytest.raises(iw.UnsupportedModel, match=r"BertLMHeadModel is not causal.*config\.is_decoder=True"):
        iw.Session(model)
    assert hooks(model) == 0
    with iw.Session(BertLMHeadModel(BertConfig(**SIZES, is_decoder=True)).eval()) as session:
        assert session.causal


def test_load_takes_a_folder(tmp_path):
    model = tiny("llama", vocab_size=VOCABULARY)
    model.save_pretrained(tmp_path)
    byte_level(add_bos=True).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    with iw.load(str(tmp_path)) as session:
        assert session.name == tmp_path.name
        assert session.model.dtype == torch.float32
        run = session.run("the the")
        assert run.tokens.strings == ("<s>", "the", "␣the")
        assert off_by(run, plain(model, run.tokens.ids)) < 1e-6
    with iw.load(str(tmp_path), dtype=torch.bfloat16) as session:
        assert session.engine.dtype_name == "bfloat16"


def test_code_that_comes_with_a_model_is_not_run_unless_asked(tmp_path):
    ran = tmp_path / "ran"
    code = f"from pathlib import Path\nPath({str(ran)!r}).touch()\n"
    (tmp_path / "modeling.py").write_text(code)
    settings = {"model_type": "strange", "auto_map": {"AutoConfig": "modeling.C", "AutoModelForCausalLM": "modeling.M"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="trust_remote_code"):
        iw.load(str(tmp_path))
    assert not ran.exists()


def test_bfloat16_is_run_as_it_is():
    model = tiny("llama").to(torch.bfloat16)
    with iw.Session(model) as session:
        assert session.checked.ok
        run = session.run(PROMPT, capture=["pattern", "resid_post"])
        # Reading the pattern takes attention written out, which rounds at other places than the fused kernel.
        assert off_by(run, plain(model)) < 3e-2
        assert off_by(session.run((5, 17)), plain(model, (5, 17))) == 0
        assert np.abs(run["pattern"].sum("key") - 1).max() < 2e-2
        assert run["resid_post"].dtype == np.float32


def test_importing_the_package_pulls_in_no_torch():
    code = (
        "import sys, interpwidgets as iw; dir(iw); iw.__all__;"
        "print(sorted({'torch', 'transformers', 'anywidget', 'plotly'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_loading_never_unpickles(tmp_path):
    folder, trap = tmp_path / "model", tmp_path / "unpickled"
    tiny("llama", vocab_size=VOCABULARY).config.save_pretrained(folder)
    byte_level(add_bos=True).save_pretrained(folder)
    torch.save({"model.embed_tokens.weight": Trap(trap)}, folder / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"A pickle can run code, so iw.load reads none: .*save_pretrained"):
        iw.load(str(folder))
    with pytest.raises(ValueError, match=r"iw.load reads safetensors only"):
        iw.load(str(folder), use_safetensors=False)
    assert not trap.exists()


def test_a_pickle_beside_safetensors_is_left_alone(tmp_path):
    folder, trap = tmp_path / "model", tmp_path / "unpickled"
    tiny("llama", vocab_size=VOCABULARY).save_pretrained(folder)
    byte_level(add_bos=True).save_pretrained(folder)
    torch.save({"model.embed_tokens.weight": Trap(trap)}, folder / "pytorch_model.bin")
    with iw.load(str(folder)) as session:
        assert session.checked.ok
    assert not trap.exists()


def test_code_that_comes_with_a_model_is_refused_with_how_to_allow_it(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"model_type": "strange", "auto_map": {"AutoConfig": "modeling.C", "AutoModelForCausalLM": "modeling.M"}}'
    )
    (tmp_path / "modeling.py").write_text("raise SystemExit")
    with pytest.raises(ValueError, match=r"iw.load\('.*', trust_remote_code=True\) runs that code: do so only if"):
        iw.load(str(tmp_path))


def test_a_folder_without_a_tokenizer_is_refused_with_a_way_out(tmp_path):
    tiny("llama").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"To run token ids without one: iw.Session\(AutoModelForCausalLM.from_pre"):
        iw.load(str(tmp_path))


def test_a_folder_that_is_not_there_is_answered_with_the_nearest(tmp_path):
    (tmp_path / "my-model").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no folder '.*my-modle'; did you mean 'my-model'"):
        iw.load(str(tmp_path / "my-modle"))
    with pytest.raises(FileNotFoundError, match=r"no folder './models/mine'\. A Hugging Face id is"):
        iw.load("./models/mine")


def test_a_name_without_a_network_is_answered_with_the_demo_model(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=r"'gtp2' is neither a folder here .* iw.load\(\) opens the demo model"):
        iw.load("gtp2", cache_dir=str(tmp_path))
