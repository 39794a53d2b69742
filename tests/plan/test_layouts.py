import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plan_shapes import LLAMA3_8B, small_spec
from sharpen.core.errors import ConfigError
from sharpen.plan import (
    Adapters,
    Candidate,
    ClusterJob,
    TrainingJob,
    activation_bytes,
    layout_memory,
    layout_problems,
    megatron_bytes,
    ring_bytes,
    training_memory,
    ulysses_bytes,
    zero_step_bytes,
)
from sharpen.plan.hardware import Assumptions
from sharpen.plan.layouts import divisors, layout_traffic, local_parameters

JOB = ClusterJob(spec=LLAMA3_8B, seq_len=8192, global_batch=64)
LONG = ClusterJob(spec=LLAMA3_8B, seq_len=131_072, global_batch=1)
BARE = Assumptions(reserved_gb=0, slack=0)


def sent(job: ClusterJob, layout: Candidate) -> dict[str, int]:
    return {t.purpose: t.bytes for t in layout_traffic(job, layout)}


@pytest.mark.parametrize(
    ("layout", "parts"),
    [
        (
            Candidate(dp_shard=8, zero_stage=3),
            (4_015_130_624, 4_015_130_624, 8_030_261_248, 2_973_802_496),
        ),
        (
            Candidate(sp=2, ring=4, zero_stage=2),
            (4_015_130_624, 4_015_130_624, 8_030_261_248, 16_060_522_496),
        ),
        (Candidate(dp_shard=8, zero_stage=1), (16_060_522_496, 16_060_522_496, 12_045_391_872, 0)),
        (Candidate(dp_shard=8), (32_121_044_992, 32_121_044_992, 64_242_089_984, 15_009_316_864)),
        (
            Candidate(dp_replicate=8, dp_shard=8, zero_stage=3),
            (4_015_130_624, 4_015_130_624, 8_030_261_248, 2_973_802_496),
        ),
    ],
)
def test_states_are_shared_over_data_and_sequence_ranks(
    layout: Candidate, parts: tuple[int, ...]
) -> None:
    found = layout_memory(JOB, layout)
    assert tuple(found[k] for k in ("parameters", "gradients", "optimizer", "gathered")) == parts


def test_owners_keep_their_gradients_in_float32() -> None:
    owned = layout_memory(JOB, Candidate(dp_shard=8, zero_stage=1))["buckets"]
    assert owned == 4 * LLAMA3_8B.num_parameters // 8


def test_one_device_holds_what_the_calibrated_model_of_one_process_says() -> None:
    spec = small_spec()
    job = ClusterJob(spec=spec, seq_len=256, global_batch=4, dtype="float32")
    found = layout_memory(job, Candidate(micro_batch=2))
    single = training_memory(TrainingJob(spec=spec, seq_len=256, micro_batch=2), 0)
    names = {"parameters": "weights", "gradients": "gradients", "optimizer": "optimizer"}
    for name, other in names.items():
        assert found[name] == single[other]
    assert found["activations"] == single["activations"]


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("stored", [False, True])
def test_chunks_of_attention_leave_what_the_calibrated_model_says(
    recompute: Any, stored: bool
) -> None:
    spec = small_spec()
    job = ClusterJob(spec=spec, seq_len=256, global_batch=4, dtype="float32")
    act: dict[str, Any] = {"attention_chunk": 64, "attention_stored": stored}
    found = layout_memory(job, Candidate(micro_batch=2, recompute=recompute, **act))
    single = training_memory(
        TrainingJob(spec=spec, seq_len=256, micro_batch=2, checkpointing=recompute, **act), 0
    )
    assert found["activations"] == single["activations"]
    ring = Candidate(ring=2, micro_batch=2, attention_chunk=64)
    assert "attention_chunk=64 needs ring=1, not 2" in layout_problems(job, ring, 2)[0]


