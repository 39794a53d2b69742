"""Every optimizer in a training: under ZeRO 1 and 3, and resumed in another layout."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor

from distributed import run
from optim.test_conformance import GradientOptimizerConformance
from sharpen.optim import available
from sharpen.train import Trainer
from sharpen.train.checkpoint import CheckpointManager
from small_models import save_small_dataset
from train.zero.test_zero import STEPS, make_config, make_model, train

SUITES = {kind.name: kind for kind in GradientOptimizerConformance.__subclasses__()}
HALF = STEPS // 2
# Few gradients leave SOAP's bases free in a null space, and they turn with the last bit of a sum.
LOOSE = {"soap": 0.05}


def changes(name: str, folder: Path, stage: int) -> dict[str, Any]:
    options = {**SUITES[name].options, "min_lowrank_dim": 1}
    lr = options.pop("lr")
    layout = {"parallel": {"zero_stage": stage}}
    return {"optimizer": name, "lr": lr / 3, "optimizer_options": options, **layout} | (
        {"output": str(folder / f"{name}-{stage}")} if stage == 3 else {}
    )


def on_ranks(data: str, folder: str) -> list[dict[str, Any]]:
    """Stage 1 to the end, stage 3 half of the way."""
    out = []
    for name in available():
        jobs = [("full", changes(name, Path(folder), stage)) for stage in (1, 3)]
        whole, half = (train(data, *jobs[0]), train(data, *jobs[1], HALF))
        out.append({"stage 1": whole["losses"], "stage 3": half["losses"]})
    return out


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    data = tmp_path_factory.mktemp("data")
    save_small_dataset(data)
    return str(data), tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def shared(folders: tuple[str, Path]) -> dict[str, dict[str, Any]]:
    ranks = run(on_ranks, 2, folders[0], str(folders[1]))
    return dict(zip(available(), ranks[0], strict=True))


@pytest.mark.parametrize("name", available())
def test_ranks_train_as_one_process_and_it_goes_on_from_theirs(
    name: str, shared: dict[str, dict[str, Any]], folders: tuple[str, Path]
) -> None:
    data, folder = folders
    alone = train(data, "full", changes(name, folder, 0))["losses"]
    resumed = train(data, "full", changes(name, folder, 0) | changes(name, folder, 3))
    found = {
        "stage 1": shared[name]["stage 1"],
        "stage 3": shared[name]["stage 3"] + resumed["losses"],
    }
    assert resumed["start"] == HALF
    assert alone[-1] < alone[0]
    for what, losses in found.items():
        torch.testing.assert_close(
            torch.tensor(losses),
            torch.tensor(alone),
            rtol=LOOSE.get(name, 1e-4),
            atol=1e-4,
            msg=lambda text, what=what: f"{name}, {what}: {text}",
        )


def weights_after(data: str, stage: int, output: str, steps: int) -> torch.Tensor:
    config = make_config(optimizer="schedule_free_adamw", parallel={"zero_stage": stage})
    trainer = Trainer(make_model("full"), data, config, output=output, seed=3)
    trainer.num_steps = steps
    trainer.fit()
    p = next(trainer.model.parameters())
    return (p.full_tensor() if isinstance(p, DTensor) else p).detach()


def averages(data: str, folder: str) -> list[torch.Tensor]:
    return [weights_after(data, stage, f"{folder}/{stage}", STEPS) for stage in (1, 3)]


def test_a_training_ends_with_the_averaged_weights(
    folders: tuple[str, Path], tmp_path: Path
) -> None:
    """On one process and several, and when a finished training is taken up once more."""
    data, _ = folders
    alone = weights_after(data, 0, f"{tmp_path}/0", STEPS)
    half = weights_after(data, 0, f"{tmp_path}/half", HALF)
    assert not torch.equal(half, alone)
    gone_on = weights_after(data, 0, f"{tmp_path}/half", STEPS)
    again = weights_after(data, 0, f"{tmp_path}/0", STEPS)
    assert torch.equal(again, alone)
    for found in (gone_on, *run(averages, 2, data, str(tmp_path))[0]):
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)
    manager = CheckpointManager(tmp_path / "3")
    last = manager.load_latest()
    manager.close()
    assert last is not None and last.step == STEPS
    name = next(name for name, _ in make_model("full").named_parameters())
    torch.testing.assert_close(last.read("model", name), alone, rtol=1e-4, atol=1e-5)
