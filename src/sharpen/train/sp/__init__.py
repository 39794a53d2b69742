"""Sequence parallelism: one sequence on several ranks, with the same result as on one."""

from sharpen.train.sp.fpdt import fpdt_attention
from sharpen.train.sp.ring import ring_attention
from sharpen.train.sp.shard import SPContext, shard_sequence
from sharpen.train.sp.ulysses import IdleRanksWarning, ulysses_attention
from sharpen.train.sp.usp import auto, usp_attention

__all__ = [
    "IdleRanksWarning",
    "SPContext",
    "auto",
    "fpdt_attention",
    "ring_attention",
    "shard_sequence",
    "ulysses_attention",
    "usp_attention",
]
