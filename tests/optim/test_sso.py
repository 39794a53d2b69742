import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sharpen.core.errors import ConfigError, TrainingError
from sharpen.optim import TargetOptimizer
from sharpen.optim.line_search import ArmijoGD

bce = nn.functional.binary_cross_entropy_with_logits


def _inner_sgd(lr: float) -> Callable[[Sequence[Tensor]], torch.optim.Optimizer]:
    return lambda params: torch.optim.SGD(list(params), lr=lr)


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def test_one_plain_inner_step_is_gradient_descent_exactly() -> None:
    x, y = torch.randn(20, 5, dtype=torch.float64), torch.randn(20, 3, dtype=torch.float64)
    a, b = _net(), _net()
    ours = TargetOptimizer(a, nn.functional.mse_loss, inner=_inner_sgd(0.1), inner_steps=1, eta=3.0)
    sgd = torch.optim.SGD(b.parameters(), lr=0.1)
    for _ in range(5):
        ours.step(x, y)
        sgd.zero_grad()
        nn.functional.mse_loss(b(x), y).backward()
        sgd.step()
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-12)


def test_solved_to_the_end_a_linear_model_takes_the_preconditioned_step() -> None:
    """theta' = theta - eta (X^T X)^-1 X^T g."""
    x = torch.randn(30, 4, dtype=torch.float64)
    y = torch.randn(30, dtype=torch.float64)
    w = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    lbfgs = lambda params: torch.optim.LBFGS(  # noqa: E731
        list(params), max_iter=200, tolerance_grad=1e-14, tolerance_change=1e-16
    )
    loss = lambda z, t: 0.5 * (z - t).square().sum()  # noqa: E731
    optimizer = TargetOptimizer(
        lambda v: v @ w, loss, params=[w], inner=lbfgs, inner_steps=1, eta=0.7, reduction="sum"
    )
    before = w.detach().clone()
    optimizer.step(x, y)
    expected = before - 0.7 * torch.linalg.solve(x.mT @ x, x.mT @ (x @ before - y))
    torch.testing.assert_close(w.detach(), expected, rtol=1e-8, atol=1e-8)


def _logistic() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(400, 20, dtype=torch.float64)
    w = torch.randn(20, dtype=torch.float64)
    noise = torch.randn(400, dtype=torch.float64)
    return x, (x @ w + 0.5 * noise > 0).double()


@pytest.mark.parametrize(
    ("inner_steps", "after_10", "after_50"),
    [(1, 0.16757, 0.09714), (5, 0.15429, None), (20, 0.15416, 0.09036)],
)
def test_more_inner_steps_go_further_on_logistic_regression(
    inner_steps: int, after_10: float, after_50: float | None
) -> None:
    """Full batches, eta = 1 / L_z: losses measured once, and never an increase."""
    x, y = _logistic()
    w = nn.Parameter(torch.zeros(20, dtype=torch.float64))
    rate = 4 * 400 / float(torch.linalg.eigvalsh(x.mT @ x)[-1])
    optimizer = TargetOptimizer(
        lambda v: v @ w,
        bce,
        params=[w],
        inner=_inner_sgd(rate),
        inner_steps=inner_steps,
        eta=4.0,
    )
    losses = [optimizer.step(x, y).loss for _ in range(51)]
    assert losses[10] == pytest.approx(after_10, abs=5e-6)
    if after_50 is not None:
        assert losses[50] == pytest.approx(after_50, abs=5e-6)
    assert all(b < a for a, b in itertools.pairwise(losses))


