import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sharpen.core.errors import ConfigError
from sharpen.optim import Cosmos, Muon
from sharpen.optim.cosmos import _tell_clamped

Array = np.ndarray[Any, np.dtype[np.float64]]
HYPER: dict[str, Any] = {"lr": 0.05, "betas": (0.9, 0.95), "weight_decay": 0.1, "lr_ratio": 0.3}


def newton_schulz(x: Array) -> Array:
    tall = x.shape[0] > x.shape[1]
    y = x.T if tall else x
    y = y / max(float(np.linalg.norm(y)), 1e-7)
    for _ in range(5):
        gram = y @ y.T
        y = 3.4445 * y + (-4.7750 * gram + 2.0315 * gram @ gram) @ y
    return y.T if tall else y


def reference(
    w: Array, gradients: list[Array], rank: int, gamma: float, nesterov: bool, every: int = 1
) -> list[Array]:
    """The published formulas in float64."""
    lr, (b1, b2), wd, ratio, eps = HYPER["lr"], HYPER["betas"], 0.1, 0.3, 1e-8
    m, n = w.shape
    root = np.sqrt(m * n)
    mom, v = np.zeros_like(w), np.zeros((m, rank))
    u, s = np.zeros((n, rank)), np.zeros((rank, rank))
    out = []
    for t, g in enumerate(gradients, 1):
        mom = b1 * mom + g
        if t == 1:
            u = np.linalg.eigh(g.T @ g)[1][:, ::-1][:, :rank]
            s = (1 - b2) * u.T @ g.T @ g @ u
        else:
            new = u
            if (t - 1) % every == 0:
                new = np.linalg.qr(b2 * u @ s + (1 - b2) * g.T @ (g @ u))[0]
            turn = u.T @ new
            s = b2 * turn.T @ s @ turn + (1 - b2) * (g @ new).T @ (g @ new)
            u = new
        v = b2 * v + (1 - b2) * (g @ u) ** 2
        k1, k2 = (1 - b1**t) / (1 - b1), 1 - b2**t
        blend = (g + b1 * mom) / (1 + b1 * k1) if nesterov else mom / k1
        z = blend @ u
        a = (z / (np.sqrt(v) / np.sqrt(k2) + eps)) @ u.T
        b = newton_schulz(blend - z @ u.T)
        b = root * b / (np.linalg.norm(b) + eps)
        c = a + gamma * b
        w = (1 - lr * wd) * w
        w = w - lr * ratio * root * c / (np.linalg.norm(c) + eps)
        out.append(w)
    return out


def _gradients(shape: tuple[int, ...], count: int) -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) * np.logspace(0, -1, shape[1]) for _ in range(count)]


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("shape", [(9, 6), (6, 9), (7, 7)])
def test_weights_are_those_of_the_formulas(
    shape: tuple[int, ...], every: int, nesterov: bool
) -> None:
    w = nn.Parameter(torch.randn(shape, dtype=torch.float64))
    gradients = _gradients(shape, 40)
    expected = reference(w.detach().numpy().copy(), gradients, 3, 0.2, nesterov, every)
    optimizer = Cosmos(
        [w],
        rank=3,
        nesterov=nesterov,
        basis_every=every,
        init="svd",
        ns_dtype="fp32",
        **HYPER,
    )
    for g, want in zip(gradients, expected, strict=True):
        w.grad = torch.from_numpy(g.copy())
        optimizer.step()
        np.testing.assert_allclose(w.detach().numpy(), want, rtol=0, atol=1e-9)


def test_the_short_side_is_the_same_on_the_transposed_matrix() -> None:
    wide = nn.Parameter(torch.randn(5, 12, dtype=torch.float64))
    tall = nn.Parameter(wide.detach().mT.clone())
    options: dict[str, Any] = {"rank": 2, "init": "svd", "ns_dtype": "fp32", **HYPER}
    a, b = Cosmos([wide], side="short", **options), Cosmos([tall], **options)
    for g in _gradients((5, 12), 8):
        wide.grad = torch.from_numpy(g.copy())
        tall.grad = wide.grad.mT.clone()
        a.step()
        b.step()
    torch.testing.assert_close(wide.mT, tall, rtol=1e-10, atol=1e-10)
    assert a.state_bytes() == b.state_bytes()


def test_steps_have_the_same_size_whatever_the_gradients() -> None:
    w = nn.Parameter(torch.randn(20, 12))
    optimizer = Cosmos([w], lr=0.01, lr_ratio=0.2, rank=4, weight_decay=0)
    for step in range(6):
        before = w.detach().clone()
        w.grad = torch.randn(20, 12) * 10.0 ** (step - 3)
        optimizer.step()
        size = float((w.detach() - before).square().mean().sqrt())
        assert size == pytest.approx(0.01 * 0.2, rel=1e-4)  # 1e-5 and the weights' own rounding


