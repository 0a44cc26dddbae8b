"""Tiny random models of many families, built from their configs: no download, the real modelling code."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

_COMMON: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {
        "vocab_size": 97, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64, "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "gpt_neox": {**_COMMON, "use_parallel_residual": True},
    "gpt_neox-sequential": {**_COMMON, "use_parallel_residual": False},
    "llama": _COMMON,
    "mistral": {**_COMMON, "sliding_window": 5},
    "qwen2": _COMMON,
    "qwen3": {**_COMMON, "head_dim": 8},
    "gemma2": {
        **_COMMON, "head_dim": 8, "sliding_window": 5, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0,
    },
    "gemma3_text": {**_COMMON, "head_dim": 8, "sliding_window": 5},
    "phi": _COMMON,
    "opt": {**_COMMON, "ffn_dim": 48, "word_embed_proj_dim": 32},
}  # fmt: skip


def tiny(family: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model of this family, float32, eval; weights large enough that attention is far from uniform."""
    settings = {**FAMILIES[family], **changes}
    name = family.partition("-")[0]
    torch.manual_seed(seed)
    return _random(AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **settings)))


def random_ids(length: int, seed: int = 0) -> list[int]:
    """A prompt of that many tokens, none of them special."""
    return torch.randint(3, 97, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


_PAIR: dict[str, Any] = {"vocab_size": 97, "d_model": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_T5: dict[str, Any] = {
    **_PAIR, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4, "decoder_start_token_id": 0,
}  # fmt: skip
_BART: dict[str, Any] = {
    **_PAIR, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 2, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 40, "max_position_embeddings": 64, "decoder_start_token_id": 2,
}  # fmt: skip

ENCODER_DECODERS: dict[str, dict[str, Any]] = {
    "t5": _T5,
    "t5-gated": {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "t5-shallow": {**_T5, "num_layers": 1},
    "umt5": {**_T5, "num_layers": 2},
    "bart": _BART,
    "mbart": _BART,
    "marian": _BART,
    "pegasus": _BART,
    "mvp": _BART,
    "switch_transformers": {
        **_T5,
        "num_decoder_layers": 3,
        "num_sparse_encoder_layers": 1,
        "num_sparse_decoder_layers": 1,
        "num_experts": 4,
    },
}


def encoder_decoder(family: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random encoder-decoder of this family, as `tiny`; in BART's, the stacks differ in layers, heads and widths."""
    settings = {**ENCODER_DECODERS[family], **changes}
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family.partition("-")[0], **settings)
    model = _random(AutoModelForSeq2SeqLM.from_config(config))
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_()
    return model


def _random(model: PreTrainedModel) -> PreTrainedModel:
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0.0, 0.3)
            else:
                weight.add_(torch.randn_like(weight) * 0.1)
    return model.eval()
