"""Bytes each device sends, by scheme of parallelism.

A collective over n devices with message M (the whole tensor) sends, by ring algorithms::

    all-gather, reduce-scatter   M (n - 1) / n
    all-reduce                   2 M (n - 1) / n
    all-to-all, local tensor m   m (n - 1) / n

Ulysses (Jacobs et al., 2023, arXiv 2309.14509), ring attention (Liu et al., 2023, arXiv
2310.01889), sequence-parallel tensor parallelism (Korthikanti et al., 2022, arXiv 2205.05198),
ZeRO (Rajbhandari et al., 2019, arXiv 1910.02054). e is the bytes of an element, T the tokens of a
device, d the head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sharpen.core.errors import ConfigError

__all__ = [
    "Exchange",
    "megatron_bytes",
    "ring_bytes",
    "split_heads",
    "ulysses_bytes",
    "zero_step_bytes",
]


@dataclass(frozen=True, slots=True)
class Exchange:
    """Bytes one device sends for one layer."""

    forward: int
    backward: int


def split_heads(num_heads: int, num_kv_heads: int, ranks: int) -> list[tuple[int, int]]:
    """Query heads of each rank and the key/value heads these need; ranks may be uneven.

    The first ``num_heads % ranks`` ranks hold one query head more.

    Raises:
        ConfigError: more ranks than query heads, or heads that do not group.
    """
    if not 1 <= ranks <= num_heads or num_heads % num_kv_heads:
        raise ConfigError(
            f"ranks={ranks} must be from 1 to num_heads={num_heads}, and num_kv_heads="
            f"{num_kv_heads} must divide num_heads."
        )
    group = num_heads // num_kv_heads
    shares, first = [], 0
    for rank in range(ranks):
        count = num_heads // ranks + (rank < num_heads % ranks)
        last = first + count - 1
        shares.append((count, last // group - first // group + 1))
        first += count
    return shares


def ulysses_bytes(
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    *,
    ranks: int,
    tokens: int,
    element_bytes: int = 2,
) -> list[Exchange]:
    """All-to-all traffic of Ulysses attention, by rank; any head counts.

    With c query heads and g key/value heads on rank r and G = sum of g::

        forward    e T d [(heads - c) + 2 (G - g) + (P - 1) c]
        backward   e T d [(heads - c) + (P - 1) (c + 2 g)]

    Args:
        num_heads: query heads.
        num_kv_heads: key/value heads; sent only to the ranks that need them.
        head_dim: d.
        ranks: P.
        tokens: T, tokens of a device: batch * sequence / P.
        element_bytes: e.
    """
    shares = split_heads(num_heads, num_kv_heads, ranks)
    total = sum(g for _, g in shares)
    unit = element_bytes * tokens * head_dim
    return [
        Exchange(
            forward=unit * ((num_heads - c) + 2 * (total - g) + (ranks - 1) * c),
            backward=unit * ((num_heads - c) + (ranks - 1) * (c + 2 * g)),
        )
        for c, g in shares
    ]


def ring_bytes(
    kv_size: int, *, ranks: int, tokens: int, element_bytes: int = 2, gradient_bytes: int = 4
) -> Exchange:
    """Keys and values passed around a ring, and their gradients on the way back.

    Args:
        kv_size: ``num_kv_heads * head_dim``.
        ranks: devices of the ring.
        tokens: of a device.
        element_bytes: of keys and values.
        gradient_bytes: of their gradients, which are summed in float32.
    """
    hops = (ranks - 1) * tokens * 2 * kv_size
    return Exchange(hops * element_bytes, hops * (element_bytes + gradient_bytes))


def megatron_bytes(
    hidden_size: int, *, ranks: int, tokens: int, element_bytes: int = 2, sequence: bool = True
) -> Exchange:
    """Tensor parallelism: two exchanges of the hidden states a pass.

    Args:
        hidden_size: h.
        ranks: t.
        tokens: of the whole group: batch * sequence.
        element_bytes: of the hidden states.
        sequence: norms and residuals are sharded over the sequence too; the backward pass then
            gathers the inputs again.
    """
    message = element_bytes * tokens * hidden_size
    forward = 4 * message * (ranks - 1) // ranks
    backward = (6 if sequence else 4) * message * (ranks - 1) // ranks
    return Exchange(forward, backward)


def zero_step_bytes(
    num_parameters: int,
    *,
    stage: int,
    ranks: int,
    micro_batches: int = 1,
    parameter_bytes: int = 2,
    gradient_bytes: int = 2,
    reduce_once: bool = False,
) -> int:
    """Bytes a device sends for one optimizer step of data parallelism.

    Args:
        num_parameters: Ψ.
        stage: 0 (all-reduce), 1, 2 or 3 of ZeRO.
        ranks: devices that share the states.
        micro_batches: forward passes a step.
        parameter_bytes: of a gathered parameter.
        gradient_bytes: of a reduced gradient.
        reduce_once: stages 2 and 3 reduce gradients after the last micro-batch only.
    """
    if stage not in (0, 1, 2, 3):
        raise ConfigError(f"stage={stage} must be 0, 1, 2 or 3.")
    reductions = 1 if reduce_once else micro_batches
    parts: Sequence[int] = {
        0: (2 * gradient_bytes,),
        1: (gradient_bytes, parameter_bytes),
        2: (reductions * gradient_bytes, parameter_bytes),
        3: (reductions * gradient_bytes, 2 * micro_batches * parameter_bytes),
    }[stage]
    return sum(parts) * num_parameters * (ranks - 1) // ranks
