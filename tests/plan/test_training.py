import dataclasses

import pytest

from plan_profile import PROFILE
from sharpen.plan import Adapters, TrainingJob, training_memory, training_step_s
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
