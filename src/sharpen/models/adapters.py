"""Adapters beside their base: rows of several LoRA adapters, and of none, in one pass.

Hu et al., LoRA, 2021, arXiv 2106.09685; batched as by Chen et al., Punica, MLSys 2024, arXiv
2310.18547, here with the rows of an adapter next to each other::

    y = W x                                                    all rows, one product
    y[rows of i] <- y[rows of i] + (x[rows of i] A_i^T) B_i^T      B_i holds the scale

Layers that share their input (q, k, v; gate and up) share the first product: their A lie end to
end. The base may have any kind of weights. Memory: r (in + out) parameters a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.core.errors import FileFormatError
from sharpen.core.model_spec import ModelSpec
from sharpen.models.lora import read_adapter, read_adapter_config

__all__ = ["Adapter", "AdapterRows", "Site"]

Site = Literal["qkv", "o", "gate_up", "down"]


@dataclass(frozen=True, slots=True)
class _Addition:
    """What an adapter adds to the outputs of one product."""

    a: Tensor
    """[sum of r, in]."""

    parts: tuple[tuple[slice, slice, Tensor], ...]
    """Of each layer: its outputs, its ranks, and B [out, r]."""


class Adapter:
    """The weights of a LoRA adapter, ready for the rows of a batch.

    Args:
        folder: in PEFT format.
        spec: of the model it was made for.
        dtype: of the weights.
        device: where they go.

    Attributes:
        num_bytes: of the weights.

    Raises:
        MissingFileError: a file is missing.
        FileFormatError: damaged, of another model, or of a kind that needs its base changed.
    """

    def __init__(
        self, folder: str | Path, spec: ModelSpec, dtype: torch.dtype, device: torch.device
    ) -> None:
        config = read_adapter_config(folder)
        if config.dora:
            raise FileFormatError(
                f"{folder}: a DoRA adapter ('use_dora') cannot be served beside its base. Fold it "
                "in with --adapter, or merge it with peft."
            )
        shapes = {
            f"model.layers.{layer}.{name}": shape
            for layer in range(spec.num_layers)
            for name, shape in _shapes(spec).items()
            if name.rpartition(".")[2] in config.names
        }
        values = read_adapter(folder, config, shapes)

        def addition(layer: int, names: tuple[str, ...]) -> _Addition | None:
            downs, parts, first, rank = [], [], 0, 0
            for name in names:
                size = _shapes(spec)[name][0]
                prefix = f"base_model.model.model.layers.{layer}.{name}"
                if f"model.layers.{layer}.{name}" in shapes:
                    downs.append(values[f"{prefix}.lora_A.weight"].float())
                    b = values[f"{prefix}.lora_B.weight"].float() * config.scale
                    at = slice(rank, rank + config.rank)
                    parts.append((slice(first, first + size), at, b.to(device, dtype)))
                    rank += config.rank
                first += size
            if not downs:
                return None
            return _Addition(torch.cat(downs).to(device, dtype), tuple(parts))

        self._additions = [
            {site: addition(layer, names) for site, names in _SITES.items()}
            for layer in range(spec.num_layers)
        ]
        self.num_bytes = sum(
            one.a.nbytes + sum(b.nbytes for _, _, b in one.parts)
            for sites in self._additions
            for one in sites.values()
            if one is not None
        )

    def add(self, layer: int, site: Site, x: Tensor, y: Tensor, rows: slice) -> None:
        """Add to rows of ``y`` [R, out] what the adapter makes of those of ``x`` [R, in]."""
        addition = self._additions[layer][site]
        if addition is None:
            return
        down = F.linear(x[rows], addition.a)
        for outputs, ranks, b in addition.parts:
            y[rows, outputs] += F.linear(down[:, ranks], b)


@dataclass(frozen=True, slots=True)
class AdapterRows:
    """Rows of a batch that an adapter is for."""

    adapter: Adapter

    rows: slice

    def add(self, layer: int, site: Site, x: Tensor, y: Tensor) -> None:
        """See :meth:`Adapter.add`."""
        self.adapter.add(layer, site, x, y, self.rows)


_SITES: dict[Site, tuple[str, ...]] = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}


def _shapes(spec: ModelSpec) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of the layers of a block."""
    hidden, width = spec.hidden_size, spec.intermediate_size
    return {
        "self_attn.q_proj": (spec.query_size, hidden),
        "self_attn.k_proj": (spec.kv_size, hidden),
        "self_attn.v_proj": (spec.kv_size, hidden),
        "self_attn.o_proj": (hidden, spec.query_size),
        "mlp.gate_proj": (width, hidden),
        "mlp.up_proj": (width, hidden),
        "mlp.down_proj": (hidden, width),
    }
