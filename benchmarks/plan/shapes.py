"""Shapes of published models that plans are checked on."""

from sharpen.core.model_spec import ModelSpec

__all__ = ["GPT_175B", "LLAMA3_8B", "LLAMA3_70B"]

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

LLAMA3_70B = ModelSpec(
    family="llama",
    vocab_size=128_256,
    hidden_size=8192,
    intermediate_size=28_672,
    num_layers=80,
    num_heads=64,
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