def _batches(count: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(-(-count // 8)):
        yield from torch.randperm(1000, generator=generator).split(125)


def _calls_until(loss: float, step: Callable[[Tensor], Any], now: Callable[[], float]) -> int:
    for calls, batch in enumerate(_batches(400), 1):
        step(batch)
        if now() <= loss:
            return calls
    return 401


def test_a_third_of_the_gradient_calls_of_sgd_at_its_best_learning_rate() -> None:
    """Badly scaled logistic regression with noisy labels, batches of 125."""
    generator = torch.Generator().manual_seed(0)
    random = lambda *shape: torch.randn(  # noqa: E731
        *shape, generator=generator, dtype=torch.float64
    )
    scale = torch.logspace(0.3, -1, 10, dtype=torch.float64)
    x, true = random(1000, 10) * scale, random(10) / scale
    coin = torch.rand(1000, generator=generator, dtype=torch.float64)
    y = (coin < torch.sigmoid(x @ true)).double()
    w = nn.Parameter(torch.zeros(10, dtype=torch.float64))
    now = lambda: float(bce(x @ w.detach(), y))  # noqa: E731
    wanted = 0.36314 + 1e-2  # the minimum, found by L-BFGS
    counts = []
    for lr in (1.0, 2.0, 4.0, 8.0):
        nn.init.zeros_(w)
        sgd = torch.optim.SGD([w], lr=lr)

        def descend(batch: Tensor, sgd: torch.optim.SGD = sgd) -> None:
            sgd.zero_grad()
            bce(x[batch] @ w, y[batch]).backward()
            sgd.step()

        counts.append(_calls_until(wanted, descend, now))
    nn.init.zeros_(w)
    ours = TargetOptimizer(lambda v: v @ w, bce, params=[w], eta=4.0, inner_steps=20)
    _calls_until(wanted, lambda batch: ours.step(x[batch], y[batch]), now)
    assert 3 * ours.outer_calls <= min(counts) < 401


def test_a_black_box_gradient_is_called_once_a_step() -> None:
    x, y = torch.randn(16, 5, dtype=torch.float64), torch.randn(16, 3, dtype=torch.float64)
    seen = []

    def answer(z: Tensor, targets: Tensor) -> tuple[float, Tensor]:
        assert not z.requires_grad
        seen.append(z)
        return float((z - targets).square().mean()), 2 * (z - targets) / z.numel()

    model, twin = _net(), _net()
    box = TargetOptimizer(model, target_grad_fn=answer, inner_steps=6)
    plain = TargetOptimizer(twin, nn.functional.mse_loss, inner_steps=6)
    for _ in range(4):
        done = box.step(x, y)
        plain.step(x, y)
    assert len(seen) == box.outer_calls == 4
    assert box.inner_evals > 4 * 7 and done.surrogate < 0 and done.inner_steps == 6
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [2.0, 2.0, 2.0, 2.0]),
        ("sqrt", [2 / math.sqrt(t) for t in (1, 2, 3, 4)]),
        ("exponential", [2 * 8 ** (-t / 8) for t in (1, 2, 3, 4)]),
    ],
)
def test_schedules_of_eta_and_batches_of_any_size(schedule: Any, expected: list[float]) -> None:
    for reduction, count in (("mean", 10), ("sum", 7)):
        optimizer = TargetOptimizer(
            _net(),
            lambda z, _: z.square().mean(),
            eta=2.0,
            eta_schedule=schedule,
            total_steps=8,
            reduction=reduction,  # type: ignore[arg-type]
            inner_steps=1,
        )
        x = torch.randn(count, 5, dtype=torch.float64)
        found = [optimizer.step(x).eta for _ in range(4)]
        factor = count if reduction == "mean" else 1
        assert found == pytest.approx([factor * value for value in expected])


def test_a_line_search_in_the_outputs_finds_eta() -> None:
    """For a squared loss descent with the whole step solves it, and a step of 1 is accepted."""
    w = nn.Parameter(torch.zeros(8, dtype=torch.float64))
    x = torch.eye(8, dtype=torch.float64)
    y = torch.randn(8, dtype=torch.float64)
    loss = lambda z, t: 0.5 * (z - t).square().sum()  # noqa: E731
    optimizer = TargetOptimizer(
        lambda v: v @ w, loss, params=[w], eta=5.0, eta_schedule="armijo", reduction="sum"
    )
    done = optimizer.step(x, y)
    # Accepted where 1 - a / 2 >= 1 / 2: the first of 18 * 0.9^k below 1, and eta is half of it.
    size = 18.0
    while size > 1:
        size *= 0.9
    assert done.eta == pytest.approx(size / 2)
    assert optimizer.loss_calls == 1 + round(math.log(size / 18.0, 0.9))


