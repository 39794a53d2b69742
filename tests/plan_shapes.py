"""Shapes of models that plans are checked on."""

from typing import Any

from sharpen.core.model_spec import ModelSpec

LLAMA3_8B = ModelSpec(
    family="llama",
    vocab_size=128_256,
    hidden_size=4096,
    intermediate_size=14_336,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    max_positions=8192,
)

# MegaScale's 175B model (table 1). Its MLP has two matrices of width 4 h; three of width 8 h / 3
# have as many weights.
GPT_175B = ModelSpec(
    family="llama",
    vocab_size=64_000,
    hidden_size=12_288,
    intermediate_size=32_768,
    num_layers=96,
    num_heads=128,
    num_kv_heads=128,
    head_dim=96,
    max_positions=2048,
)


def small_spec(**changes: Any) -> ModelSpec:
    """A shape whose sizes divide by little."""
    fields: dict[str, Any] = {
        "family": "llama",
        "vocab_size": 301,
        "hidden_size": 60,
        "intermediate_size": 100,
        "num_layers": 4,
        "num_heads": 6,
        "num_kv_heads": 3,
        "head_dim": 10,
        "max_positions": 4096,
    }
    return ModelSpec(**{**fields, **changes})
