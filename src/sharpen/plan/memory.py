"""Bytes of model states and activations, by formula.

Model states of Ψ parameters under ZeRO (Rajbhandari et al., 2019) over N devices, in bytes a
parameter, in two accountings::

    stage        paper (p, g, optimizer)      as built (fp32 masters, bf16 compute)
    0            2, 2, 12                     4, 4, 8      + 2 for bf16 copies of the matrices
    1            2, 2, 12/N                   2, 2, 12/N
    2            2, 2/N, 12/N                 4/N, 4/N, 8/N + 2 gathered
    3            2/N, 2/N, 12/N               4/N, 4/N, 8/N + live units

The owners of stage 1 also receive their gradients in float32, 4/N, which the paper's accounting
leaves out and :func:`~sharpen.plan.layouts.layout_memory` adds. With float32 compute there are no
copies: 4, 4, 8 a parameter, shared the same way. A parameter is shared by rows (stages 2 and 3 as
built), so the first rank's share may be above 1/N.

Activations a Llama block keeps for its backward pass, for T tokens and e bytes an element, with
flash attention and unfused element-wise operations::

    norms        2 x (norm output e h + saved)    saved: 8 h + 4 composite, e h + 4 fused; one
                                                  norm in a parallel block
    attention    e (2 h_q + 2 h_kv) + 4 heads     q, k, v, output, log-sum-exp
    MLP          4 e f                            gate, up, silu(gate), product
    MLP, fused   3 e f                            gate, up, product
    MLP, tiled   0                                computed again, a tile of tokens at a time
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

from sharpen.core.errors import ConfigError
from sharpen.core.model_spec import ModelSpec

__all__ = [
    "ModelStates",
    "activation_bytes",
    "live_bytes",
    "model_states",
    "parameter_shapes",
    "row_share",
    "share_states",
]


@dataclass(frozen=True, slots=True)
class ModelStates:
    """Bytes of one device."""

    parameters: int
    gradients: int
    optimizer: int
    copies: int = 0
    """Low-precision copies or gathered parameters beside the above."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.parameters + self.gradients + self.optimizer + self.copies


def parameter_shapes(spec: ModelSpec) -> dict[str, tuple[int, int]]:
    """Rows and width of every parameter of the built model, by name; a tied head is left out."""
    h, f, q, kv = spec.hidden_size, spec.intermediate_size, spec.query_size, spec.kv_size
    layer = {f"self_attn.{n}.weight": (rows, h) for n, rows in _projections(q, kv)}
    layer |= {"self_attn.o_proj.weight": (h, q)}
    if spec.qkv_bias:
        layer |= {f"self_attn.{n}.bias": (rows, 1) for n, rows in _projections(q, kv)}
    if spec.output_bias:
        layer |= {"self_attn.o_proj.bias": (h, 1)}
    if spec.qk_norm:
        layer |= {f"self_attn.{n}_norm.weight": (spec.head_dim, 1) for n in "qk"}
    mlp = {"gate_proj": (f, h), "up_proj": (f, h), "down_proj": (h, f)}
    layer |= {f"mlp.{n}.weight": shape for n, shape in mlp.items()}
    if spec.mlp_bias:
        layer |= {f"mlp.{n}.bias": (rows, 1) for n, (rows, _) in mlp.items()}
    norms = ("input_layernorm", "post_attention_layernorm")[: spec.block_norms]
    layer |= {f"{n}.weight": (h, 1) for n in norms}
    found = {"model.embed_tokens.weight": (spec.vocab_size, h)}
    for i in range(spec.num_layers):
        found |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    found["model.norm.weight"] = (h, 1)
    if not spec.tie_word_embeddings:
        found["lm_head.weight"] = (spec.vocab_size, h)
    return found


def _projections(query_size: int, kv_size: int) -> list[tuple[str, int]]:
    return [("q_proj", query_size), ("k_proj", kv_size), ("v_proj", kv_size)]


