"""All legal layouts of a job on a cluster, those that fit, fastest first.

Degrees run over every way to write the number of devices as a product. Of equal things one is
tried: without sharing (stage 0) copies of the model are ``dp_shard``, and ``dp_replicate`` is above
1 only for groups that share. A micro-batch grows until it no longer fits; then only the whole share
of a rank is left to try, which accumulates no gradients. A candidate takes about 0.1 ms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sharpen.plan.hardware import Cluster
from sharpen.plan.layout_cost import LayoutCost, layout_cost
from sharpen.plan.layouts import (
    Candidate,
    ClusterJob,
    divisors,
    layout_memory,
    layout_problems,
)

__all__ = ["SearchResult", "degrees", "search_layouts"]

_MIN_TOKENS = 128  # of a sequence on one rank; below, exchanges only cost
_MAX_CHUNKS = 8


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found."""

    ranked: tuple[LayoutCost, ...]
    """Layouts that fit, fastest first; of each set of degrees and stage the fastest variant. Those
    within a percent count as equal: then fewer ranks to a sequence, and less memory, go first."""

    closest: LayoutCost | None
    """When none fits: the one that is over by least; None when no layout is legal at all."""

    tried: int
    """Candidates whose memory was computed."""

    fitting: int
    """Of these, how many fit."""


def degrees(job: ClusterJob, devices: int, *, all_axes: bool = False) -> Iterator[Candidate]:
    """Every legal set of degrees and stage, with micro-batch 1.

    Args:
        job: what is trained.
        devices: that there are.
        all_axes: tensor and pipeline parallelism too, which the trainer does not run.
    """
    spec = job.spec
    for tp, pp, chunks in _model_axes(job, devices) if all_axes else [(1, 1, 1)]:
        rest = devices // (tp * pp)
        longest = max(1, job.seq_len // _MIN_TOKENS)
        for data in divisors(rest):
            across = rest // data
            if job.global_batch % data or across > job.seq_len:
                continue
            if across > longest and any(
                d > data and job.global_batch % d == 0 for d in divisors(rest)
            ):
                continue  # shorter pieces only where the batch leaves no other way
            for sp in divisors(across):
                if sp > spec.num_heads or (sp > 1 and tp > 1):
                    continue
                for shard in divisors(data):
                    for stage in _stages(data // shard, shard * across, pp):
                        found = Candidate(
                            dp_replicate=data // shard,
                            dp_shard=shard,
                            ring=across // sp,
                            sp=sp,
                            tp=tp,
                            pp=pp,
                            chunks=chunks,
                            zero_stage=stage,
                        )
                        if not layout_problems(job, found, devices):
                            yield found


def _stages(replicas: int, sharing: int, pp: int) -> tuple[Literal[0, 1, 2, 3], ...]:
    """Stages worth trying for a number of replicas and of ranks that share."""
    if replicas > 1:
        if sharing == 1:
            return ()
        return (1, 2, 3) if pp == 1 else (1,)
    if sharing == 1:
        return (0,)
    # In a pipeline, sharing gradients or parameters would move them for every micro-batch.
    return (0, 1, 2, 3) if pp == 1 else (0, 1)


def _model_axes(job: ClusterJob, devices: int) -> Iterator[tuple[int, int, int]]:
    for tp in divisors(devices):
        if job.spec.num_heads % tp or job.spec.intermediate_size % tp:
            continue
        for pp in divisors(devices // tp):
            if job.spec.num_layers % pp:
                continue
            for chunks in divisors(job.spec.num_layers // pp) if pp > 1 else [1]:
                if chunks <= _MAX_CHUNKS:
                    yield tp, pp, chunks


def search_layouts(
    job: ClusterJob,
    cluster: Cluster,
    *,
    all_axes: bool = False,
    tiled_mlp: bool = True,
    causal: bool = False,
) -> SearchResult:
    """Layouts that fit, fastest first.

    Args:
        job: what is trained.
        cluster: on what.
        all_axes: tensor and pipeline parallelism too, which the trainer does not run.
        tiled_mlp: also try MLPs over tiles of tokens.
        causal: MFU and HFU count only the positions that attention sees.

    Raises:
        ConfigError: the device has no peak for the job's type.
    """
    best: dict[Candidate, LayoutCost] = {}
    closest: tuple[int, Candidate] | None = None
    tried = fitting = 0
    for base in degrees(job, cluster.count, all_axes=all_axes):
        sizes = divisors(job.global_batch // base.data_ranks)
        for recompute, tiled in _savings(tiled_mlp):
            full = False
            for size in sizes:
                if full and size != sizes[-1]:
                    continue
                layout = _vary(base, size, recompute, tiled)
                if layout.chunks > 1 and layout_problems(job, layout, cluster.count):
                    continue
                tried += 1
                peak = sum(layout_memory(job, layout, cluster.assume).values())
                if peak > cluster.memory_bytes:
                    if closest is None or peak < closest[0]:
                        closest = peak, layout
                    full = True
                    continue
                fitting += 1
                cost = layout_cost(job, layout, cluster, causal=causal)
                if base not in best or _order(cost) < _order(best[base]):
                    best[base] = cost
    nearest = None
    if not best and closest is not None:
        nearest = layout_cost(job, closest[1], cluster, causal=causal)
    return SearchResult(tuple(sorted(best.values(), key=_order)), nearest, tried, fitting)


def _savings(tiled_mlp: bool) -> list[tuple[Literal["none", "full"], bool]]:
    plain: list[tuple[Literal["none", "full"], bool]] = [("none", False), ("full", False)]
    return [*plain, ("none", True), ("full", True)] if tiled_mlp else plain


def _vary(
    base: Candidate, micro_batch: int, recompute: Literal["none", "full"], tiled_mlp: bool
) -> Candidate:
    """``base`` with other sizes; built directly, since ``dataclasses.replace`` costs more."""
    return Candidate(
        dp_replicate=base.dp_replicate,
        dp_shard=base.dp_shard,
        ring=base.ring,
        sp=base.sp,
        tp=base.tp,
        pp=base.pp,
        chunks=base.chunks,
        zero_stage=base.zero_stage,
        micro_batch=micro_batch,
        recompute=recompute,
        tiled_mlp=tiled_mlp,
    )


def _order(cost: LayoutCost) -> tuple[int, int, int, str]:
    """Fastest first; within a percent, fewer ranks to a sequence, then the smaller."""
    percent = round(math.log(cost.step_s) / math.log(1.01))
    layout = cost.layout
    return percent, layout.ring * layout.sp, cost.peak_bytes, layout.label()
