"""Native code of the low-rank optimizers against the reference, on every variant there is."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sharpen.native.info import supported
from sharpen.optim import Apollo, Frugal
from sharpen.optim.engine.base import Optimizer
from sharpen.optim.engine.lowrank_native import available, normal_rows
from sharpen.optim.engine.philox import normal, philox

SHAPES = [(40, 17), (17, 40), (33, 33), (6, 5, 4), (9,)]


@pytest.fixture(params=supported())
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SHARPEN_NATIVE", request.param)
    if not available():
        pytest.skip("there is no compiler")
    return str(request.param)


def train(
    kind: type[Optimizer], impl: str, steps: int, **options: Any
) -> tuple[Optimizer, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    ps = [nn.Parameter(torch.randn(s, generator=generator)) for s in SHAPES]
    optimizer = kind(ps, impl=impl, **options)
    for t in range(steps):
        for p in ps:
            p.grad = torch.randn(p.shape, generator=generator) * (40 if t == 4 else 1)
        if t == 5:
            ps[1].grad[3, 3] = float("nan")  # type: ignore[index]
            ps[2].grad.zero_()  # type: ignore[union-attr]
        optimizer.step(max_norm=1e9 if t == 2 else 30.0)
    return optimizer, [p.detach() for p in ps]


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 1, "scale_type": "tensor", "scale": 128.0},
        {"rank": 2, "scale_type": "channel", "scale_front": True, "scale": 4.0},
        {"rank": 4},
        {"rank": 4, "scale_type": "tensor", "maximize": True, "norm_growth": None},
        {"rank": 3, "proj": "rademacher", "proj_side": "reverse_std", "weight_decay": 0.1},
        {"rank": 3, "proj": "orthogonal", "on_refresh": "reset", "proj_dtype": "bf16"},
    ],
)
def test_steps_are_those_of_the_reference(variant: str, options: dict[str, Any]) -> None:
    """Over refreshes, a sudden large gradient, zeros, NaN and clipping; to rounding."""
    options = {"lr": 0.01, "update_proj_gap": 4, **options}
    reference, expected = train(Apollo, "eager", 10, **options)
    native, found = train(Apollo, "auto", 10, **options)
    for x, y in zip(expected, found, strict=True):
        torch.testing.assert_close(y, x, rtol=2e-5, atol=2e-5)
    assert native.stats() == reference.stats() == {"nonfinite": 1}
    for a, b in zip(reference.state.values(), native.state.values(), strict=True):
        assert torch.equal(a["step"], b["step"])
        for name in a.keys() & {"limiter", "exp_avg"}:
            torch.testing.assert_close(b[name], a[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stateful", ["adamw", "lion", "sgdm"])
@pytest.mark.parametrize("stateless", ["sign", "sgd", "none"])
def test_blocks_step_as_in_the_reference(variant: str, stateful: str, stateless: str) -> None:
    options = {
        "lr": 0.01,
        "update_gap": 3,
        "density": 0.4,
        "stateful": stateful,
        "stateless": stateless,
        "stateless_lr_scale": 0.5,
        "lr_scale": 0.7,
        "weight_decay": 0.1,
    }
    _, expected = train(Frugal, "eager", 10, **options)
    _, found = train(Frugal, "auto", 10, **options)
    for x, y in zip(expected, found, strict=True):
        torch.testing.assert_close(y, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("select", ["columns", "rows", "permutation"])
@pytest.mark.parametrize("stateless", ["sign", "sgd", "none"])
def test_splits_step_as_in_the_reference(variant: str, select: str, stateless: str) -> None:
    """Over refreshes, NaN and clipping."""
    options = {
        "lr": 0.01,
        "update_gap": 3,
        "density": 0.4,
        "select": select,
        "stateless": stateless,
        "stateless_lr_scale": 0.5,
        "lr_scale": 0.7,
        "weight_decay": 0.1,
        "maximize": select == "rows",
        "on_refresh": "keep" if stateless == "none" else "reset",
    }
    reference, expected = train(Frugal, "eager", 10, **options)
    native, found = train(Frugal, "auto", 10, **options)
    for x, y in zip(expected, found, strict=True):
        torch.testing.assert_close(y, x, rtol=1e-5, atol=1e-5)
    assert native.stats() == reference.stats() == {"nonfinite": 1}
    for a, b in zip(reference.state.values(), native.state.values(), strict=True):
        for name, value in a.items():
            torch.testing.assert_close(b[name], value, rtol=1e-5, atol=1e-6)


def test_random_numbers_are_the_twins(variant: str) -> None:
    """Words alike; logarithms and cosines within rounding."""
    for rank, width in ((1, 1), (3, 10), (2, 300)):
        found = normal_rows(rank, width, (77, 5), 2.0)
        ranks, places = torch.arange(rank).unsqueeze(1), torch.arange(-(-width // 4))
        expected = normal(philox((77, 5), (ranks, places, 0, 0))).reshape(rank, -1)[:, :width] / 2
        assert found is not None
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=2e-6)


def test_random_numbers_have_the_same_bits_in_every_variant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And for any number of threads."""
    found = []
    threads = torch.get_num_threads()
    for name in supported():
        monkeypatch.setenv("SHARPEN_NATIVE", name)
        for torch_threads in (1, 2):
            torch.set_num_threads(torch_threads)
            found.append(normal_rows(70, 300, (1, 2), 1.0))
    torch.set_num_threads(threads)
    if found[0] is None:
        pytest.skip("there is no compiler")
    assert all(torch.equal(found[0], other) for other in found if other is not None)
    assert float(found[0].mean().abs()) < 0.03
    assert float(found[0].std()) == pytest.approx(1, abs=0.03)
