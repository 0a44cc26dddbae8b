"""nnterp 1.3 in a process of its own: `python -m tests.parity.nnterp_oracle OUT.npz FAMILY...`, or "demo".

Importing nnsight, on which nnterp rests, replaces `torch.Tensor.backward` and `torch.autocast.__init__`, and its first
trace gives every Python object a `save` method: nothing that the tests of another package should run under.

Arrays are named "family/accessor"; per-layer ones are stacked, (layer, ...), without batch.
"""

from __future__ import annotations

import sys

import nnsight
import numpy as np
import torch
from nnterp import StandardizedTransformer
from nnterp.interventions import TargetPrompt, logit_lens, patchscope_lens
from nnterp.rename_utils import RenameConfig, default_attention_prob_source
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from interpwidgets.demo_model import demo_model_path
from tests.models import tiny

PROMPT = (5, 17, 3, 44, 17, 60, 8, 91)
SOURCE = (21, 9, 30, 12)
TARGET_POSITION = 4
STEERED = {"layer": 1, "position": 5, "factor": 2.5}


def standardized(family: str) -> StandardizedTransformer:
    """The model, eager, with a tokenizer that reads "5 17 3" as these ids."""
    vocabulary = {str(i): i for i in range(97)} | {"<pad>": 97}
    numbers = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    numbers.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=numbers, pad_token="<pad>", padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(demo_model_path()) if family == "demo" else tiny(family)
    model = model.eval().requires_grad_(False)
    model.set_attn_implementation("eager")
    # nnterp knows another name for GPT-2's attention dropout than transformers 5 has.
    renamed = RenameConfig(attn_prob_source=default_attention_prob_source) if family == "gpt2" else None
    return StandardizedTransformer(model, tokenizer=tokenizer, enable_attention_probs=True, rename_config=renamed)


def written(ids: tuple[int, ...]) -> str:
    return " ".join(map(str, ids))


def direction(width: int) -> torch.Tensor:
    return torch.linspace(-1, 1, width)


def read(model: StandardizedTransformer) -> dict[str, np.ndarray]:
    layers = range(model.num_layers)
    with model.trace(torch.tensor([PROMPT])):
        found = {"token_embeddings": model.token_embeddings}
        stacked = {
            "layers_input": [], "attention_probabilities": [], "attentions_output": [], "mlps_output": [],
            "layers_output": [], "project_on_vocab": [],
        }  # fmt: skip
        for i in layers:
            stacked["layers_input"].append(model.layers_input[i][0])
            stacked["attention_probabilities"].append(model.attention_probabilities[i][0])
            stacked["attentions_output"].append(model.attentions_output[i][0])
            stacked["mlps_output"].append(model.mlps_output[i][0])
            stacked["layers_output"].append(model.layers_output[i][0])
            stacked["project_on_vocab"].append(model.project_on_vocab(stacked["layers_output"][i]))
        found["logits"] = model.logits
        found = nnsight.save({k: v[0] for k, v in found.items()} | {k: torch.stack(v) for k, v in stacked.items()})
    return {name: value.numpy() for name, value in found.items()}


def intervene(model: StandardizedTransformer) -> dict[str, np.ndarray]:
    target = TargetPrompt(written(PROMPT), TARGET_POSITION)
    with model.trace(torch.tensor([PROMPT])):
        steered_by = direction(model.hidden_size)
        model.steer(STEERED["layer"], steered_by, STEERED["factor"], token_positions=STEERED["position"])
        steered = nnsight.save(model.logits[0])
    return {
        "logit_lens": logit_lens(model, written(PROMPT))[0].numpy(),  # (layer, token), at the last position
        "patchscope_lens": patchscope_lens(model, written(SOURCE), target)[0].numpy(),  # (layer, token)
        "steer": steered.numpy(),
    }


def main(out: str, *families: str) -> None:
    arrays = {}
    for family in families:
        model = standardized(family)
        arrays |= {f"{family}/{name}": value for name, value in (read(model) | intervene(model)).items()}
    np.savez(out, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