def test_kl_keeps_policies_near_and_agrees_with_its_formula() -> None:
    logits = nn.Parameter(torch.zeros(6, 4, dtype=torch.float64))
    reward = torch.randn(6, 4, dtype=torch.float64)
    loss = lambda z, r: -(z.softmax(-1) * r).sum()  # noqa: E731
    optimizer = TargetOptimizer(
        lambda v: v @ logits,
        loss,
        params=[logits],
        divergence="kl",
        eta=1.0,
        reduction="sum",
        inner_steps=30,
    )
    start = logits.detach().clone()
    done = optimizer.step(torch.eye(6, dtype=torch.float64), reward)
    z = start.clone().requires_grad_()
    (g,) = torch.autograd.grad(loss(z, reward), z)
    new = logits.detach()
    kl = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=start), torch.distributions.Categorical(logits=new)
    ).sum()
    assert done.surrogate == pytest.approx(float((g * (new - start)).sum() + kl), rel=1e-6)
    assert float(loss(new, reward)) < done.loss


def test_dropout_is_the_same_throughout_a_step_and_moves_on_after() -> None:
    model = nn.Sequential(nn.Linear(5, 50), nn.Dropout(0.5), nn.Linear(50, 1)).double()
    x = torch.randn(10, 5, dtype=torch.float64)
    seen: list[Tensor] = []
    model[1].register_forward_hook(lambda _m, _a, out: seen.append(out.detach() != 0))
    optimizer = TargetOptimizer(model, lambda z, _: z.square().mean(), inner_steps=3)
    optimizer.step(x)
    first = len(seen)
    assert first > 3 and all(torch.equal(mask, seen[0]) for mask in seen)
    optimizer.step(x)
    assert not torch.equal(seen[first], seen[0])


def test_batch_norm_in_training_mode_is_warned_of_once() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))
    optimizer = TargetOptimizer(model, lambda z, _: z.square().mean(), inner_steps=1)
    with pytest.warns(UserWarning, match="batch norm"):
        optimizer.step(torch.randn(6, 5))
    optimizer.step(torch.randn(6, 5))
    model.eval()
    TargetOptimizer(model, lambda z, _: z.square().mean()).step(torch.randn(6, 5))


def test_it_goes_on_from_a_saved_state_with_the_same_bits() -> None:
    x, y = torch.randn(12, 5, dtype=torch.float64), torch.randn(12, 3, dtype=torch.float64)
    adam = lambda params: torch.optim.Adam(list(params), lr=0.01)  # noqa: E731
    make = lambda model: TargetOptimizer(  # noqa: E731
        model, nn.functional.mse_loss, inner=adam, inner_steps=3, eta_schedule="sqrt"
    )
    model = _net()
    optimizer = make(model)
    optimizer.step(x, y)
    other = copy.deepcopy(model)
    resumed = make(other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert optimizer.step(x, y) == resumed.step(x, y)
    assert resumed.outer_calls == 2
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_an_answer_that_is_not_finite_leaves_the_model() -> None:
    model = _net()
    before = copy.deepcopy(model.state_dict())
    optimizer = TargetOptimizer(
        model, target_grad_fn=lambda z, _: (1.0, torch.full_like(z, math.nan))
    )
    with pytest.raises(TrainingError, match="outer step 1"):
        optimizer.step(torch.randn(4, 5, dtype=torch.float64))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_gradient_of_another_shape_is_refused() -> None:
    optimizer = TargetOptimizer(_net(), target_grad_fn=lambda _z, _t: (1.0, torch.ones(2)))
    with pytest.raises(ConfigError, match=r"shape \(2,\) for outputs of shape \(4, 3\)"):
        optimizer.step(torch.randn(4, 5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_loss": None}, "one of target_loss"),
        ({"inner_steps": 0}, "inner_steps=0"),
        ({"eta": 0.0}, r"eta=0\.0"),
        ({"eta_schedule": "cosine"}, "eta_schedule='cosine'"),
        ({"eta_schedule": "exponential"}, "total_steps=None"),
        ({"divergence": "js"}, "divergence='js'"),
        ({"reduction": "max"}, "reduction='max'"),
        ({"model": lambda x: x}, "params must be given"),
        ({"params": [torch.ones(2)]}, "every one is frozen"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TargetOptimizer(**{"model": _net(), "target_loss": bce, **options})


def test_the_default_inner_optimizer_starts_each_step_anew() -> None:
    optimizer = TargetOptimizer(_net(), lambda z, _: z.square().mean(), inner_steps=2)
    assert isinstance(optimizer.inner, ArmijoGD)
    optimizer.step(torch.randn(4, 5, dtype=torch.float64))
    optimizer.inner.param_groups[0]["step_size"] = 1e-12
    assert optimizer.step(torch.randn(4, 5, dtype=torch.float64)).surrogate < 0
