"""Every encoder-decoder family of transformers, built tiny: Hugging Face's values, or refused for a known reason."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForSeq2SeqLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

import interpwidgets as iw
from tests.conformance.checks import same
from tests.conformance.families import _shrink

SOURCE, TARGET = (5, 17, 33, 48, 61, 70, 80), (7, 8, 11, 40)

_UNSET = ("encoder-decoder", "nemo_speechlm")
"""Configs that say nothing without those of their parts."""

FAMILIES = [
    family
    for family in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    if family not in _UNSET and CONFIG_MAPPING[family]().is_encoder_decoder
]

REFUSED = {
    "fsmt": "found in FSMTForConditionalGeneration",  # positions come first, prompts second
    "led": "found in the encoder of LEDForConditionalGeneration",  # the source is padded to whole windows
    "pegasus_x": "found in the encoder of PegasusXForConditionalGeneration",
    "prophetnet": "found in ProphetNetForConditionalGeneration",  # several streams, one for each n-gram
    "t5gemma2": "15 keys for 6 positions and 9 of the encoder",  # one softmax over both texts
}
NO_ENCODER_PATTERN = ("longt5",)  # attention in windows
"""What is not of the form that sessions need, and how that is said."""


def tiny_pair(family: str) -> PreTrainedModel:
    config = _shrink(CONFIG_MAPPING[family], {})
    for name, value in {"d_kv": 8, "num_decoder_layers": 4, "is_decoder": False}.items():
        if hasattr(config, name):
            setattr(config, name, value)
    config.decoder_start_token_id = 2
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:  # larger than at initialisation, or attention would be all but uniform
                weight.mul_(4.0)
            else:
                weight.add_(torch.randn_like(weight) * 0.1)
    return model.eval()


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in REFUSED])
def test_three_attentions_and_both_streams_are_hugging_faces(family):
    model = tiny_pair(family)
    twin = copy.deepcopy(model)
    twin.set_attn_implementation("eager")
    ids = {"input_ids": torch.tensor([SOURCE]), "decoder_input_ids": torch.tensor([(2, *TARGET)])}
    with torch.no_grad():
        plain = twin(**ids, output_attentions=True, output_hidden_states=True)
    theirs = {
        "pattern": plain.decoder_attentions, "encoder.pattern": plain.encoder_attentions,
        "cross.pattern": plain.cross_attentions, "resid_pre": plain.decoder_hidden_states[:-1],
        "encoder.resid_pre": plain.encoder_hidden_states[:-1],
    }  # fmt: skip
    with iw.Session(model) as session:
        sites = [s for s in theirs if not (s == "encoder.pattern" and family in NO_ENCODER_PATTERN)]
        run = session.run(iw.SourceTarget(SOURCE, TARGET), capture=sites)
        same(run.logits.values, plain.logits[0], "logits")
        for site in sites:
            same(run[site].values, torch.stack(theirs[site])[:, 0], site)
        for stack in ("decoder", "encoder", "cross"):
            if stack != "encoder" or "encoder.pattern" in sites:
                _cut_is_out(session, run, stack)
        written = model.generate(ids["input_ids"], do_sample=False, num_beams=1, max_new_tokens=5)
        assert list(session.generate(SOURCE, 5).ids) == written[0].tolist()


def _cut_is_out(session: iw.Session, before: iw.Run, stack: iw.engine.sites.StackName) -> None:
    site = iw.engine.sites.on_stack(stack, "pattern")
    layer, query = 1, 3
    pattern = before.tensor(site, layer)  # (query, head, key)
    # An edge that matters, and that is not all of its row: what is left is scaled up.
    head, key = divmod(int((pattern[query] - 0.3).abs().argmin()), pattern.shape[-1])
    expected = pattern.clone()
    expected[query, head, key] = 0
    expected[query, head] /= expected[query, head].sum()
    cut = iw.CutEdge(layer=layer, head=head, query=query, key=key, stack=stack)
    # The same captures: fused and written-out attention round apart, and unscaled scores make much of it.
    after = session.run(before.tokens, capture=list(before.captured), interventions=[cut])
    same(after.tensor(site, layer), expected, repr(cut))
    assert (after.logits.values != before.logits.values).any()


@pytest.mark.parametrize("family", REFUSED)
def test_what_is_refused_says_why(family):
    with pytest.raises(iw.UnsupportedModel, match=REFUSED[family]):
        iw.Session(tiny_pair(family))
