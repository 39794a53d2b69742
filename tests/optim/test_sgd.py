from typing import Any

import pytest
import torch
from torch import nn

from sharpen.core.errors import ConfigError
from sharpen.optim.sgd import SGD, SignSGD


@pytest.mark.parametrize("impl", ["eager", "foreach", "auto"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.3},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "weight_decay": 0.1},
        {"weight_decay": 0.1, "maximize": True},
    ],
)
def test_steps_are_those_of_torch(options: dict[str, Any], impl: str) -> None:
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(9, 20))
    q = nn.Parameter(p.detach().clone())
    ours, theirs = SGD([p], lr=0.1, impl=impl, **options), torch.optim.SGD([q], lr=0.1, **options)  # type: ignore[arg-type]
    for _ in range(20):
        q.grad = torch.randn_like(p)
        p.grad = q.grad.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


def test_without_momentum_nothing_is_kept() -> None:
    p = nn.Parameter(torch.ones(10, 10))
    assert SGD([p]).state_bytes() == 0
    assert SGD([p], momentum=0.9).state_bytes() == 400


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "dampening": 0.1}])
def test_nesterov_needs_its_own_momentum(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="nesterov=True needs momentum above 0"):
        SGD([nn.Parameter(torch.ones(1))], nesterov=True, **options)


def test_by_sign_the_size_of_a_gradient_does_not_matter() -> None:
    w = nn.Parameter(torch.ones(3))
    optimizer = SignSGD([w], lr=0.25, weight_decay=0.5)
    w.grad = torch.tensor([1e-30, -1e30, 0.0])
    optimizer.step()
    assert w.tolist() == [0.625, 1.125, 0.875]
