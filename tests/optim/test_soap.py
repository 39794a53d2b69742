import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sharpen.core.errors import ConfigError
from sharpen.optim import Soap

Array = np.ndarray[Any, np.dtype[np.float64]]


def reference(
    w: Array, gradients: list[Array], lr: float, betas: tuple[float, float], wd: float, every: int
) -> list[Array]:
    """The authors' order of operations in float64, momentum carried back and forth each step."""
    b1, b2, eps = *betas, 1e-8
    m, v = np.zeros_like(w), np.zeros_like(w)
    left, right = np.zeros((w.shape[0],) * 2), np.zeros((w.shape[1],) * 2)
    bases: list[Array] = []
    out = []
    for k, g in enumerate(gradients):
        if k:
            turned = bases[0].T @ g @ bases[1]
            m = b1 * m + (1 - b1) * turned
            v = b2 * v + (1 - b2) * turned**2
            size = lr * math.sqrt(1 - b2**k) / (1 - b1**k)
            w = w - size * (bases[0] @ (m / (np.sqrt(v) + eps)) @ bases[1].T)
            w = w - lr * wd * w
            m = bases[0] @ m @ bases[1].T
        left = b2 * left + (1 - b2) * g @ g.T
        right = b2 * right + (1 - b2) * g.T @ g
        if k == 0:
            bases = [np.linalg.eigh(x)[1][:, ::-1] for x in (left, right)]
        else:
            if k % every == 0:
                orders = []
                for i, square in enumerate((left, right)):
                    order = np.argsort(-np.diag(bases[i].T @ square @ bases[i]), kind="stable")
                    bases[i] = np.linalg.qr(square @ bases[i][:, order])[0]
                    orders.append(order)
                v = v[orders[0]][:, orders[1]]
            m = bases[0].T @ m @ bases[1]
        out.append(w)
    return out


def _gradients(shape: tuple[int, ...], count: int) -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for _ in range(count)]


@pytest.mark.parametrize("size", [5, 16])
def test_weights_are_those_of_the_reference(size: int) -> None:
    w = nn.Parameter(torch.randn(size, size, dtype=torch.float64))
    gradients = _gradients((size, size), 25)
    expected = reference(w.detach().numpy().copy(), gradients, 0.05, (0.9, 0.95), 0.1, 4)
    optimizer = Soap(
        [w],
        lr=0.05,
        betas=(0.9, 0.95),
        weight_decay=0.1,
        precondition_frequency=4,
        wd_order="after",
    )
    for g, want in zip(gradients, expected, strict=True):
        w.grad = torch.from_numpy(g.copy())
        optimizer.step()
        np.testing.assert_allclose(w.detach().numpy(), want, rtol=0, atol=1e-12)


def test_the_first_step_changes_no_weight() -> None:
    w = nn.Parameter(torch.randn(4, 6))
    before = w.detach().clone()
    optimizer = Soap([w], lr=0.1, weight_decay=0.5)
    w.grad = torch.randn(4, 6)
    optimizer.step()
    assert torch.equal(w, before)
    basis = optimizer.state[w]["left_basis"]
    torch.testing.assert_close(basis.mT @ basis, torch.eye(4), rtol=0, atol=1e-5)
    optimizer.step()
    assert not torch.equal(w, before)


def test_bases_stay_orthonormal_and_eigenvalues_sorted() -> None:
    w = nn.Parameter(torch.zeros(6, 9))
    optimizer = Soap([w], precondition_frequency=5)
    scale = torch.logspace(0, -2, 9)
    for step in range(101):
        w.grad = torch.randn(6, 9, generator=torch.Generator().manual_seed(step)) * scale
        optimizer.step()
    state = optimizer.state[w]
    for side, size in (("left", 6), ("right", 9)):
        basis = state[f"{side}_basis"]
        torch.testing.assert_close(basis.mT @ basis, torch.eye(size), rtol=0, atol=1e-5)
    values = (state["right_basis"] * (state["right"] @ state["right_basis"])).sum(0)
    true = torch.linalg.eigvalsh(state["right"]).flip(0)
    torch.testing.assert_close(values, true, rtol=0.05, atol=1e-3)


def test_a_long_side_keeps_its_plain_basis_and_none_at_all_is_adam() -> None:
    w = nn.Parameter(torch.zeros(4, 12))
    optimizer = Soap([w], max_precond_dim=8)
    w.grad = torch.ones(4, 12)
    optimizer.step()
    assert "right_basis" not in optimizer.state[w] and "left_basis" in optimizer.state[w]
    a, b = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3, 3))
    plain = Soap([a], lr=0.1, max_precond_dim=0, weight_decay=0, betas=(0.9, 0.9))
    adam = torch.optim.Adam([b], lr=0.1, betas=(0.9, 0.9))
    a.grad = torch.randn(3, 3)
    plain.step()
    for step in range(5):
        a.grad = torch.randn(3, 3, generator=torch.Generator().manual_seed(step))
        b.grad = a.grad.clone()
        plain.step()
        adam.step()
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_stack_takes_the_step_of_each_matrix() -> None:
    stack = nn.Parameter(torch.randn(2, 5, 5, dtype=torch.float64))
    alone = [nn.Parameter(x.clone()) for x in stack.detach()]
    one = Soap([stack], precondition_frequency=2)
    many = Soap(alone, precondition_frequency=2)
    for _ in range(6):
        stack.grad = torch.randn(2, 5, 5, dtype=torch.float64)
        for p, g in zip(alone, stack.grad, strict=True):
            p.grad = g.clone()
        one.step()
        many.step()
    torch.testing.assert_close(stack.detach(), torch.stack([p.detach() for p in alone]))


def test_states_take_two_moments_and_four_squares() -> None:
    m, n = 30, 20
    w = nn.Parameter(torch.ones(m, n))
    assert Soap([w]).state_bytes() == 4 * (2 * m * n + 2 * m * m + 2 * n * n)
    assert Soap([w], max_precond_dim=25).state_bytes() == 4 * (2 * m * n + 2 * n * n)
    thin = nn.Parameter(torch.ones(100, 4))  # the long side is more than 16 times the short one
    assert Soap([thin]).state_bytes() == 4 * (2 * 400 + 2 * 16)


@pytest.mark.parametrize(
    "options", [{"precondition_frequency": 0}, {"max_precond_dim": -1}, {"max_precond_ratio": 0.5}]
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Soap([nn.Parameter(torch.ones(2, 2))], **options)
