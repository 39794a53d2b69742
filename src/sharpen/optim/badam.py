"""BAdam: Adam on one block of layers at a time, the rest of the model at rest.

Luo et al., BAdam: A Memory Efficient Full Parameter Optimization Method for Large Language Models,
NeurIPS 2024 (arXiv 2404.02827), Algorithm 1: with block i active for K steps, its moments from 0::

    w_i <- (1 - lr wd) w_i - Adam(g_i)          w_j <- (1 - lr wd) w_j for the others

Differs from the paper: a block is what ``frugal.py`` says, over matrices; embeddings, the head,
norms and biases have states throughout when groups are made by role; decay, 0 unless asked for, is
that of all weights. Memory: 2 values for each weight of the largest block.
"""

from __future__ import annotations

from typing import Any

from sharpen.optim.engine.base import Params
from sharpen.optim.engine.blocks import BlockUnit, Order
from sharpen.optim.frugal import Frugal

__all__ = ["BAdam"]


class BAdam(Frugal):
    """BAdam, which is :class:`~sharpen.optim.frugal.Frugal` without steps on what is not active.

    Args:
        params: see :class:`~sharpen.optim.engine.base.Optimizer`.
        lr: learning rate.
        update_gap: steps with one block; the paper's K.
        order: in which blocks come; by default each once, in a new random order, and again.
        block_unit: a block is all of a layer, or a tensor.
        block_count: blocks at a time.
        options: those of :class:`Frugal` and of every optimizer.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        *,
        update_gap: int = 100,
        order: Order = "shuffle",
        block_unit: BlockUnit = "layer",
        block_count: int = 1,
        **options: Any,
    ) -> None:
        chosen = {"select": "block", "stateless": "none", **options}
        super().__init__(
            params,
            lr,
            update_gap=update_gap,
            order=order,
            block_unit=block_unit,
            block_count=block_count,
            **chosen,
        )
