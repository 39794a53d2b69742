"""ZeRO: what data-parallel ranks share of parameters, gradients and optimizer states."""

from __future__ import annotations

import torch
from torch import nn

from sharpen.train.parallel import Parallel
from sharpen.train.zero.flat import FlatStates
from sharpen.train.zero.states import LocalStates, MakeOptimizer, States

__all__ = ["FlatStates", "LocalStates", "States", "shard"]


def shard(
    root: nn.Module,
    model: nn.Module,
    units: list[nn.Module],
    make_optimizer: MakeOptimizer,
    parallel: Parallel,
    *,
    stage: int,
    param_dtype: torch.dtype = torch.float32,
) -> States:
    """Lay a model's states out over the ranks of a job.

    Args:
        root: the module whose forward pass uses every parameter.
        model: its parameters' names are those of checkpoints; trainable ones in float32.
        units: modules that stage 3 gathers one at a time, such as the blocks.
        make_optimizer: makes an optimizer over named parameters.
        parallel: the job.
        stage: 0 to 3; a job of one process has nothing to share.
        param_dtype: stages 1 to 3: type of the weights that products use.
    """
    if parallel.world_size == 1:
        return LocalStates(model, make_optimizer)
    if stage in (0, 1):
        return FlatStates(
            model,
            make_optimizer,
            parallel,
            stage=stage,
            param_dtype=param_dtype,
        )
    from sharpen.train.zero.sharded import ShardedStates  # loads FSDP: a second of every start

    return ShardedStates(
        root,
        model,
        units,
        make_optimizer,
        parallel,
        stage=stage,
        param_dtype=param_dtype,
    )
