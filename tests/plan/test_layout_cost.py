import dataclasses
from typing import Any

import pytest

from plan_shapes import GPT_175B, LLAMA3_8B
from sharpen.plan import Adapters, Candidate, Cluster, ClusterJob, layout_problems, parse_devices
from sharpen.plan.hardware import Assumptions
from sharpen.plan.layout_cost import layout_cost, step_flops

JOB = ClusterJob(spec=LLAMA3_8B, seq_len=8192, global_batch=64)

# Devices, sequences a step, then seconds a step and MFU of Megatron-LM and of MegaScale: table 2 of
# Jiang et al., *MegaScale*, 2024, arXiv 2402.15627. Sequences of 2048 tokens, tensor and pipeline
# degrees 8 and 8 with six chunks a stage, 80 GB A100.
MEGASCALE = [
    (256, 768, 40.0, 0.530, 32.0, 0.653),
    (512, 768, 21.2, 0.499, 16.5, 0.635),
    (768, 768, 15.2, 0.467, 11.5, 0.613),
    (1024, 768, 11.9, 0.447, 8.9, 0.590),
    (3072, 6144, 29.02, 0.487, 23.66, 0.591),
    (6144, 6144, 14.78, 0.478, 12.21, 0.573),
    (8192, 6144, 12.24, 0.433, 9.56, 0.549),
    (12288, 6144, 8.57, 0.412, 6.34, 0.552),
]


def test_the_175b_model_has_its_parameters() -> None:
    assert GPT_175B.num_parameters == pytest.approx(175e9, rel=0.005)


@pytest.mark.parametrize("row", MEGASCALE, ids=lambda row: str(row[0]))
def test_published_times_give_the_published_mfu(row: tuple[float, ...]) -> None:
    """Both are of the paper; the FLOPs, causal, are ours."""
    devices, batch, *published = row
    job = ClusterJob(spec=GPT_175B, seq_len=2048, global_batch=int(batch))
    flops = step_flops(job, causal=True)
    for seconds, mfu in zip(published[::2], published[1::2], strict=True):
        assert flops / seconds / (devices * 312e12) == pytest.approx(mfu, abs=0.011)


