"""Every family that transformers lists as a causal or masked language model, built tiny from its config."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

CAUSAL: tuple[str, ...] = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
MASKED: tuple[str, ...] = tuple(
    f"masked:{family}"
    for family in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if not CONFIG_MAPPING[family]().is_encoder_decoder
)
"""The same config may be that of a causal and of a masked language model: the latter's names begin so."""
FAMILIES = CAUSAL + MASKED

# Whatever a config calls its sizes, these are they. Heads of 8, so that every factor of a rotary split is whole.
_SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size",), 97),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "model_dim", "word_embed_proj_dim"), 32),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "n_inner", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size"), 48
    ),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), 4
    ),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads"),
        4,
    ),
    "num_key_value_heads": 2, "head_dim": 8, "rotary_dim": 4,
    "max_position_embeddings": 64, "n_positions": 64, "n_ctx": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "vocab_size_per_layer_input": 97, "hidden_size_per_layer_input": 8, "num_experts_per_token": 2,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "n_group": 1, "topk_group": 1,
    "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8,
    "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "linear_num_heads": 4, "linear_head_dim": 8, "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2, "swa_head_dim": 8,
    "mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "state_size": 8,
    "mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 8, "moe_shared_expert_intermediate_size": 16,
    "shared_experts_intermediate_size": 16, "index_n_heads": 4, "index_head_dim": 8,
}  # fmt: skip

# Sizes that change something only where the family has them by default.
_IF_SET: dict[str, Any] = {"sliding_window": 5}

_ALL_HEADS_OWN_KEYS = {"num_key_value_heads": 4}
"""Latent attention expands its keys to every head."""

_EXCEPTIONS: dict[str, dict[str, Any]] = {
    **{family: {"head_dim": 4} for family in ("axk1", "deepseek_v3", "longcat_flash", "youtu")},
    "bamba": {"attn_layer_indices": [1, 3]},
    "dots1": {"n_shared_experts": 1},
    "gemma3n_text": {"num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granite": {"residual_multiplier": 0.5},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
}
"""What the sizes above leave inconsistent in a family's own config."""


def tiny_config(family: str) -> PretrainedConfig:
    """The family's config with everything small. Raises whatever the config class does not accept."""
    name = family.removeprefix("masked:")
    config = _shrink(CONFIG_MAPPING[name], _EXCEPTIONS.get(name, {}))
    config.is_decoder = name == family
    return config


def _shrink(cls: type[PretrainedConfig], exceptions: dict[str, Any]) -> PretrainedConfig:
    default = cls()
    known = set(default.to_dict())
    aliases = getattr(cls, "attribute_map", {})
    settings = {name: value for name, value in _SIZES.items() if name in known and name not in aliases}
    settings |= {name: value for name, value in _IF_SET.items() if default.to_dict().get(name) is not None}
    settings |= _ALL_HEADS_OWN_KEYS if "kv_lora_rank" in known else {}
    for name in getattr(cls, "sub_configs", None) or {}:
        part = getattr(default, name, None)
        if part is not None:
            settings[name] = _shrink(type(part), exceptions.get(name, {}))
    return cls(**settings | exceptions)


def tiny(family: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A random model of the family, in eval mode."""
    torch.manual_seed(seed)
    kind = AutoModelForMaskedLM if family in MASKED else AutoModelForCausalLM
    model = kind.from_config(tiny_config(family))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:  # larger than at initialisation, or attention would be all but uniform
                weight.mul_(4.0)
            else:
                weight.add_(torch.randn_like(weight) * 0.1)
    return model.to(dtype).eval()
