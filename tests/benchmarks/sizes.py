"""What sweeps take on models of other sizes: the table of CONTRIBUTING.md, `python -m tests.benchmarks.sizes`.

The models are built without weights (on torch's meta device), and the sweeps planned by the engine's own planner.

Shapes: the configs of SmolLM2-135M and Llama 3.2 1B; for 8B, 70B and 405B "The Llama 3 Herd of Models", arXiv
2407.21783, table 3, with the vocabulary of 128,256 of their configs.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from interpwidgets.engine.engine import Engine
from interpwidgets.engine.packed import Span
from interpwidgets.engine.plan import make_plan, row_bytes

BUDGET = 2**30
_BYTES = 2  # of a number in bfloat16
PROMPTS = ((15, 10), (1024, 1008))  # tokens, and the first that differs

SHAPES: dict[str, dict[str, Any]] = {
    "135M": {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
             "intermediate_size": 1536, "vocab_size": 49152, "tie_word_embeddings": True},
    "1B": {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
           "intermediate_size": 8192, "vocab_size": 128256, "tie_word_embeddings": True},
    "8B": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
           "intermediate_size": 14336, "vocab_size": 128256},
    "70B": {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
            "intermediate_size": 28672, "vocab_size": 128256},
    "405B": {"hidden_size": 16384, "num_hidden_layers": 126, "num_attention_heads": 128, "num_key_value_heads": 8,
             "intermediate_size": 53248, "vocab_size": 128256},
}  # fmt: skip


def engine_of(shape: dict[str, Any]) -> Engine:
    """What the planner reads of an engine, of a model in bfloat16 on a GPU that has no weights."""
    config = LlamaConfig(**{"tie_word_embeddings": False, **shape})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    architecture = SimpleNamespace(
        n_layers=layers, blocks=[SimpleNamespace(module=block) for block in model.model.layers],
        n_heads=[heads] * layers, d_head=[config.hidden_size // heads] * layers, d_model=config.hidden_size,
        d_mlp=[config.intermediate_size] * layers, n_vocab=config.vocab_size,
    )  # fmt: skip
    return cast(Engine, SimpleNamespace(architecture=architecture, model=model, device=torch.device("cuda")))


def main() -> None:
    """Print the table: TFLOP, and in brackets how many forward passes over the prompt that is."""
    head = "model, weights, tokens, forward, residual sweep, head sweep, passes, KV cache, sources, rows a GiB"
    print("|", head.replace(",", " |"), "|")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name, shape in SHAPES.items():
        engine = engine_of(shape)
        weights = sum(p.numel() for p in engine.model.parameters()) * _BYTES
        for length, first in PROMPTS:
            of_model = [name, _shown(weights / 2**30)] if length == PROMPTS[0][0] else ["", ""]
            print("|", " | ".join([*of_model, f"{length:,}", *columns(engine, shape, length, first)]), "|")


def columns(engine: Engine, shape: dict[str, Any], length: int, first: int) -> list[str]:
    """The table's columns for a pair of prompts of this length that differ from `first` on."""
    layers, heads = shape["num_hidden_layers"], shape["num_attention_heads"]
    (forward,) = make_plan(engine, [Span(0, 0)], length, budget=BUDGET).passes
    residual = [Span(layer, position) for layer in range(layers) for position in range(first, length)]
    by_head = [Span(layer, first) for layer in range(layers) for _ in range(heads)]
    plans = [make_plan(engine, spans, length, budget=BUDGET) for spans in (residual, by_head)]
    d_kv = shape["num_key_value_heads"] * shape["hidden_size"] // heads
    cache, sources = 2 * layers * length * d_kv * _BYTES, 2 * layers * length * shape["hidden_size"] * _BYTES
    return [
        _shown(forward.flops / 1e12), *(f"{_shown(p.flops / 1e12)} ({_shown(p.flops / forward.flops)})" for p in plans),
        f"{len(plans[0].passes)}, {len(plans[1].passes):,}", _shown(cache / 2**20), _shown(sources / 2**20),
        f"{BUDGET // row_bytes(engine, length, length - first):,}",
    ]  # fmt: skip


def _shown(number: float) -> str:
    """Two digits, and all of those before the point."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


if __name__ == "__main__":
    main()
