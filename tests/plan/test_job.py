"""What a job holds and keeps, by its method, against real trainers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sharpen.core.errors import ConfigError
from sharpen.models import DecoderLM
from sharpen.plan import Adapters
from sharpen.plan.job import job_states
from sharpen.train import ActConfig, TrainConfig, Trainer
from sharpen.train.act import apply_act
from sharpen.train.half import HalfFineTuning
from sharpen.train.predict import training_job
from sharpen.train.prepare import prepare_model
from sharpen.train.sp import SPContext, shard_sequence
from small_models import save_small_dataset, save_small_model

METHODS: list[dict[str, Any]] = [
    {"method": "full"},
    {"method": "half"},
    {"method": "half", "half_every": 1},
    {"method": "lora", "rank": 4, "targets": ("q_proj", "down_proj")},
    {"method": "dora", "rank": 4},
    {"method": "dora", "rank": 2, "dtype": "bfloat16", "targets": ("k_proj", "up_proj")},
    {"method": "qlora", "rank": 4, "dtype": "bfloat16"},
]


def prepared(folder: Path, config: TrainConfig) -> DecoderLM:
    return prepare_model(str(save_small_model(folder / "base")), config, seed=0)


def bytes_of(tensors: Any) -> int:
    return sum(t.nbytes for t in {t.data_ptr(): t for t in tensors}.values())


@pytest.mark.parametrize("changes", METHODS, ids=lambda c: "-".join(map(str, c.values())))
def test_a_trainer_holds_the_states_that_are_planned(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = TrainConfig(steps=3, global_batch=2, **changes)
    model = prepared(tmp_path, config)
    save_small_dataset(tmp_path / "data")
    callbacks = [HalfFineTuning(seed=5, every=config.half_every)] * (config.method == "half")
    trainer = Trainer(model, tmp_path / "data", config, seed=5, callbacks=callbacks)
    gradients, states = [], []

    def before(*_: Any) -> None:
        gradients.append(bytes_of(p.grad for p in model.parameters() if p.grad is not None))

    def after(*_: Any) -> None:
        found = [t for s in trainer.optimizer.state.values() for t in s.values()]
        states.append(bytes_of(t for t in found if isinstance(t, torch.Tensor) and t.ndim))

    trainer.optimizer.register_step_pre_hook(before)
    trainer.optimizer.register_step_post_hook(after)
    trainer.fit()

    job = training_job(config, model.spec, seed=5)
    planned = job_states(job)
    held = bytes_of([*model.parameters(), *model.buffers()])
    # NF4 stores the scales of few weights in whole blocks, and its constants.
    rough = pytest.approx(planned.parameters, rel=0.01 if job.nf4 else 1e-9)
    assert held == rough
    assert max(gradients) == planned.gradients == 4 * job.trained_parameters
    # Nothing is trained before the first step and after the last: a resting half has no state.
    assert max(states) == planned.optimizer
    assert (len(set(gradients)) > 1) == (config.half_every is not None)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("tile", [0, 16])
def test_adapted_layers_keep_what_is_planned(tmp_path: Path, dora: bool, tile: int) -> None:
    config = TrainConfig(method="dora" if dora else "lora", rank=4, steps=1)
    model = prepared(tmp_path, config).train()
    model.mlp_tile = tile
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in own and t.numel() > 1000:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        hidden = model.hidden(torch.arange(96)[None])
    assert hidden.requires_grad
    job = training_job(config, model.spec)
    blocks = model.spec.num_layers * 96 * job.kept_bytes(tiled=tile > 0)
    # Beside the blocks: what the last norm keeps, cos and sin; without: what is below 4 kB.
    assert sum(kept.values()) == pytest.approx(blocks, rel=0.06)


class Products(TorchDispatchMode):
    """Counts multiplications of matrix products, those into a given tensor included."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in ("aten::mm", "aten::addmm", "aten::addmm_"):
            a, b = args[-2:]
            self.count += a.shape[0] * a.shape[1] * b.shape[1]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", ["none", "selective", "full"])
@pytest.mark.parametrize(("tile", "chunk"), [(0, 0), (16, 0), (0, 32), (16, 32)])
def test_products_are_repeated_as_often_as_planned(
    tmp_path: Path, mode: Any, tile: int, chunk: int
) -> None:
    act = ActConfig(mode=mode, tiled_mlp=tile, attention_chunk=chunk)
    config = TrainConfig(steps=1, act=act)
    model = prepared(tmp_path, config).train()
    apply_act(model, act)
    batch = {"input_ids": torch.arange(96)[None]}
    if chunk:
        model.sequence = sequence = SPContext(None, chunks=96 // chunk)
        batch = shard_sequence(batch, sequence)
    with Products() as counted:
        model.hidden(batch["input_ids"]).sum().backward()
    job = training_job(config, model.spec)
    repeats = job.repeats(float(mode != "none"), mode, tiled=tile > 0, chunked=chunk > 0)
    planned = sum((3 + repeats[n]) * a * b for n, (a, b) in job.linears().items())
    assert counted.count == 96 * model.spec.num_layers * planned


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj",), ("down_proj",), ("up_proj",)])
@pytest.mark.parametrize("tile", [0, 16])
def test_products_with_adapters_are_repeated_as_often_as_planned(
    tmp_path: Path, targets: Any, tile: int
) -> None:
    def products(mode: Any) -> int:
        act = ActConfig(mode=mode, tiled_mlp=tile)
        config = TrainConfig(steps=1, act=act, method="lora", rank=1, targets=targets)
        model = prepared(tmp_path / mode, config).train()
        apply_act(model, act)
        with Products() as counted:
            model.hidden(torch.arange(96)[None]).sum().backward()
        jobs.append(training_job(config, model.spec))
        return counted.count

    jobs: list[Any] = []
    more = products("full") - products("none")
    full, none = (
        job.repeats(float(mode == "full"), mode, tiled=tile > 0)
        for job, mode in zip(jobs, ("full", "none"), strict=True)
    )
    shapes = jobs[0].linears()
    planned = sum((full[n] - none[n]) * a * b for n, (a, b) in shapes.items())
    # Beside the adapters' own products: of rank 1, a tenth.
    assert more / 96 / jobs[0].spec.num_layers == pytest.approx(planned, rel=0.12)


def test_a_rank_below_one_is_an_error() -> None:
    with pytest.raises(ConfigError, match="rank=0 must be at least 1"):
        Adapters(rank=0)
