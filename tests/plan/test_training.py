import dataclasses
from typing import Any

import pytest

from plan_profile import PROFILE
from sharpen.plan import (
    Adapters,
    Candidate,
    ClusterJob,
    TrainingJob,
    layout_memory,
    live_bytes,
    training_memory,
    training_step_s,
)
from sharpen.plan.training import step_flops
from small_models import small_spec

JOB = TrainingJob(spec=small_spec(), seq_len=128)


def changed(**changes: object) -> TrainingJob:
    return dataclasses.replace(JOB, **changes)  # type: ignore[arg-type]


def total(job: TrainingJob) -> int:
    return sum(training_memory(job, 0).values())


def test_states_are_exact() -> None:
    count = small_spec().num_parameters
    parts = training_memory(JOB, 123)
    assert parts["process"] >= 123
    assert (parts["weights"], parts["gradients"], parts["optimizer"]) == (
        4 * count,
        4 * count,
        8 * count,
    )
    lora = changed(adapters=Adapters(rank=4), dtype="bfloat16")
    # 2 layers of q and o (64 + 64), k and v (64 + 32), gate, up and down (64 + 128).
    adapters = 2 * 4 * (2 * 128 + 2 * 96 + 3 * 192)
    assert lora.trained_parameters == adapters
    parts = training_memory(lora, 0)
    assert parts["weights"] == 2 * count + 4 * adapters
    assert parts["optimizer"] == 8 * adapters
    only = changed(adapters=Adapters(rank=4, targets=("q_proj",)))
    assert only.trained_parameters == 2 * 4 * 128


def test_what_ought_to_lower_memory_does() -> None:
    assert total(changed(checkpointing="full")) < total(JOB)
    full, selective = (total(changed(checkpointing=mode)) for mode in ("full", "selective"))
    assert full < selective < total(JOB)
    # Of two blocks one keeps all; the other's input comes on top of the block computed again.
    assert total(changed(checkpointing="full", checkpoint_every=2)) > full
    assert total(changed(mlp_tile=32)) < total(JOB)
    deep = dataclasses.replace(JOB, spec=small_spec(num_layers=8), checkpointing="full")
    assert total(dataclasses.replace(deep, offload=True)) < total(deep)
    assert total(changed(seq_len=64)) < total(JOB)
    assert total(changed(micro_batch=2)) > total(JOB)
    assert total(changed(adapters=Adapters())) < total(JOB)
    assert total(changed(grad_accum=4)) == total(JOB)
    lora = changed(adapters=Adapters())
    assert total(dataclasses.replace(lora, dtype="bfloat16")) < total(lora)


def test_what_ought_to_take_longer_does() -> None:
    def seconds(job: TrainingJob) -> float:
        return sum(training_step_s(job, PROFILE).values())

    assert seconds(changed(checkpointing="full")) > seconds(JOB)
    assert seconds(changed(mlp_tile=32)) > seconds(JOB)
    half, whole = (
        seconds(changed(checkpointing="full", checkpoint_every=every)) for every in (2, 1)
    )
    assert seconds(JOB) < half < whole
    assert seconds(changed(checkpointing="selective")) < whole
    assert seconds(changed(micro_batch=2)) > seconds(JOB)
    assert seconds(changed(grad_accum=2)) > 1.5 * seconds(JOB)
    fast = dataclasses.replace(PROFILE, copy_gbps=1e9, op_s=0.0)
    products = 2 * JOB.tokens * small_spec().layer_matmul_parameters * 2 * 3
    lower = products / 20e9
    assert sum(training_step_s(JOB, fast).values()) > lower


def test_model_flops_leave_out_recomputation() -> None:
    assert step_flops(changed(checkpointing="full")) == step_flops(JOB)
    assert step_flops(changed(grad_accum=3)) == pytest.approx(3 * step_flops(JOB))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("adapters", [None, Adapters(rank=4)])
def test_ranks_of_one_machine_share_states_as_ranks_of_many_do(
    dtype: Any, stage: Any, adapters: Adapters | None
) -> None:
    spec = small_spec(tie_word_embeddings=False)
    shared = {"spec": spec, "seq_len": 128, "dtype": dtype, "adapters": adapters}
    job = TrainingJob(world_size=2, state_ranks=2, zero_stage=stage, **shared)
    found = training_memory(job, 0)
    many = layout_memory(
        ClusterJob(global_batch=2, **shared), Candidate(dp_shard=2, zero_stage=stage)
    )
    # One owner's gradients in float32 are a bucket there; here they are gradients.
    owned = many["buckets"] if stage == 1 else 0
    assert found["gradients"] == many["gradients"] + owned
    assert found["optimizer"] == many["optimizer"]
    gathered = many["gathered"] if stage == 2 else 0
    live = live_bytes(spec, parameter_bytes=job.element_bytes) if stage == 3 else 0
    assert found["weights"] == many["parameters"] + gathered + live
    alone = training_memory(dataclasses.replace(job, world_size=1), 0)
    assert alone["optimizer"] == 8 * job.trained_parameters
    assert job.step_tokens == 2 * 128


def test_methods_differ_in_what_they_train() -> None:
    lora, dora = (changed(adapters=Adapters(rank=4, dora=d)) for d in (False, True))
    assert sum(training_step_s(dora, PROFILE).values()) > sum(
        training_step_s(lora, PROFILE).values()
    )
    assert total(dora) > total(lora)
    half = changed(frozen_parameters=JOB.spec.num_parameters // 2)
    assert step_flops(lora) < step_flops(half) < step_flops(JOB)
    assert total(half) < total(JOB)
    assert total(dataclasses.replace(half, trains_head=False)) < total(half)
