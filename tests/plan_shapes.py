"""Shapes of models that plans are checked on."""

from typing import Any

from benchmarks.plan.shapes import GPT_175B, LLAMA3_8B

from sharpen.core.model_spec import ModelSpec

__all__ = ["GPT_175B", "LLAMA3_8B", "small_spec"]


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
