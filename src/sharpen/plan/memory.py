"""Bytes of model states and activations, by formula.

Model states of Ψ parameters under ZeRO (Rajbhandari et al., 2019) over N devices, in bytes a
parameter, in two accountings::

    stage        paper (p, g, optimizer)      as built (fp32 masters, bf16 compute)
    0            2, 2, 12                     4, 4, 8      + 2 for bf16 copies of the matrices
    1            2, 2, 12/N                   2, 2, 12/N
    2            2, 2/N, 12/N                 4/N, 4/N, 8/N + 2 gathered
    3            2/N, 2/N, 12/N               4/N, 4/N, 8/N + live units

Activations a Llama block keeps for its backward pass, for T tokens and e bytes an element, with
flash attention and unfused element-wise operations::

    norms        2 x (norm output e h + saved)    saved: 8 h + 4 composite, e h + 4 fused
    attention    e (2 h_q + 2 h_kv) + 4 heads     q, k, v, output, log-sum-exp
    MLP          4 e f                            gate, up, silu(gate), product
    MLP, fused   3 e f                            gate, up, product
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sharpen.core.errors import ConfigError
from sharpen.core.model_spec import ModelSpec

__all__ = ["ModelStates", "activation_bytes", "live_bytes", "model_states"]


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


def model_states(
    spec: ModelSpec,
    *,
    stage: int = 0,
    ranks: int = 1,
    accounting: Literal["built", "paper"] = "built",
) -> ModelStates:
    """Parameters, gradients and AdamW state of one device, compute in 16 bits.

    Args:
        spec: the model's shape.
        stage: of ZeRO, 0 to 3.
        ranks: N, devices that share the states.
        accounting: ``built`` is what a run measures, ``paper`` the table of the ZeRO paper.

    Raises:
        ConfigError: an unknown stage or no device.
    """
    if stage not in (0, 1, 2, 3) or ranks < 1:
        raise ConfigError(f"stage={stage} must be 0, 1, 2 or 3 and ranks={ranks} at least 1.")
    count = spec.num_parameters
    share = -(-count // ranks)
    if accounting == "paper" or stage == 1:
        return ModelStates(
            2 * (share if stage == 3 else count),
            2 * (share if stage >= 2 else count),
            12 * (share if stage >= 1 else count),
        )
    if stage == 0:
        return ModelStates(4 * count, 4 * count, 8 * count, 2 * spec.matmul_parameters)
    gathered = 2 * count if stage == 2 else 0
    return ModelStates(4 * share, 4 * share, 8 * share, gathered)


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
    """
    h, e = spec.hidden_size, element_bytes
    saved = {"composite": 8 * h + 4, "fused": e * h + 4, "transformers": 6 * h + 4}[norm]
    norms = 2 * (e * h + saved)
    attention = e * (2 * spec.query_size + 2 * spec.kv_size) + 4 * spec.num_heads
    mlp = (3 if fused_mlp else 4) * e * spec.intermediate_size
    return tokens * (norms + attention + mlp)