def test_adapters_alone_have_gradients_and_states() -> None:
    job = dataclasses.replace(JOB, adapters=Adapters(rank=16))
    found = layout_memory(job, Candidate(dp_shard=8, zero_stage=3))
    # Rank 16 times inputs and outputs of q and o, k and v, gate, up and down.
    adapters = 32 * 16 * (2 * 8192 + 2 * 5120 + 3 * 18_432)
    assert found["parameters"] == 2 * LLAMA3_8B.num_parameters // 8 + adapters // 2
    assert (found["gradients"], found["optimizer"]) == (adapters // 2, adapters)
    four_bits = layout_memory(
        dataclasses.replace(job, nf4=True), Candidate(dp_shard=8, zero_stage=3)
    )
    blocks = LLAMA3_8B.num_layers * LLAMA3_8B.layer_matmul_parameters / 8
    assert found["parameters"] - four_bits["parameters"] == pytest.approx(blocks * 1.484, rel=1e-3)
    assert sent(job, Candidate(dp_shard=8, zero_stage=1))["states"] == adapters * 4 * 7 // 8


def test_recomputation_keeps_a_blocks_input_and_tiling_drops_the_mlp() -> None:
    layout = Candidate(dp_shard=8, zero_stage=3)
    block = activation_bytes(LLAMA3_8B, 8192, norm="fused", fused_mlp=True)
    ends = 8192 * 2 * (2 * 4096 + 2 * 128)
    assert layout_memory(JOB, layout)["activations"] == 32 * block + ends
    full = layout_memory(JOB, dataclasses.replace(layout, recompute="full"))
    assert full["activations"] == 32 * 8192 * 2 * 4096 + block + ends
    selective = layout_memory(JOB, dataclasses.replace(layout, recompute="selective"))
    attention = 8192 * (2 * (2 * 4096 + 2 * 1024) + 4 * 32)
    assert selective["activations"] == full["activations"] + 32 * attention
    some = dataclasses.replace(layout, recompute="full", recompute_every=3)  # 11 of 32 blocks
    kept = 21 * block + 11 * 8192 * 2 * 4096 + block + ends
    assert layout_memory(JOB, some)["activations"] == kept
    away = layout_memory(JOB, dataclasses.replace(some, offload=True))
    assert away["activations"] == kept - (11 - 3) * 8192 * 2 * 4096
    tiled = layout_memory(JOB, dataclasses.replace(layout, tiled_mlp=True))
    assert tiled["activations"] == 32 * (block - 8192 * 3 * 2 * 14_336) + ends
    assert tiled["scratch"] < layout_memory(JOB, layout)["scratch"]


def test_a_pipelines_first_stage_holds_as_many_passes_as_stages() -> None:
    plain = Candidate(pp=4)
    one = activation_bytes(LLAMA3_8B, 8192, norm="fused", fused_mlp=True)
    ends = 8192 * 2 * (2 * 4096 + 2 * 128)
    assert layout_memory(JOB, plain)["activations"] == 4 * 8 * one + ends
    chunks = dataclasses.replace(plain, chunks=2)  # 2 (4 - 1) + 4 + 1 passes of 4 layers
    assert layout_memory(JOB, chunks)["activations"] == 11 * 4 * one + ends
    assert local_parameters(LLAMA3_8B, 1, 4)[0] == 8 * 218_112_000 + 525_336_576 + 4096


@given(
    sp=st.sampled_from([1, 2, 3, 6]),
    ring=st.sampled_from([1, 2, 5]),
    shard=st.sampled_from([1, 2, 4]),
    stage=st.integers(0, 3),
    recompute=st.sampled_from(["none", "selective", "full"]),
    tiled=st.booleans(),
)
def test_memory_grows_with_the_micro_batch_and_falls_with_every_saving(
    sp: int, ring: int, shard: int, stage: Any, recompute: Any, tiled: bool
) -> None:
    job = ClusterJob(spec=small_spec(), seq_len=1024, global_batch=16)

    def peak(**changes: Any) -> int:
        fields = {
            "sp": sp,
            "ring": ring,
            "dp_shard": shard,
            "zero_stage": stage,
            "recompute": recompute,
            "tiled_mlp": tiled,
        }
        return sum(layout_memory(job, Candidate(**{**fields, **changes})).values())

    assert peak(micro_batch=1) <= peak(micro_batch=2)  # of 16 / shard, so more than one pass
    assert peak(tiled_mlp=True) <= peak(tiled_mlp=False)
    assert peak(recompute="full") <= peak(recompute="selective")
    assert peak(recompute="full") <= peak(recompute="none")


def test_sequence_parallelism_sends_what_the_worked_examples_say() -> None:
    assert sent(LONG, Candidate(sp=8))["ulysses"] == 32 * 2 * 293_601_280
    ring = sent(LONG, Candidate(ring=8))["ring"]
    assert ring == 32 * (469_762_048 + 1_409_286_144)
    again = sent(LONG, Candidate(sp=8, recompute="full"))["ulysses"]
    assert again == 32 * 3 * 293_601_280


def test_both_kinds_of_sequence_parallelism_send_their_own_shares() -> None:
    found = sent(LONG, Candidate(sp=4, ring=2))
    tokens = 131_072 // 8
    heads = max(x.forward + x.backward for x in ulysses_bytes(32, 8, 128, ranks=4, tokens=tokens))
    assert found["ulysses"] == 32 * heads
    ring = ring_bytes(2 * 128, ranks=2, tokens=131_072 // 2)
    assert found["ring"] == 32 * (ring.forward + ring.backward)


@pytest.mark.parametrize(
    ("stage", "elements"), [(0, 2 * 4), (1, 2 + 2), (2, 8 * 4 + 2), (3, 8 * (4 + 2 * 2))]
)
def test_states_sent_a_step_of_eight_micro_batches(stage: Any, elements: int) -> None:
    """Stage 1 moves bfloat16; others reduce float32 and gather bfloat16."""
    found = sent(JOB, Candidate(dp_shard=8, zero_stage=stage))["states"]
    assert found == pytest.approx(elements * LLAMA3_8B.num_parameters * 7 / 8, rel=1e-9)


def test_replicas_sum_their_shares_of_the_gradients() -> None:
    found = sent(JOB, Candidate(dp_replicate=4, dp_shard=8, zero_stage=3))
    share = LLAMA3_8B.num_parameters // 8
    assert found["replicas"] == 2 * zero_step_bytes(share, stage=0, ranks=4, gradient_bytes=4)
    together = sent(JOB, Candidate(dp_replicate=1, dp_shard=32))
    assert set(together) == {"states"}


def test_planned_axes_send_too() -> None:
    found = sent(JOB, Candidate(tp=8, pp=2, micro_batch=2))
    one = megatron_bytes(4096, ranks=8, tokens=2 * 8192)
    assert found["tensor"] == 32 * 16 * (one.forward + one.backward)
    assert found["pipeline"] == 2 * 32 * 2 * 2 * 8192 * 4096 // 8
    assert sent(JOB, Candidate()) == {}


@pytest.mark.parametrize(
    ("job", "layout", "devices", "message"),
    [
        (JOB, Candidate(dp_shard=8), 16, "dp_shard 8 is 8 devices, not 16; plan for 8 devices"),
        (JOB, Candidate(dp_shard=12), 12, "64 is not a multiple of .* = 12; choose 60 or 72"),
        (JOB, Candidate(dp_shard=8, micro_batch=16), 8, "= 128; choose 128"),
        (JOB, Candidate(sp=64), 64, "sp=64 is above the model's 32 heads"),
        (
            ClusterJob(spec=LLAMA3_8B, seq_len=4, global_batch=1),
            Candidate(ring=8),
            8,
            "ring 8 x sp 1 is above the sequence's 4 tokens",
        ),
        (JOB, Candidate(tp=3), 3, "tp=3 must divide num_heads=32"),
        (JOB, Candidate(tp=2, sp=2), 4, "not planned together"),
        (JOB, Candidate(pp=3), 3, "must divide num_layers=32"),
        (JOB, Candidate(chunks=2), 1, "chunks need pp above 1"),
        (
            ClusterJob(spec=LLAMA3_8B, seq_len=8192, global_batch=6),
            Candidate(pp=4, chunks=2),
            4,
            "the 6 micro-batches must be a multiple of pp=4",
        ),
    ],
)
def test_illegal_layouts_say_why(
    job: ClusterJob, layout: Candidate, devices: int, message: str
) -> None:
    problems = layout_problems(job, layout, devices)
    assert len(problems) == 1
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(problems[0])


def test_the_trainers_config_of_a_layout() -> None:
    layout = Candidate(dp_replicate=2, dp_shard=3, ring=4, sp=5, zero_stage=1)
    config = layout.parallel()
    assert config.layout(120).state_ranks == layout.state_ranks == 60
    assert layout.runs and layout.to_dict()["runs"]
    assert layout.label() == "dp_replicate 2, dp_shard 3, ring 4, sp 5, stage 1, micro_batch 1"
    with pytest.raises(ConfigError, match="tp=2 and pp=1 are planned only"):
        Candidate(tp=2).parallel()
    some = Candidate(recompute="full", recompute_every=2, offload=True)
    assert some.label().endswith("recompute, every 2 blocks, offload")
    full = Candidate(pp=2, chunks=2, recompute="full", tiled_mlp=True)
    assert full.label().endswith("micro_batch 1, recompute, tiled MLP")
    assert Candidate(recompute="selective").label().endswith("selective recompute")


def test_a_job_has_ranges() -> None:
    with pytest.raises(ConfigError, match="seq_len=0"):
        ClusterJob(spec=LLAMA3_8B, seq_len=0, global_batch=1)


@given(st.integers(1, 5000))
def test_divisors_are_all_of_them(number: int) -> None:
    assert divisors(number) == [d for d in range(1, number + 1) if number % d == 0]
