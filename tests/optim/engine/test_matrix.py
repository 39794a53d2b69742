from typing import Any

import pytest
import torch
from torch import nn

from sharpen.optim import AdamW, Cosmos, Muon, Soap, create
from sharpen.optim.engine.matrix import MatrixOptimizer, matrix_shape
from sharpen.testing.optim import small_model, train

KINDS = {"muon": Muon, "soap": Soap, "cosmos": Cosmos}
OPTIONS: dict[str, dict[str, Any]] = {
    "muon": {"lr": 0.02, "ns_dtype": "fp32"},
    "soap": {"lr": 0.02, "precondition_frequency": 3},
    "cosmos": {"lr": 0.05, "rank": 8, "ns_dtype": "fp32"},
}


def test_shapes_of_matrices() -> None:
    assert matrix_shape((3, 4), {"role": "matrix"}) == (3, 4)
    assert matrix_shape((3, 4, 5), {}) == (3, 4, 5)
    assert matrix_shape((3, 4, 5), {"role": "matrix"}) == (3, 20)
    assert matrix_shape((3, 4, 5, 2), {}) == (3, 40)


@pytest.mark.parametrize("kind", KINDS.values())
def test_a_vector_in_a_group_of_matrices_takes_the_step_of_adamw(
    kind: type[MatrixOptimizer],
) -> None:
    a, b = nn.Parameter(torch.ones(9)), nn.Parameter(torch.ones(9))
    options: dict[str, Any] = {"lr": 0.1, "betas": (0.9, 0.95), "weight_decay": 0.1}
    ours, adamw = kind([a], **options), AdamW([b], **options, impl="eager")
    for step in range(5):
        a.grad = torch.randn(9, generator=torch.Generator().manual_seed(step))
        b.grad = a.grad.clone()
        ours.step()
        adamw.step()
    assert torch.equal(a, b)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("state_dtype", "share"), [("bf16", 0.9), ("q8", 0.85)])
def test_states_in_few_bits_learn_as_well(name: str, state_dtype: str, share: float) -> None:
    """Momentum and second moments only; bases stay in float32."""
    losses, held = [], []
    for kind in ("fp32", state_dtype):
        model = small_model()
        optimizer = create(name, model, **OPTIONS[name], state_dtype=kind, min_quant_size=256)
        losses.append(sum(train(model, optimizer, 0, 60)[-10:]) / 10)
        held.append(optimizer.state_bytes())
        assert optimizer.state_bytes(predicted=True) == held[-1]
    assert losses[1] < losses[0] + 0.02
    assert held[1] < share * held[0]


@pytest.mark.parametrize("name", KINDS)
def test_convolutions_learn_as_matrices(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(6, 2))
    optimizer = create(name, model, conv_as_matrix=True, **OPTIONS[name])
    rule = next(iter(KINDS[name].rules))
    assert {g["rule"] for g in optimizer.param_groups if g["role"] == "matrix"} == {rule}
    x = torch.randn(16, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    y = (x.mean((1, 2, 3)) > 0).long()
    losses = []
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
