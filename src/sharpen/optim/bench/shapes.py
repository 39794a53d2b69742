"""Memory of training published Llama shapes, without allocating them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.optim.memory import estimate

__all__ = ["SHAPES", "llama_shape", "memory_table"]

_VOCAB = 32_000
# Hidden, MLP, layers; heads divide the hidden size and change no shape (GaLore and APOLLO papers).
SHAPES: dict[str, tuple[int, int, int]] = {
    "llama-60m": (512, 1376, 8),
    "llama-130m": (768, 2048, 12),
    "llama-350m": (1024, 2736, 24),
    "llama-1b": (2048, 5461, 24),
    "llama-7b": (4096, 11008, 32),
    "llama-13b": (5120, 13824, 40),
}
"""Hidden size, width of the MLP, layers."""


def llama_shape(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Layers with the parameters of a shape, on the ``meta`` device; the head is not tied.

    Raises:
        ConfigError: there is no such shape.
    """
    if name not in SHAPES:
        raise ConfigError(
            f"there is no shape {name!r}.{did_you_mean(name, SHAPES)} Known: {', '.join(SHAPES)}."
        )
    hidden, mlp, layers = SHAPES[name]
    with torch.device("meta"):
        blocks = [
            nn.ModuleDict(
                {
                    **{f"{n}_proj": nn.Linear(hidden, hidden, bias=False) for n in "qkvo"},
                    **{f"{n}_proj": nn.Linear(hidden, mlp, bias=False) for n in ("gate", "up")},
                    "down_proj": nn.Linear(mlp, hidden, bias=False),
                    **{f"{n}_norm": nn.RMSNorm(hidden) for n in ("input", "middle")},
                }
            )
            for _ in range(layers)
        ]
        model = nn.ModuleDict(
            {
                "embed": nn.Embedding(_VOCAB, hidden),
                "layers": nn.ModuleList(blocks),
                "norm": nn.RMSNorm(hidden),
                "head": nn.Linear(hidden, _VOCAB, bias=False),
            }
        )
    return model.to(dtype)


def memory_table(
    shape: str, optimizers: list[str], *, dtype: str = "bfloat16", world_size: int = 1
) -> list[dict[str, Any]]:
    """Bytes a rank for each optimizer with its defaults.

    Args:
        shape: of :data:`SHAPES`.
        optimizers: names.
        dtype: of weights and gradients.
        world_size: ranks that share everything.
    """
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in kinds:
        raise ConfigError(f"dtype={dtype!r} must be 'float32' or 'bfloat16'.")
    model = llama_shape(shape, kinds[dtype])
    rows = []
    for name in optimizers:
        found = asdict(estimate(model, name, world_size=world_size))
        rows.append({"optimizer": name, **found, "total": sum(found.values())})
    return rows
