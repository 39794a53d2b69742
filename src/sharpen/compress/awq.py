"""Scaling of a layer's inputs before its weights are rounded, as AWQ does, for comparison.

Lin, Tang, Tang, Yang, Chen, Wang, Xiao, Dang, Gan and Han, "AWQ: activation-aware weight
quantization for LLM compression and acceleration", 2023, arXiv 2306.00978, section 3.2. Inputs of
large mean magnitude m_j matter more, so their weights get a finer grid::

    s_j = m_j^a, divided by sqrt(max s min s)       a = 0, 0.05 .. 0.95
    W'_ij = W_ij s_j,    x'_j = x_j / s_j           the same product

x' costs nothing: 1 / s goes into what makes x, a norm's weight or the rows of the linear layer
before it. The a with the least error of the outputs, tr(D H D^T) with D = quant(W') - W' and
H = 2/T X'^T X', is kept. The input of `o_proj` is scaled only where each value head serves one
query head.

Differs from the paper: the error is that of the linear layers, not of the whole block.

Time: 20 roundings of each weight, each with a product with H.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sharpen.compress.gptq import Hessian, row_errors
from sharpen.compress.rows import quantize_rows

__all__ = ["input_groups", "scale_inputs"]

_EXPONENTS = tuple(0.05 * step for step in range(20))


def input_groups(block: nn.Module) -> list[list[str]]:
    """Names of a block's linear layers; those in a group share their input."""
    attention = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
    gated = ["mlp.gate_proj", "mlp.up_proj"]
    serial = block.post_attention_layernorm is not None
    first = [attention, gated] if serial else [attention + gated]
    return [first[0], ["self_attn.o_proj"], *first[1:], ["mlp.down_proj"]]


def scale_inputs(
    block: nn.Module, hessians: Mapping[str, Hessian], eight: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Scale the inputs of a block's linear layers; the block computes what it did.

    Args:
        block: its parameters get new values; the old tensors are not written to.
        hessians: of the inputs, by the layer's name within the block.
        eight: [N] bool, the rows with 8 bits, by the layer's name.

    Returns:
        H of the scaled inputs, [K, K] float64, by the layer's name.
    """
    found: dict[str, Tensor] = {}
    for names in input_groups(block):
        layers = {name: block.get_submodule(name) for name in names}
        hessian = hessians[names[0]]
        matrix, maker = hessian.matrix, _maker(block, names[0])
        scale = torch.ones_like(hessian.magnitude)
        if maker is not None:
            scale = _best(layers, hessian, matrix, eight)
            for layer in layers.values():
                weight = layer.get_parameter("weight")
                _set(layer, "weight", weight * scale.to(weight.dtype))
            for leaf in ("weight", "bias"):
                value = getattr(maker, leaf, None)
                if value is not None:
                    divisor = scale.to(value.dtype)
                    _set(maker, leaf, value / (divisor[:, None] if value.ndim == 2 else divisor))
        found |= dict.fromkeys(names, matrix / torch.outer(scale, scale))
    return found


def _set(module: nn.Module, leaf: str, value: Tensor) -> None:
    module.get_parameter(leaf).data = value.detach()


def _maker(block: nn.Module, name: str) -> nn.Module | None:
    """What makes the input of the layer ``name``, and can be scaled by output feature."""
    if name == "self_attn.o_proj":
        value = block.get_submodule("self_attn.v_proj")
        query_rows = block.get_parameter("self_attn.q_proj.weight").shape[0]
        same = value.get_parameter("weight").shape[0] == query_rows
        return value if same else None
    makers = {
        "self_attn.q_proj": "input_layernorm",
        "mlp.gate_proj": "post_attention_layernorm",
        "mlp.down_proj": "mlp.up_proj",
    }
    return block.get_submodule(makers[name])


def _best(
    layers: Mapping[str, nn.Module], hessian: Hessian, matrix: Tensor, eight: Mapping[str, Tensor]
) -> Tensor:
    magnitude = (hessian.magnitude / hessian.tokens).clamp(min=1e-4)
    best, least = torch.ones_like(magnitude), float("inf")
    for exponent in _EXPONENTS:
        scale = magnitude**exponent
        scale /= (scale.max() * scale.min()).sqrt()
        error = sum(_errors(layers, scale, matrix, eight))
        if error < least:
            best, least = scale, error
    return best


def _errors(
    layers: Mapping[str, nn.Module], scale: Tensor, matrix: Tensor, eight: Mapping[str, Tensor]
) -> Sequence[float]:
    scaled = matrix / torch.outer(scale, scale)
    found = []
    for name, layer in layers.items():
        weight = layer.get_parameter("weight").detach().float() * scale.float()
        codes = quantize_rows(weight, eight[name], where=name)
        found.append(float(row_errors(codes, weight, scaled).sum()))
    return found