@pytest.mark.parametrize("row", MEGASCALE, ids=lambda row: str(row[0]))
def test_megascales_steps_are_foreseen(row: tuple[float, ...]) -> None:
    """Within a tenth of what was measured, from published peaks and assumed shares of them."""
    devices, batch, megatron, _, megascale, mfu = row
    job = ClusterJob(spec=GPT_175B, seq_len=2048, global_batch=int(batch))
    layout = Candidate(tp=8, pp=8, chunks=6, dp_shard=int(devices) // 64, zero_stage=1)
    cluster = parse_devices(f"{int(devices)}xA100")
    assert not layout_problems(job, layout, cluster.count)
    cost = layout_cost(job, layout, cluster, causal=True)
    assert cost.step_s == pytest.approx(megascale, rel=0.1)
    assert cost.step_s < megatron
    assert cost.mfu == pytest.approx(mfu, abs=0.06)
    assert cost.fits


def with_links(cluster: Cluster, **changes: Any) -> Cluster:
    return dataclasses.replace(cluster, device=dataclasses.replace(cluster.device, **changes))


def assuming(cluster: Cluster, **changes: float) -> Cluster:
    return dataclasses.replace(cluster, assume=dataclasses.replace(cluster.assume, **changes))


def test_utilization_is_flops_over_time_and_peak() -> None:
    cluster = parse_devices("8xH100")
    plain = Candidate(dp_shard=8, zero_stage=3)
    cost = layout_cost(JOB, plain, cluster)
    tokens = 64 * 8192
    assert cost.mfu == pytest.approx(57_912_852_480 * tokens / cost.step_s / (8 * 989.4e12))
    assert cost.hfu == cost.mfu
    assert cost.tokens_per_s == pytest.approx(tokens / cost.step_s)
    causal = layout_cost(JOB, plain, cluster, causal=True)
    assert causal.mfu / cost.mfu == pytest.approx(51_471_187_968 / 57_912_852_480)
    again = layout_cost(JOB, dataclasses.replace(plain, recompute="full"), cluster)
    assert again.hfu == pytest.approx(again.mfu * 4 / 3)
    assert again.step_s > cost.step_s
    tiled = layout_cost(JOB, dataclasses.replace(plain, tiled_mlp=True), cluster)
    gate_up = 2 * 2 * 4096 * 14_336 * 32
    assert tiled.hfu / tiled.mfu == pytest.approx(1 + gate_up / 57_912_852_480)
    selective = layout_cost(JOB, dataclasses.replace(plain, recompute="selective"), cluster)
    weights = 2 * LLAMA3_8B.matmul_parameters
    assert selective.hfu / selective.mfu == pytest.approx(1 + weights / 57_912_852_480)
    assert cost.step_s < selective.step_s < again.step_s
    half = dataclasses.replace(plain, recompute="full", recompute_every=2)
    every_second = layout_cost(JOB, half, cluster)
    extra = again.hfu / again.mfu - 1
    assert every_second.hfu / every_second.mfu == pytest.approx(1 + extra / 2)
    assert every_second.step_s == pytest.approx((cost.step_s + again.step_s) / 2, rel=0.05)


def test_offload_takes_what_does_not_hide_behind_computing() -> None:
    full = Candidate(dp_shard=8, zero_stage=3, recompute="full")
    away = dataclasses.replace(full, offload=True)
    sent = 32 * 8192 * 2 * 4096  # bytes a micro-batch, each way
    for gb_s, overlap in ((64, 0.0), (0.5, 0.8)):
        cluster = parse_devices(f"8xH100:host_gb_s={gb_s}")
        cluster = dataclasses.replace(cluster, assume=Assumptions(overlap=overlap))
        cost, plain = (layout_cost(JOB, layout, cluster) for layout in (away, full))
        each = sent / (gb_s * 0.8e9)
        least = 8 * 2 * each * (1 - overlap)
        longer = cost.step_s - plain.step_s
        assert least * (1 - 1e-9) <= longer <= 8 * 2 * each * (1 + 1e-9)
        assert plain.step_s_by["offload"] == 0
    fast = parse_devices("8xH100:host_gb_s=64")
    hidden = layout_cost(JOB, away, fast).step_s_by["offload"]
    assert hidden == pytest.approx(8 * 2 * 0.2 * sent / (64 * 0.8e9))


def test_time_is_the_sum_of_its_parts_and_computing_is_flops_over_rates() -> None:
    cluster = parse_devices("8xH100:products=0.5,attention=0.25")
    cost = layout_cost(JOB, Candidate(dp_shard=8, zero_stage=3), cluster)
    assert cost.step_s == sum(cost.step_s_by.values())
    tokens = 64 * 8192 / 8
    weights = 6 * LLAMA3_8B.matmul_parameters * tokens
    assert cost.step_s_by["products"] == pytest.approx(weights / (0.5 * 989.4e12))
    seen = 3 * 32 * 2 * 8193 * 4096 * tokens
    assert cost.step_s_by["attention"] == pytest.approx(seen / (0.25 * 989.4e12))


def test_without_overlap_states_take_their_bytes_over_the_link() -> None:
    still = {"link_latency_s": 0, "network_latency_s": 0, "links": 1.0, "overlap": 0.0}
    cluster = assuming(parse_devices("8xH100"), **still)
    for stage in (0, 1, 2, 3):
        layout = Candidate(dp_shard=8, zero_stage=stage)  # type: ignore[arg-type]
        cost = layout_cost(JOB, layout, cluster)
        sent = next(t.bytes for t in cost.traffic if t.purpose == "states")
        assert cost.step_s_by["states"] == pytest.approx(sent / 450e9, rel=1e-6)


def test_with_full_overlap_a_fast_link_costs_nothing_and_a_slow_one_all() -> None:
    job = dataclasses.replace(JOB, global_batch=8)
    layout = Candidate(dp_shard=8, zero_stage=3)
    quick = assuming(parse_devices("8xH100"), overlap=1.0)
    ends = layout_cost(job, layout, quick).step_s_by["states"]
    assert 0 < ends < 0.05 * layout_cost(job, layout, quick).step_s
    slow = assuming(with_links(quick, link_gb_s=5.0), links=1.0)
    cost = layout_cost(job, layout, slow)
    sent = sum(t.bytes for t in cost.traffic)
    outside = cost.step_s_by["update"]
    assert cost.step_s - outside == pytest.approx(sent / 5e9, rel=0.08)


def test_heads_that_do_not_divide_cost_the_rank_that_has_most() -> None:
    job = ClusterJob(spec=LLAMA3_8B, seq_len=8192, global_batch=1)
    even = layout_cost(job, Candidate(sp=4, dp_shard=1), parse_devices("4xH100"))
    odd = layout_cost(job, Candidate(sp=5, dp_shard=1), parse_devices("5xH100"))
    assert even.step_s_by["attention"] / odd.step_s_by["attention"] == pytest.approx(
        (8 / 32) / (7 / 32), rel=1e-3
    )


def test_rings_hide_behind_attention_and_heads_do_not() -> None:
    job = ClusterJob(spec=LLAMA3_8B, seq_len=131_072, global_batch=1)
    cluster = parse_devices("8xH100")
    ring = layout_cost(job, Candidate(ring=8), cluster)
    heads = layout_cost(job, Candidate(sp=8), cluster)
    assert ring.step_s_by["exchange"] == 0 < heads.step_s_by["exchange"]
    slow = layout_cost(job, Candidate(ring=8), with_links(cluster, link_gb_s=1.0))
    assert slow.step_s_by["exchange"] > 0
    again = layout_cost(job, Candidate(sp=8, recompute="full"), cluster)
    assert again.step_s_by["exchange"] == pytest.approx(1.5 * heads.step_s_by["exchange"])


def test_a_pipelines_bubble_is_its_closed_form() -> None:
    job = ClusterJob(spec=LLAMA3_8B, seq_len=8192, global_batch=32)
    cluster = assuming(parse_devices("4xH100"), overlap=1.0)
    for chunks in (1, 4):
        cost = layout_cost(job, Candidate(pp=4, chunks=chunks), cluster)
        work = cost.step_s - cost.step_s_by["bubble"] - cost.step_s_by["update"]
        assert cost.step_s_by["bubble"] == pytest.approx(work * 3 / (chunks * 32))


def test_what_is_too_large_says_by_how_much() -> None:
    cost = layout_cost(JOB, Candidate(dp_shard=8), parse_devices("8xH100"))
    assert not cost.fits
    assert cost.over_bytes == cost.peak_bytes - 80_000_000_000 > 0
    document = cost.to_dict()
    assert document["peak_bytes"] == sum(document["memory"].values())
    assert document["over_bytes"] == cost.over_bytes


def test_training_adapters_skips_the_weights_gradients() -> None:
    lora = dataclasses.replace(JOB, adapters=Adapters(rank=8))
    cluster = parse_devices("8xH100")
    layout = Candidate(dp_shard=8, zero_stage=3)
    full, light = layout_cost(JOB, layout, cluster), layout_cost(lora, layout, cluster)
    ratio = light.step_s_by["products"] / full.step_s_by["products"]
    assert ratio == pytest.approx(2 / 3)
    assert light.peak_bytes < full.peak_bytes


def test_assumptions_change_what_is_reserved() -> None:
    cluster = parse_devices("8xH100")
    bare = dataclasses.replace(cluster, assume=Assumptions(reserved_gb=0, slack=0))
    layout = Candidate(dp_shard=8, zero_stage=3)
    assert layout_cost(JOB, layout, bare).memory["reserved"] == 0
    assert layout_cost(JOB, layout, cluster).memory["reserved"] > 1.5e9
