"""Stages 0 to 3 on several processes against one process, and checkpoints between layouts."""

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from distributed import run
from sharpen.models.lora import LoraConfig, add_lora
from sharpen.plan import ParallelConfig
from sharpen.train import TrainConfig, Trainer
from sharpen.train.checkpoint import CheckpointManager
from sharpen.train.config import CheckpointConfig
from sharpen.train.zero.flat import cut_rows
from small_models import save_small_dataset, small_model

STEPS = 4
# hidden 72 and 3 key heads of 8: rows that neither 2 nor 3 ranks can share evenly
ODD = {"hidden_size": 72, "num_heads": 9, "num_kv_heads": 3, "head_dim": 8, "vocab_size": 305}


def make_config(**changes: Any) -> TrainConfig:
    parallel = ParallelConfig(**changes.pop("parallel", {}))
    options: dict[str, Any] = {
        "steps": STEPS,
        "global_batch": 6,
        "lr": 1e-2,
        "max_norm": 0.5,
        "parallel": parallel,
        "checkpoint": CheckpointConfig(every=2, keep=9),
    }
    return TrainConfig(**{**options, **changes})


def make_model(method: str) -> nn.Module:
    model = small_model(std=0.05, **(ODD if method != "untied" else {"tie_word_embeddings": False}))
    if method == "lora":
        add_lora(model, LoraConfig(rank=3), seed=1)
        return model
    model.requires_grad_(True)
    if method == "frozen":
        model.model.layers[0].requires_grad_(False)
    return model


class Losses:
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_start(self, trainer: Trainer) -> None:
        self.start = trainer.step

    def on_step(self, trainer: Trainer, report: Any) -> None:
        self.values.append(report.loss)


def train(folder: str, method: str, changes: dict[str, Any], steps: int = STEPS) -> dict[str, Any]:
    """One training; on every rank alike."""
    losses = Losses()
    output = changes.pop("output", None)
    config = make_config(**changes)
    trainer = Trainer(make_model(method), folder, config, output=output, seed=3, callbacks=[losses])
    trainer.num_steps = steps
    trainer.fit()
    return {"losses": losses.values, "start": losses.start, "peak": len(trainer.optimizer.state)}


