import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from plan_shapes import LLAMA3_8B, small_spec
from sharpen.plan import (
    Adapters,
    Candidate,
    ClusterJob,
    layout_problems,
    parse_devices,
    search_layouts,
)
from sharpen.plan.layout_cost import layout_cost
from sharpen.plan.layout_search import degrees
from sharpen.plan.layouts import divisors, layout_memory

WITHIN = 1.011  # layouts that are this near in time count as equal


def job(**changes: Any) -> ClusterJob:
    fields: dict[str, Any] = {"spec": small_spec(), "seq_len": 2048, "global_batch": 24}
    return ClusterJob(**{**fields, **changes})


jobs = st.builds(
    job,
    seq_len=st.sampled_from([100, 2048, 5000]),
    global_batch=st.integers(1, 48),
    adapters=st.sampled_from([None, Adapters(rank=4)]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)


@settings(max_examples=40, deadline=None)
@given(job=jobs, devices=st.integers(1, 40), all_axes=st.booleans())
def test_every_layout_found_is_legal_and_fits_fastest_first(
    job: ClusterJob, devices: int, all_axes: bool
) -> None:
    cluster = parse_devices(f"{devices}xL40S")
    found = search_layouts(job, cluster, all_axes=all_axes)
    assert 0 < len(found.ranked) <= found.fitting <= found.tried
    for cost in found.ranked:
        layout = cost.layout
        assert layout_problems(job, layout, devices) == []
        assert job.global_batch == layout.micro_batch * layout.data_ranks * cost.micro_batches
        assert cost.fits and cost.peak_bytes <= cluster.memory_bytes
        if layout.runs:
            legal = layout.parallel().layout(devices)
            assert (legal.state_ranks, legal.data_ranks) == (layout.state_ranks, layout.data_ranks)
        else:
            assert all_axes
    times = [cost.step_s for cost in found.ranked]
    assert all(a <= b * WITHIN for a, b in itertools.pairwise(times))
    assert found.closest is None


@settings(max_examples=25, deadline=None)
@given(job=jobs, devices=st.sampled_from([4, 6, 8, 12]), gigabytes=st.floats(1.55, 1.8))
def test_more_memory_never_makes_the_best_slower(
    job: ClusterJob, devices: int, gigabytes: float
) -> None:
    small = search_layouts(job, parse_devices(f"{devices}xL40S:memory_gb={gigabytes}"))
    large = search_layouts(job, parse_devices(f"{devices}xL40S:memory_gb={gigabytes * 1.2}"))
    assert large.fitting >= small.fitting
    if small.ranked:
        assert large.ranked[0].step_s <= small.ranked[0].step_s * WITHIN
    else:
        assert small.closest is None or small.closest.over_bytes > 0


@settings(max_examples=15, deadline=None)
@given(job=jobs, devices=st.sampled_from([2, 6, 8]), gigabytes=st.floats(1.55, 1.8))
def test_nothing_faster_fits_that_is_not_found(
    job: ClusterJob, devices: int, gigabytes: float
) -> None:
    """Against every combination of degrees, stage, micro-batch and savings, legal or not."""
    cluster = parse_devices(f"{devices}xL40S:memory_gb={gigabytes}")
    fastest, smallest = float("inf"), float("inf")
    axes = divisors(devices)
    for replicate, shard, ring, sp in itertools.product(axes, axes, axes, axes):
        for stage, size, recompute, tiled in itertools.product(
            range(4), divisors(job.global_batch), ("none", "full"), (False, True)
        ):
            layout = Candidate(
                dp_replicate=replicate,
                dp_shard=shard,
                ring=ring,
                sp=sp,
                zero_stage=stage,  # type: ignore[arg-type]
                micro_batch=size,
                recompute=recompute,  # type: ignore[arg-type]
                tiled_mlp=tiled,
            )
            if layout_problems(job, layout, devices):
                continue
            if ring * sp > max(1, job.seq_len // 128) and job.seq_len > devices:
                continue  # left out: short pieces of a sequence
            smallest = min(smallest, sum(layout_memory(job, layout, cluster.assume).values()))
            cost = layout_cost(job, layout, cluster)
            if cost.fits:
                fastest = min(fastest, cost.step_s)
    found = search_layouts(job, cluster)
    if found.ranked:
        assert found.ranked[0].step_s <= fastest * WITHIN
    else:
        assert fastest == float("inf")
        assert found.closest is None or found.closest.peak_bytes <= smallest * 1.001


def test_each_set_of_degrees_is_tried_once() -> None:
    found = list(degrees(job(), 24))
    assert len(found) == len(set(found))
    assert all(c.dp_replicate == 1 or (c.zero_stage and c.state_ranks > 1) for c in found)
    assert all(c.runs for c in found)
    axes = list(degrees(job(), 24, all_axes=True))
    assert len(axes) > len(found)
    assert {c.tp for c in axes} == {1, 2}  # of 6 heads and width 100
    assert all(c.zero_stage <= 1 for c in axes if c.pp > 1)


def test_a_batch_of_one_leaves_sequence_parallelism() -> None:
    found = search_layouts(job(global_batch=1, seq_len=1 << 15), parse_devices("8xH100"))
    assert {c.layout.ring * c.layout.sp for c in found.ranked} == {8}


def test_prime_counts_have_layouts_too() -> None:
    found = search_layouts(job(global_batch=8), parse_devices("7xH100"))
    assert found.ranked
    assert all(c.layout.data_ranks == 1 for c in found.ranked)


def test_more_devices_than_tokens_have_no_layout() -> None:
    found = search_layouts(job(global_batch=1, seq_len=2), parse_devices("4xH100"))
    assert (found.ranked, found.closest, found.tried) == ((), None, 0)


def test_what_fits_nowhere_names_the_closest() -> None:
    large = ClusterJob(spec=LLAMA3_8B, seq_len=2048, global_batch=64)
    found = search_layouts(large, parse_devices("4xRTX4090"))
    assert not found.ranked and found.fitting == 0
    assert found.closest is not None
    assert found.closest.layout.zero_stage == 3
    assert found.closest.layout.recompute == "full"
    assert found.closest.over_bytes > 0


def test_tiles_are_left_out_when_not_asked_for() -> None:
    large = ClusterJob(spec=LLAMA3_8B, seq_len=32_768, global_batch=8)
    with_tiles = search_layouts(large, parse_devices("8xA100-40gb"))
    without = search_layouts(large, parse_devices("8xA100-40gb"), tiled_mlp=False)
    assert any(c.layout.tiled_mlp for c in with_tiles.ranked)
    assert not any(c.layout.tiled_mlp for c in without.ranked)
    assert with_tiles.fitting > without.fitting