@functools.lru_cache(maxsize=4096)
def row_share(spec: ModelSpec, ranks: int) -> int:
    """Parameters of the rank that holds most, when each tensor is dealt out by rows.

    Args:
        spec: the model's shape.
        ranks: N; rank 0 holds ceil(rows / N) rows of every tensor.
    """
    return sum(-(-rows // ranks) * width for rows, width in parameter_shapes(spec).values())


def share_states(
    count: int,
    *,
    stage: int,
    ranks: int,
    share: int | None = None,
    matmul: int = 0,
    element_bytes: int = 2,
    accounting: Literal["built", "paper"] = "built",
) -> ModelStates:
    """States of so many trained parameters on one device; see :func:`model_states`.

    Args:
        count: parameters.
        stage: of ZeRO, 0 to 3.
        ranks: N, devices that share the states.
        share: parameters of the fullest rank when tensors are dealt out by rows; default count/N.
        matmul: of ``count``, those in matrix products.
        element_bytes: of compute, 2 or 4.
        accounting: ``built`` or ``paper``.

    Raises:
        ConfigError: an unknown stage or no device.
    """
    if stage not in (0, 1, 2, 3) or ranks < 1:
        raise ConfigError(f"stage={stage} must be 0, 1, 2 or 3 and ranks={ranks} at least 1.")
    even = -(-count // ranks)
    rows = even if share is None else share
    if accounting == "paper":
        return ModelStates(
            2 * (even if stage == 3 else count),
            2 * (even if stage >= 2 else count),
            12 * (even if stage >= 1 else count),
        )
    if stage == 0:
        return ModelStates(4 * count, 4 * count, 8 * count, 2 * matmul if element_bytes == 2 else 0)
    if stage == 1:
        master = 4 if element_bytes == 2 else 0
        return ModelStates(element_bytes * count, element_bytes * count, (8 + master) * even)
    gathered = element_bytes * count if stage == 2 else 0
    return ModelStates(4 * rows, 4 * rows, 8 * rows, gathered)


def model_states(
    spec: ModelSpec,
    *,
    stage: int = 0,
    ranks: int = 1,
    element_bytes: int = 2,
    accounting: Literal["built", "paper"] = "built",
) -> ModelStates:
    """Parameters, gradients and AdamW state of the fullest device, all weights trained.

    Args:
        spec: the model's shape.
        stage: of ZeRO, 0 to 3.
        ranks: N, devices that share the states.
        element_bytes: of compute: 2 (bfloat16) or 4.
        accounting: ``built`` is what a run measures, ``paper`` the table of the ZeRO paper.

    Raises:
        ConfigError: an unknown stage or no device.
    """
    return share_states(
        spec.num_parameters,
        stage=stage,
        ranks=ranks,
        share=row_share(spec, ranks) if ranks > 1 else None,
        matmul=spec.matmul_parameters,
        element_bytes=element_bytes,
        accounting=accounting,
    )


def live_bytes(spec: ModelSpec, *, prefetch: int = 1, parameter_bytes: int = 2) -> int:
    """Stage 3: parameters gathered at once, (1 + prefetch) of the largest unit.

    A unit is a block, the embedding or the head.
    """
    unit = max(spec.layer_parameters, spec.embedding_parameters)
    return (1 + prefetch) * parameter_bytes * unit


def activation_bytes(
    spec: ModelSpec,
    tokens: int,
    *,
    element_bytes: int = 2,
    norm: Literal["composite", "fused", "transformers"] = "composite",
    fused_mlp: bool = False,
    tiled_mlp: bool = False,
) -> int:
    """Bytes one block keeps for its backward pass, all weights trained.

    Args:
        spec: the model's shape.
        tokens: T, tokens of the device.
        element_bytes: e, of activations.
        norm: ``composite`` keeps float32 copies of the input and of the normalized input (torch's
            RMSNorm on CPU), ``fused`` keeps the input and the scale, ``transformers`` multiplies
            the weight in 16 bits.
        fused_mlp: silu(gate) is computed again in the backward pass.
        tiled_mlp: all of the MLP is; only its input stays, which is the norm's output.
    """
    h, e = spec.hidden_size, element_bytes
    saved = {"composite": 8 * h + 4, "fused": e * h + 4, "transformers": 6 * h + 4}[norm]
    norms = spec.block_norms * (e * h + saved)
    attention = e * (2 * spec.query_size + 2 * spec.kv_size) + 4 * spec.num_heads
    mlp = 0 if tiled_mlp else (3 if fused_mlp else 4) * e * spec.intermediate_size
    return tokens * (norms + attention + mlp)
