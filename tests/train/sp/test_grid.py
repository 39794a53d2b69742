"""Loss and every gradient of a trainer's step on 1 to 4 ranks a sequence, beside one process."""

import functools
import itertools
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist

import distributed
from sharpen.train import ActConfig, ParallelConfig, StepReport, TrainConfig, Trainer
from sharpen.train.parallel import Parallel
from small_models import save_small_dataset, small_model

HEADS = [(9, 3), (7, 7), (40, 8)]
LIMITS = {torch.float64: 1e-10, torch.float32: 1e-5}
LAYOUTS: dict[int, list[dict[str, Any]]] = {
    4: [
        {"dp_shard": 4},
        {"sp": 2, "act": {"attention_chunk": 7}},
        {"sp": 4, "act": {"attention_chunk": 3, "attention_store": "nvme"}},
        {"sp": 2},
        {"ring": 2},
        {"sp": 4},
        {"ring": 4},
        {"sp": 2, "ring": 2},
    ],
    3: [{"sp": 3}, {"ring": 3}],
}


def step(
    folder: str, heads: tuple[int, int], dtype: torch.dtype, parallel: dict[str, Any]
) -> tuple[float, dict[str, torch.Tensor], list[int]]:
    """Loss and gradients of one step of four rows, and this rank's labels in each micro-batch."""
    model = small_model(
        3, std=0.05, num_heads=heads[0], num_kv_heads=heads[1], head_dim=8, hidden_size=40,
        intermediate_size=48,
    ).to(dtype).requires_grad_(True)  # fmt: skip
    degrees = {k: v for k, v in parallel.items() if k != "act"}
    config = TrainConfig(
        steps=1,
        global_batch=4,
        parallel=ParallelConfig(**degrees),
        act=ActConfig(tiled_loss=7, **parallel.get("act", {})),
    )
    reports: list[StepReport] = []
    gradients: dict[str, torch.Tensor] = {}
    labels: list[int] = []

    class Keep:
        def on_start(self, trainer: Trainer) -> None:
            return None

        def on_step(self, trainer: Trainer, report: StepReport) -> None:
            reports.append(report)

    trainer = Trainer(model, folder, config, seed=1, callbacks=[Keep()])
    trainer._loss.dtype = dtype
    plain = trainer._loss.forward

    def forward(batch: dict[str, torch.Tensor], scale: float) -> torch.Tensor:
        labels.append(int((batch["shift_labels"] >= 0).sum()))
        return plain(batch, scale)

    def keep() -> None:
        gradients.update(
            (n, p.grad.clone()) for n, p in model.named_parameters() if p.grad is not None
        )

    trainer._loss.forward = forward  # type: ignore[method-assign]
    trainer._states.step = keep  # type: ignore[method-assign]
    trainer._states.clip_grad_norm = lambda limit: 0.0  # type: ignore[method-assign]
    trainer.fit()
    return reports[0].loss, gradients, labels


def several(folder: str) -> dict[str, tuple[float, list[int]]]:
    """Worst relative difference to one process in float64, and labels, by what was run."""
    exact = torch.load(f"{folder}/exact.pt")
    found: dict[str, tuple[float, list[int]]] = {}
    rank = dist.get_rank()
    for ranks, parallels in LAYOUTS.items():
        regroup(folder, rank, ranks, f"of-{ranks}")
        build = functools.cache(Parallel.build)  # groups take longer to make than a step
        with patch.object(Parallel, "build", build):
            for heads in HEADS if rank < ranks else ():
                loss, gradients = exact[heads]
                for dtype, parallel in itertools.product(dtypes(heads), of(heads, parallels)):
                    got, mine, labels = step(folder, heads, dtype, parallel)
                    assert mine.keys() == gradients.keys()
                    differences = [abs(got - loss) / loss]
                    for name, gradient in gradients.items():
                        difference = (mine[name].double() - gradient).abs().max()
                        differences.append(float(difference / gradient.abs().max()))
                    found[f"{heads} {dtype} {ranks} {parallel}"] = max(differences), labels
    regroup(folder, rank, 4, "last")
    return found


def of(heads: tuple[int, int], parallels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The layouts that are run with these heads: chunks of attention with the first only."""
    return [p for p in parallels if heads == HEADS[0] or "act" not in p]


def dtypes(heads: tuple[int, int]) -> list[torch.dtype]:
    """Single precision with the first heads only."""
    return [dtype for dtype in LIMITS if heads == HEADS[0] or dtype == torch.float64]


def regroup(folder: str, rank: int, ranks: int, name: str) -> None:
    """Leave the first ranks alone in the world."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
    if rank < ranks:
        store = f"file://{folder}/store-{name}"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data set of packed documents, and what one process makes of it."""
    path = tmp_path_factory.mktemp("data")
    save_small_dataset(path, rows=14, max_tokens=41)
    exact = {heads: step(str(path), heads, torch.float64, {})[:2] for heads in HEADS}
    torch.save(exact, path / "exact.pt")
    return str(path)


@pytest.mark.slow
def test_loss_and_every_gradient_are_those_of_one_process(folder: str) -> None:
    results = distributed.run(several, 4, folder)
    runs = {n: sum(len(dtypes(h)) * len(of(h, LAYOUTS[n])) for h in HEADS) for n in (3, 4)}
    assert [len(found) for found in results] == [runs[3] + runs[4]] * 3 + [runs[4]]
    for found in results:
        bad = {
            what: difference
            for what, (difference, _) in found.items()
            if not difference <= LIMITS[torch.float64 if "float64" in what else torch.float32]
        }
        assert not bad
    # Ranks hold different numbers of labels, in each micro-batch of several.
    counts = [list(found.values())[runs[4] - 1][1] for found in results]
    assert all(len(each) == 4 for each in counts)
    assert len({tuple(each) for each in counts}) > 1