def several(folder: str, jobs: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    return [train(folder, method, copy.deepcopy(changes)) for method, changes in jobs]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data")
    save_small_dataset(folder)
    return str(folder)


@pytest.fixture(scope="module")
def alone(data: str) -> dict[str, list[float]]:
    """Losses of one process."""
    return {
        method: train(data, method, {"micro_batch": 2})["losses"]
        for method in ("full", "lora", "frozen", "untied")
    }


def layouts(world: int) -> list[tuple[str, dict[str, Any]]]:
    if world == 3:
        jobs = [("full", {"parallel": {"zero_stage": stage}}) for stage in (1, 3)]
        return [*jobs, ("lora", {"micro_batch": 2, "parallel": {"zero_stage": 3}})]
    jobs = [
        ("full", {"micro_batch": micro, "parallel": {"zero_stage": stage}})
        for stage in range(4)
        for micro in (1, 3)
    ]
    jobs += [(method, {"parallel": {"zero_stage": 1}}) for method in ("lora", "frozen", "untied")]
    jobs += [(method, {"parallel": {"zero_stage": 3}}) for method in ("lora", "frozen", "untied")]
    return jobs


@pytest.mark.parametrize("world", [2, 3])
def test_every_stage_trains_as_one_process_does(
    world: int, data: str, alone: dict[str, list[float]]
) -> None:
    jobs = layouts(world)
    for rank in run(several, world, data, jobs):
        for (method, changes), done in zip(jobs, rank, strict=True):
            torch.testing.assert_close(
                torch.tensor(done["losses"]),
                torch.tensor(alone[method]),
                rtol=2e-5,
                atol=2e-5,
                msg=lambda text, job=(method, changes): f"{job}: {text}",
            )


def test_sequences_on_several_ranks_train_as_on_one(
    data: str, alone: dict[str, list[float]]
) -> None:
    """Rows of 96 tokens with several documents and unequal labels; 9 query heads, 3 key heads."""
    layouts = [
        {"sp": 2, "zero_stage": 0},
        {"sp": 2, "zero_stage": 1},
        {"ring": 2, "zero_stage": 3},
        {"ring": 2, "load_balance": "none", "zero_stage": 2},
    ]
    jobs: list[tuple[str, dict[str, Any]]] = [("full", {"parallel": one}) for one in layouts]
    jobs.append(("lora", {"micro_batch": 3, "parallel": {"sp": 2, "zero_stage": 3}}))
    for (method, changes), done in zip(jobs, run(several, 2, data, jobs)[0], strict=True):
        torch.testing.assert_close(
            torch.tensor(done["losses"]),
            torch.tensor(alone[method]),
            rtol=2e-5,
            atol=2e-5,
            msg=lambda text, job=changes: f"{job}: {text}",
        )
    jobs = [("full", {"parallel": {"sp": 2, "dp_shard": 2, "zero_stage": 3}})]
    jobs.append(("full", {"parallel": {"sp": 2, "ring": 2, "zero_stage": 1}}))
    for done in run(several, 4, data, jobs)[0]:
        torch.testing.assert_close(
            torch.tensor(done["losses"]), torch.tensor(alone["full"]), rtol=2e-5, atol=2e-5
        )


def test_copies_of_a_sharded_model(data: str, alone: dict[str, list[float]]) -> None:
    """HSDP: 2 copies x 2 shares."""
    jobs = [
        ("full", {"global_batch": 4, "parallel": {"dp_replicate": 2, "zero_stage": stage}})
        for stage in (1, 2, 3)
    ]
    expected = train(data, "full", {"global_batch": 4})["losses"]
    for done in run(several, 4, data, jobs)[0]:
        torch.testing.assert_close(
            torch.tensor(done["losses"]), torch.tensor(expected), rtol=2e-5, atol=2e-5
        )


HALF = STEPS // 2 + 1  # a step at which no periodic checkpoint is due


def in_turn(folder: str, jobs: list[tuple[str, dict[str, Any], int]]) -> list[Any]:
    """Trainings one after the other: folder of the checkpoints, layout, last step."""
    return [
        train(folder, "full", {"output": output, "parallel": dict(parallel)}, steps)
        for output, parallel, steps in jobs
    ]


def saved(output: Path) -> dict[str, torch.Tensor]:
    manager = CheckpointManager(output)
    found = manager.load_latest()
    manager.close()
    assert found is not None and found.step == STEPS
    return {**found.tensors("model"), **found.tensors("optim")}


def test_checkpoints_resume_in_any_layout_and_in_the_same_one_to_the_bit(
    data: str, alone: dict[str, list[float]], tmp_path: Path
) -> None:
    def at(name: str) -> str:
        return str(tmp_path / name)

    one, stages = {}, [{"zero_stage": stage} for stage in range(4)]
    jobs = []
    for stage in (1, 3):
        jobs += [
            (at(f"whole{stage}"), stages[stage], STEPS),
            (at(f"broken{stage}"), stages[stage], HALF),
            (at(f"broken{stage}"), stages[stage], STEPS),
        ]
    run(in_turn, 2, data, [*jobs, (at("a"), stages[3], HALF), (at("b"), stages[1], HALF)])
    for stage in (1, 3):
        whole, broken = saved(tmp_path / f"whole{stage}"), saved(tmp_path / f"broken{stage}")
        assert whole.keys() == broken.keys()
        assert all(torch.equal(whole[name], broken[name]) for name in whole)
    resumed = in_turn(data, [(at("a"), one, STEPS), (at("c"), one, HALF)])[:1]
    resumed += run(in_turn, 3, data, [(at("b"), stages[3], STEPS), (at("d"), stages[0], HALF)])[0][
        :1
    ]
    resumed += run(in_turn, 2, data, [(at("c"), stages[2], STEPS), (at("d"), stages[1], STEPS)])[0]
    for done in resumed:
        assert done["start"] == HALF
        torch.testing.assert_close(
            torch.tensor(done["losses"]),
            torch.tensor(alone["full"][HALF:]),
            rtol=5e-5,
            atol=5e-5,
        )


@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 7)), min_size=1, max_size=8),
    parts=st.integers(1, 6),
)
def test_cuts_lie_between_rows_and_balance(sizes: list[tuple[int, int]], parts: int) -> None:
    cuts = cut_rows(sizes, parts)
    total = sum(rows * width for rows, width in sizes)
    assert len(cuts) == parts + 1 and cuts[0] == 0 and cuts[-1] == total
    assert cuts == sorted(cuts)
    borders, start = {0}, 0
    for rows, width in sizes:
        borders |= {start + width * row for row in range(rows + 1)}
        start += rows * width
    assert set(cuts) <= borders
    widest = max(width for _, width in sizes)
    assert all(b - a <= total / parts + widest for a, b in itertools.pairwise(cuts))
