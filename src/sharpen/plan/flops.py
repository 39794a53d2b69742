"""Floating-point operations of a decoder, by the formulas every paper's tables use.

With Ψ the weights in matrix products (head included, embedding lookup not), L layers and
``h_q = heads * head_dim``, a token at sequence length s costs::

    forward            2 Ψ + 4 L s h_q             attention over all s positions
    forward, causal    2 Ψ + 2 L (s + 1) h_q       only positions that are seen
    training           3 x forward                 backward is twice the forward
    with recompute     4 x forward                 the forward once more
    LoRA               2 x weights + 3 x attention frozen weights get no gradient

Without the causal discount this is the convention of PaLM (Chowdhery et al., 2022, appendix B):
6 Ψ + 12 L h_q s a token. A sliding window w replaces s by the mean of min(i, w).
"""

from __future__ import annotations

from sharpen.core.model_spec import ModelSpec

__all__ = ["attention_flops_per_token", "forward_flops_per_token", "training_flops_per_token"]


def attention_flops_per_token(spec: ModelSpec, seq_len: int, *, causal: bool = False) -> float:
    """FLOPs of the two attention products (scores and values) in all layers, a token.

    Args:
        spec: the model's shape.
        seq_len: tokens that attend to each other.
        causal: count only the positions that are seen; windows always count that way.
    """
    total = 0.0
    for layer in range(spec.num_layers):
        if spec.slides(layer) and spec.sliding_window is not None:
            window = min(spec.sliding_window, seq_len)
            # Positions 1..w see 1..w keys, the rest w.
            seen = (window * (window + 1) / 2 + (seq_len - window) * window) / seq_len
            total += 4 * spec.query_size * seen
        else:
            total += (
                2 * (seq_len + 1) * spec.query_size if causal else 4 * seq_len * spec.query_size
            )
    return total


def forward_flops_per_token(spec: ModelSpec, seq_len: int, *, causal: bool = False) -> float:
    """FLOPs of the forward pass, a token."""
    return 2 * spec.matmul_parameters + attention_flops_per_token(spec, seq_len, causal=causal)


def training_flops_per_token(
    spec: ModelSpec,
    seq_len: int,
    *,
    causal: bool = False,
    recompute: bool = False,
    lora: bool = False,
) -> float:
    """FLOPs of forward and backward, a token.

    Args:
        spec: the model's shape.
        seq_len: tokens that attend to each other.
        causal: count only the positions that are seen.
        recompute: the forward is done again in the backward pass (hardware, not model, FLOPs).
        lora: the weights are frozen; the adapters' own FLOPs are left out.
    """
    weights = 2 * spec.matmul_parameters
    attention = attention_flops_per_token(spec, seq_len, causal=causal)
    total = (2 if lora else 3) * weights + 3 * attention
    return total + (weights + attention if recompute else 0)