def test_the_basis_stays_orthonormal_for_a_thousand_steps() -> None:
    w = nn.Parameter(torch.zeros(10, 8))
    optimizer = Cosmos([w], rank=3, ns_dtype="fp32")
    generator = torch.Generator().manual_seed(0)
    scale = torch.logspace(0, -3, 8)
    for _ in range(1000):
        w.grad = torch.randn(10, 8, generator=generator) * scale
        optimizer.step()
    state = optimizer.state[w]
    basis, spectrum = state["basis"], state["spectrum"]
    torch.testing.assert_close(basis.mT @ basis, torch.eye(3), rtol=0, atol=1e-5)
    assert torch.equal(spectrum, spectrum.mT)
    # Inputs 0, 1, 2 have the largest gradients.
    assert float(basis[:3].square().sum()) > 2.7


def test_a_full_basis_without_the_rest_is_one_sided_soap() -> None:
    """With r = n and gamma = 0 the direction is N Q / sqrt(V) Q^T in an orthonormal basis Q."""
    w = nn.Parameter(torch.zeros(8, 4, dtype=torch.float64))
    optimizer = Cosmos([w], rank=4, gamma=0.0, init="svd", lr=1.0, lr_ratio=1.0, weight_decay=0)
    mom = torch.zeros(8, 4, dtype=torch.float64)
    v = torch.zeros(8, 4, dtype=torch.float64)
    for t, array in enumerate(_gradients((8, 4), 6), 1):
        g = torch.from_numpy(array.copy())
        w.grad = g.clone()
        before = w.detach().clone()
        optimizer.step()
        q = optimizer.state[w]["basis"]
        mom = 0.95 * mom + g
        v = 0.95 * v + 0.05 * (g @ q).square()
        blend = g + 0.95 * mom
        direction = (blend @ q / (v / (1 - 0.95**t)).sqrt()) @ q.mT
        step = before - w.detach()
        torch.testing.assert_close(
            step / step.norm(), direction / direction.norm(), rtol=1e-6, atol=1e-6
        )


def test_without_a_basis_it_is_muon_of_fixed_size() -> None:
    a, b = (nn.Parameter(torch.zeros(8, 5, dtype=torch.float64)) for _ in range(2))
    ours = Cosmos([a], rank=0, lr=1.0, lr_ratio=1.0, weight_decay=0, ns_dtype="fp32")
    muon = Muon([b], lr=1.0, weight_decay=0, ns_dtype="fp32", momentum=0.95)
    a.grad = torch.randn(8, 5, dtype=torch.float64)
    b.grad = a.grad.clone()
    ours.step()
    muon.step()
    torch.testing.assert_close(a / a.norm(), b / b.norm(), rtol=1e-9, atol=1e-9)


def test_the_random_range_finder_finds_the_leading_directions() -> None:
    generator = torch.Generator().manual_seed(1)
    scale = torch.cat([torch.tensor([30.0, 20.0, 10.0]), torch.full((37,), 0.1)])
    g = torch.randn(60, 40, generator=generator) * scale
    bases = []
    for init in ("randsvd", "svd"):
        w = nn.Parameter(torch.zeros(60, 40))
        optimizer = Cosmos([w], rank=3, init=init)
        w.grad = g.clone()
        optimizer.step()
        bases.append(optimizer.state[w]["basis"])
    overlap = torch.linalg.svdvals(bases[0].mT @ bases[1])
    torch.testing.assert_close(overlap, torch.ones(3), rtol=0, atol=1e-4)


def test_gradients_of_few_directions_and_of_none_are_no_trap() -> None:
    w = nn.Parameter(torch.ones(6, 6))
    optimizer = Cosmos([w], rank=4, weight_decay=0)
    for g in (torch.zeros(6, 6), torch.ones(6, 6), torch.zeros(6, 6), torch.randn(6, 6)):
        w.grad = g
        optimizer.step()
        assert w.isfinite().all()


def test_a_rank_above_the_matrix_is_clamped_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _tell_clamped.cache_clear()
    w = nn.Parameter(torch.ones(4, 6))
    with caplog.at_level(logging.WARNING):
        optimizer = Cosmos([w], rank=64)
        assert optimizer.state_bytes() == 4 * (4 * 6 + 4 * 4 + 6 * 4 + 4 * 4)
        optimizer.state_bytes()
    assert [r.message for r in caplog.records] == [
        "rank=64 is more than a matrix of 4 x 6 has; min(m, n) is used."
    ]


def test_states_take_the_bytes_of_the_formula() -> None:
    m, n, r = 30, 20, 8
    w = nn.Parameter(torch.ones(m, n))
    assert Cosmos([w], rank=r).state_bytes() == 4 * (m * n + m * r + n * r + r * r)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": -1}, "rank=-1"),
        ({"basis_every": 0}, "basis_every=0"),
        ({"gamma": -0.1}, "gamma=-0.1"),
        ({"side": "out"}, "side='out'"),
        ({"init": "eigh"}, "init='eigh'"),
        ({"ns_dtype": "fp8"}, "ns_dtype='fp8'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Cosmos([nn.Parameter(torch.ones(2, 2))], **options)
