import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sharpen.core.errors import ConfigError
from sharpen.optim import SLS, ArmijoGD


def _bowl(w: Tensor) -> Tensor:
    return (torch.tensor([1.0, 30.0], dtype=w.dtype) * w.square()).sum()


def _start() -> nn.Parameter:
    return nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))


def test_the_accepted_step_is_the_first_of_the_trials_that_decreases_enough() -> None:
    w = _start()
    optimizer = ArmijoGD([w], lr=10.0, expand=1.8)
    before = w.detach().clone()
    g = 2 * torch.tensor([1.0, 30.0]) * before
    optimizer.step(lambda: _bowl(w))
    size = 18.0
    trials = 1
    bound = lambda a: float(_bowl(before)) - 0.5 * a * float(g.square().sum())  # noqa: E731
    while float(_bowl(before - size * g)) > bound(size):
        size *= 0.9
        trials += 1
    torch.testing.assert_close(w.detach(), before - size * g, rtol=1e-12, atol=1e-12)
    assert optimizer.evals == 1 + trials
    # The next trial starts from the step that was accepted.
    assert optimizer.param_groups[0]["step_size"] == pytest.approx(size)
    optimizer.reset()
    assert optimizer.param_groups[0]["step_size"] is None


@pytest.mark.parametrize("kind", [ArmijoGD, SLS])
def test_each_step_decreases_the_loss_until_the_gradient_is_small(kind: type[ArmijoGD]) -> None:
    w = _start()
    optimizer = kind([w], batches_per_epoch=10, min_grad=1e-4)
    losses = [optimizer.step(lambda: _bowl(w)) for _ in range(400)]
    assert all(b < a for a, b in itertools.pairwise(losses) if b > 1e-8)
    assert optimizer.stalled and losses[-1] < 1e-8
    before = w.detach().clone()
    optimizer.step(lambda: _bowl(w))
    assert torch.equal(w, before)


def test_step_sizes_grow_by_the_expansion_an_epoch_and_stay_below_the_largest() -> None:
    w = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = SLS([w], lr=1.0, expand=2.0, batches_per_epoch=4, max_step=3.0)
    sizes = []
    for _ in range(10):
        optimizer.step(lambda: -w.sum())  # any step is accepted
        sizes.append(optimizer.param_groups[0]["step_size"])
    assert sizes[3] == pytest.approx(2.0)
    assert sizes[-1] == 3.0


def test_when_no_step_is_accepted_the_weights_stay() -> None:
    w = nn.Parameter(torch.ones(3))
    calls = []

    def worse() -> Tensor:
        calls.append(1)
        return w.sum() * 0 + w.sum().detach() * 0 + len(calls) + (w - w.detach()).sum()

    optimizer = ArmijoGD([w], trials=7)
    optimizer.step(worse)
    assert optimizer.stalled and torch.equal(w, torch.ones(3))
    assert optimizer.evals == len(calls) == 8


def test_losses_that_are_not_finite_move_nothing() -> None:
    w = nn.Parameter(torch.ones(2))
    optimizer = ArmijoGD([w])
    assert math.isnan(optimizer.step(lambda: w.sum() * math.nan))
    assert optimizer.stats()["nonfinite"] == 1 and torch.equal(w, torch.ones(2))
    # A trial that overflows is one that is not accepted.
    optimizer.step(lambda: (w - 5).square().exp().sum().log())
    assert w.isfinite().all()


def test_climbing_and_parameters_without_a_gradient() -> None:
    w, other = _start(), nn.Parameter(torch.ones(2))
    optimizer = ArmijoGD([w, other], maximize=True)
    first = optimizer.step(lambda: -_bowl(w))
    last = [optimizer.step(lambda: -_bowl(w)) for _ in range(20)][-1]
    assert last > first and torch.equal(other, torch.ones(2))
    assert optimizer.state_bytes() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"c": 1.0}, r"c=1\.0"),
        ({"beta": 0.0}, r"beta=0\.0"),
        ({"expand": 0.9}, r"expand=0\.9"),
        ({"trials": 0}, "trials=0"),
        ({"batches_per_epoch": 0}, "batches_per_epoch=0"),
        ({"max_step": 0.0}, r"max_step=0\.0"),
        ({"min_step": -1.0}, r"min_step=-1\.0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ArmijoGD([nn.Parameter(torch.ones(2))], **options)
