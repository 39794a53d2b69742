"""Parallel blocks on several processes, and what is planned for them."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from distributed import run
from sharpen.plan import ParallelConfig
from sharpen.plan.training import TrainingJob, block_activation_bytes, checkpointed_block_bytes
from sharpen.train import ActConfig, TrainConfig, Trainer
from small_models import save_small_dataset, small_model, small_spec

JOBS: list[dict[str, Any]] = [
    {"parallel": {"zero_stage": 1}},
    {"parallel": {"zero_stage": 3}, "act": {"mode": "selective"}},
    {"parallel": {"sp": 2, "zero_stage": 2}, "act": {"mode": "full", "tiled_mlp": 16}},
    {"parallel": {"ring": 2}, "act": {"mode": "selective", "tiled_mlp": 16}},
]


def losses(folder: str, changes: dict[str, Any]) -> list[float]:
    config = TrainConfig(
        steps=4,
        global_batch=4,
        lr=1e-2,
        parallel=ParallelConfig(**changes.get("parallel", {})),
        act=ActConfig(**changes.get("act", {})),
    )
    model = small_model(std=0.05, block="parallel").requires_grad_(True)
    trainer = Trainer(model, folder, config, seed=3)
    found = []

    class Watch:
        def on_start(self, trainer: Trainer) -> None:
            """Nothing yet."""

        def on_step(self, trainer: Trainer, report: Any) -> None:
            found.append(report.loss)

    trainer.callbacks.append(Watch())
    trainer.fit()
    return found


def all_losses(folder: str, jobs: list[dict[str, Any]]) -> list[list[float]]:
    return [losses(folder, job) for job in jobs]


def test_ranks_train_as_one_process_does(tmp_path: Path) -> None:
    save_small_dataset(tmp_path / "data")
    alone = torch.tensor(losses(str(tmp_path / "data"), {}))
    assert alone[-1] < alone[0]
    (found, _) = run(all_losses, 2, str(tmp_path / "data"), JOBS)
    for job, curve in zip(JOBS, found, strict=True):
        # Sums in another order, over a few steps.
        torch.testing.assert_close(
            torch.tensor(curve), alone, rtol=2e-5, atol=2e-5, msg=lambda t, j=job: f"{j}: {t}"
        )


def kept_bytes(model: nn.Module, ids: torch.Tensor) -> int:
    """Bytes of what a forward pass keeps, weights and small things left out."""
    sizes: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(t: torch.Tensor) -> torch.Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in weights and t.is_floating_point():
            sizes[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = model(ids).sum()
    del loss
    return sum(sizes.values())


def test_a_block_keeps_what_is_planned() -> None:
    ids = torch.arange(48)[None]
    for mode in ("none", "selective"):
        job = TrainingJob(spec=small_spec(block="parallel"), seq_len=48, checkpointing=mode)  # type: ignore[arg-type]
        kept = []
        for layers in (2, 4):
            model = small_model(block="parallel", num_layers=layers).train()
            model.checkpointing = mode  # type: ignore[assignment]
            kept.append(kept_bytes(model, ids))
        planned = checkpointed_block_bytes(job) if mode != "none" else block_activation_bytes(job)
        assert (kept[1] - kept[0]) / 2 == planned
