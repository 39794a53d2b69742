"""The gated MLP over tiles of tokens, computed again in the backward pass.

The MLP of a block works token by token, so its wide intermediate values need to exist for one tile
of tokens only (Bekman et al., *Arctic long sequence training*, 2025, arXiv 2506.13996, TiledMLP).
For tiles t of the rows x, with output gradient g::

    forward    y_t = (silu(x_t Wg^T) * (x_t Wu^T)) Wd^T                            keeps x
    backward   a = x_t Wg^T, b = x_t Wu^T once more;   p = silu(a) b,   q = g_t Wd
               da = q b silu'(a),   db = q silu(a),   dx_t = da Wg + db Wu
               dWd += g_t^T p,   dWg += da^T x_t,   dWu += db^T x_t

Differs from the paper: one operation takes the weights as arguments and returns their whole
gradients once, so that whatever shards them (FSDP2, DDP) sees one use of each. Nothing in it waits
for another rank: ranks may cut their tokens into different numbers of tiles.

Memory: 4 e f bytes for each token of a tile in place of 3 e f for each token of the batch. Time: a
third of the MLP's products is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from sharpen.core.errors import ConfigError
from sharpen.models.matmul import mm

__all__ = ["sequence_tiled", "tiled_mlp"]


def tiled_mlp(
    x: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
    *,
    tile: int,
    biases: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None),
) -> Tensor:
    """down(silu(gate(x)) * up(x)) over tiles of the rows of ``x``.

    Args:
        x: [..., H]; under autocast the products run in its type, else in that of ``x``.
        gate: [F, H], weight.
        up: [F, H].
        down: [H, F].
        tile: rows at a time, at least 1.
        biases: of the three, [F], [F] and [H], or None each.

    Returns:
        [..., H]. Gradients of weights are summed over tiles in float32 at least. First derivatives
        only.

    Raises:
        ConfigError: ``tile`` is below 1.

    References:
        Bekman et al., 2025, arXiv 2506.13996.
    """
    _check(tile)
    mark = torch.empty((), requires_grad=True)
    kept = _Keep.apply(mark, x, gate, up, down, *biases)  # type: ignore[no-untyped-call]
    y: Tensor = _TiledMLP.apply(  # type: ignore[no-untyped-call]
        x, gate, up, down, *biases, tile, kept.grad_fn
    )
    return y


def sequence_tiled(
    function: Callable[[Tensor], Tensor], x: Tensor, *, tile: int, dim: int = -2
) -> Tensor:
    """Any function that treats tokens apart, over tiles of tokens and again in the backward pass.

    Right for every module, whatever parameters it has and however it draws random numbers; a module
    of three plain linear layers is faster with :func:`tiled_mlp`.

    Args:
        function: of [..., t, H]; its result at a token depends on that token alone.
        x: [..., T, H].
        tile: tokens at a time, at least 1.
        dim: dimension of the tokens, in ``x`` and in the result.

    Returns:
        What ``function(x)`` returns.

    Raises:
        ConfigError: ``tile`` is below 1.
    """
    _check(tile)
    parts = [checkpoint(function, part, use_reentrant=False) for part in torch.split(x, tile, dim)]
    return torch.cat(parts, dim) if len(parts) > 1 else parts[0]


def _check(tile: int) -> None:
    if tile < 1:
        raise ConfigError(f"tile={tile} must be at least 1 token.")


class _Keep(torch.autograd.Function):
    """Keeps tensors for a node that comes after it.

    A checkpointed block is computed again only until all that was kept is there. So an MLP at its
    end is not computed again at all before its own backward pass does.
    """

    @staticmethod
    def forward(ctx: Any, mark: Tensor, *tensors: Tensor | None) -> Tensor:
        ctx.save_for_backward(*tensors)
        return torch.empty(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> None:
        raise AssertionError("nothing is computed from this node")


class _TiledMLP(torch.autograd.Function):
    """a and b above are ``gate`` and ``up`` of a tile."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gate_weight: Tensor,
        up_weight: Tensor,
        down_weight: Tensor,
        gate_bias: Tensor | None,
        up_bias: Tensor | None,
        down_bias: Tensor | None,
        tile: int,
        kept: Any,
    ) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        tensors = gate_weight, up_weight, down_weight, gate_bias, up_bias, down_bias
        with torch.autocast(kind, enabled=False):
            rows = x.reshape(-1, x.shape[-1]).to(dtype)
            wg, wu, wd, bg, bu, bd = _cast(tensors, dtype)
            y = rows.new_empty((rows.shape[0], down_weight.shape[0]))
            for part, out in zip(torch.split(rows, tile), torch.split(y, tile), strict=True):
                product = F.silu(_linear(part, wg, bg)).mul_(_linear(part, wu, bu))
                mm(product, wd.T, out)
            if bd is not None:
                y += bd
        ctx.kept, ctx.tile, ctx.dtype = kept, tile, dtype
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *tensors = ctx.kept.saved_tensors
        if not torch._C._autograd._get_current_graph_task_keep_graph():
            ctx.kept = None  # autograd frees what a node keeps when it has run; that one never does
        wants = ctx.needs_input_grad
        rows = x.reshape(-1, x.shape[-1]).to(ctx.dtype)
        wg, wu, wd, bg, bu, _ = _cast(tensors, rows.dtype)
        exact = torch.promote_types(rows.dtype, torch.float32)
        sums = [
            torch.zeros_like(t, dtype=exact) if t is not None and wanted else None
            for t, wanted in zip(tensors, wants[1:7], strict=True)
        ]
        grad = grad.reshape(-1, grad.shape[-1])
        grad_x = torch.empty_like(rows) if wants[0] else None
        at = 0
        for part, g in zip(torch.split(rows, ctx.tile), torch.split(grad, ctx.tile), strict=True):
            gate, up = _linear(part, wg, bg), _linear(part, wu, bu)
            silu = F.silu(gate)
            _add_product(sums[2], g, silu * up)
            grad_product = mm(g, wd)
            grad_up = silu.mul_(grad_product)
            grad_gate = torch.ops.aten.silu_backward(grad_product.mul_(up), gate)
            for i, delta in enumerate((grad_gate, grad_up, g)):
                if i < 2:
                    _add_product(sums[i], delta, part)
                if (total := sums[3 + i]) is not None:
                    total += delta.sum(0, dtype=exact)
            if grad_x is not None:
                out = mm(grad_gate, wg, grad_x[at : at + part.shape[0]])
                out += mm(grad_up, wu)
            at += part.shape[0]
        found = [
            None if total is None or tensor is None else total.to(tensor.dtype)
            for total, tensor in zip(sums, tensors, strict=True)
        ]
        if grad_x is not None:
            grad_x = grad_x.view(x.shape).to(x.dtype)
        return grad_x, *found, None, None


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = mm(x, weight.T)
    return y if bias is None else y.add_(bias)


def _cast(tensors: Any, dtype: torch.dtype) -> list[Any]:
    return [None if t is None else t.detach().to(dtype) for t in tensors]


def _add_product(total: Tensor | None, left: Tensor, right: Tensor) -> None:
    """Add left^T right to ``total``, the product in the operands' type."""
    if total is None:
        return
    if total.dtype == left.dtype:
        total.addmm_(left.T, right)
    else:
        total += left.T @ right
