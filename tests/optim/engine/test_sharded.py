"""Every optimizer on parameters that FSDP2 has cut over two ranks."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

from distributed import run
from optim.test_conformance import GradientOptimizerConformance
from sharpen.optim.engine.base import Optimizer
from sharpen.optim.groups import param_groups
from sharpen.optim.names import available, find
from sharpen.testing.optim import batch_loss

WORLD, STEPS = 2, 6
# Few gradients leave the bases of these free in a null space, and they turn with the last bit of
# the global norm, which is summed in another order over ranks.
UNCLIPPED = {"soap"}
SUITES = {kind.name: kind for kind in GradientOptimizerConformance.__subclasses__()}


def make_model() -> nn.Module:
    """Odd sizes, so that the ranks hold unequal rows, one of them none of the last bias."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(24, 31), nn.Linear(31, 41), nn.Tanh(), nn.Linear(41, 24), nn.Linear(24, 24)
    )


def make_optimizer(name: str, model: nn.Module) -> Optimizer:
    options = {"min_lowrank_dim": 1, "layout": "row", **SUITES[name].options}
    if options.get("min_quant_size"):
        options["state_dtype"] = find(name).preset["state_dtype"]
    dimension = options.pop("min_lowrank_dim")
    groups = param_groups(model, name, min_lowrank_dim=dimension, **options)
    return find(name)(groups, **options)


def steps(name: str, model: nn.Module) -> Optimizer:
    optimizer = make_optimizer(name, model)
    for step in range(STEPS):
        batch_loss(model, step).backward()
        optimizer.step(max_norm=None if name in UNCLIPPED else 1.0)
        optimizer.zero_grad()
    return optimizer


def whole(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: (p.full_tensor() if hasattr(p, "full_tensor") else p).detach()
        for name, p in model.named_parameters()
    }


def train_sharded(names: list[str]) -> dict[str, Any]:
    """Weights after a few steps, whole, and the bytes of states here."""
    out = {}
    for name in names:
        model = make_model()
        for layer in model:
            if list(layer.parameters()):
                fully_shard(layer)
        fully_shard(model)
        optimizer = steps(name, model)
        out[name] = whole(model), optimizer.state_bytes(), optimizer.state_bytes(predicted=True)
    return out


@pytest.fixture(scope="module")
def sharded() -> list[dict[str, Any]]:
    return run(train_sharded, WORLD, available())


@pytest.mark.parametrize("name", available())
def test_two_ranks_take_the_steps_of_one_process(name: str, sharded: list[dict[str, Any]]) -> None:
    model = make_model()
    alone = steps(name, model)
    for found, held, predicted in (rank[name] for rank in sharded):
        for key, value in whole(model).items():
            torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-5, msg=key)
        assert held == predicted
    total = sum(rank[name][1] for rank in sharded)
    assert total == pytest.approx(alone.state_bytes(), rel=0.02)
