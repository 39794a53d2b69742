"""AdamW, Adagrad, NAdamW, AdEMAMix, LAMB and Adafactor against formulas in float64, and torch."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sharpen.core.errors import ConfigError
from sharpen.optim.adafactor import Adafactor
from sharpen.optim.adagrad import Adagrad
from sharpen.optim.adamw import AdamW
from sharpen.optim.ademamix import AdEMAMix, mixing
from sharpen.optim.engine.base import Optimizer
from sharpen.optim.lamb import Lamb
from sharpen.optim.nadamw import NAdamW

SHAPES = [(6, 5), (7,)]


def gradients(steps: int, dtype: torch.dtype = torch.float64) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in SHAPES]
        for _ in range(steps)
    ]


def start(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(4)
    return [
        nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype))
        for shape in SHAPES
    ]


def run(optimizer: Any, ps: list[nn.Parameter], steps: list[list[Tensor]]) -> None:
    for gs in steps:
        for p, g in zip(ps, gs, strict=True):
            p.grad = g.clone()
        optimizer.step()


def test_nadamw_looks_one_step_ahead() -> None:
    ps, steps = start(), gradients(6)
    run(NAdamW(ps, lr=0.1, betas=(0.8, 0.9), weight_decay=0.2), ps, steps)
    for i, w in enumerate(p.detach().clone() for p in start()):
        m, v = torch.zeros_like(w), torch.zeros_like(w)
        for t, gs in enumerate(steps, 1):
            m, v = 0.8 * m + 0.2 * gs[i], 0.9 * v + 0.1 * gs[i] ** 2
            upper = (0.8 * m + 0.2 * gs[i]) / (1 - 0.8**t)
            w = w - 0.1 * (upper / ((v / (1 - 0.9**t)).sqrt() + 1e-8) + 0.2 * w)
        torch.testing.assert_close(ps[i].detach(), w)


def test_ademamix_mixes_a_fast_and_a_slow_average() -> None:
    ps, steps = start(), gradients(8)
    own: dict[str, Any] = {"betas": (0.8, 0.9, 0.99), "alpha": 5.0, "t_alpha": 5, "t_beta3": 6}
    run(AdEMAMix(ps, lr=0.1, weight_decay=0.2, **own), ps, steps)
    for i, w in enumerate(p.detach().clone() for p in start()):
        fast, slow, v = torch.zeros_like(w), torch.zeros_like(w), torch.zeros_like(w)
        for t, gs in enumerate(steps, 1):
            alpha = min(5.0, 5.0 * t / 5)
            beta3 = 0.99
            if t < 6:  # its half-life is a mean of theirs
                lives = [math.log(0.5) / math.log(b) for b in (0.8, 0.99)]
                life = (1 - t / 6) * lives[0] + t / 6 * lives[1]
                beta3 = 0.5 ** (1 / life)
            fast, slow = 0.8 * fast + 0.2 * gs[i], beta3 * slow + (1 - beta3) * gs[i]
            v = 0.9 * v + 0.1 * gs[i] ** 2
            upper = fast / (1 - 0.8**t) + alpha * slow
            w = w - 0.1 * (upper / ((v / (1 - 0.9**t)).sqrt() + 1e-8) + 0.2 * w)
        torch.testing.assert_close(ps[i].detach(), w)


def test_the_warm_up_of_the_slow_average_goes_from_the_fast_rate_to_its_own() -> None:
    group = {"betas": (0.9, 0.999, 0.9999), "alpha": 8.0, "t_alpha": 1000, "t_beta3": 1000}
    rates = [mixing(group, t) for t in (1, 250, 500, 1000, 5000)]
    assert [a for a, _ in rates] == pytest.approx([0.008, 2.0, 4.0, 8.0, 8.0])
    betas = [b for _, b in rates]
    assert betas == sorted(betas) and betas[0] > 0.9 and betas[-2:] == [0.9999, 0.9999]


def test_lamb_moves_a_matrix_by_a_part_of_its_norm() -> None:
    ps, steps = start(), gradients(6)
    run(Lamb(ps, lr=0.1, betas=(0.8, 0.9), weight_decay=0.2, max_norm_weight=5.0), ps, steps)
    for i, w in enumerate(p.detach().clone() for p in start()):
        m, v = torch.zeros_like(w), torch.zeros_like(w)
        for t, gs in enumerate(steps, 1):
            m, v = 0.8 * m + 0.2 * gs[i], 0.9 * v + 0.1 * gs[i] ** 2
            u = m / (1 - 0.8**t) / ((v / (1 - 0.9**t)).sqrt() + 1e-6) + 0.2 * w
            ratio = min(float(w.norm()), 5.0) / float(u.norm()) if w.ndim > 1 else 1.0
            w = w - 0.1 * ratio * u
        torch.testing.assert_close(ps[i].detach(), w)


@pytest.mark.parametrize("zero", ["weights", "gradient"])
def test_lamb_takes_a_ratio_of_one_where_a_norm_is_zero(zero: str) -> None:
    w = nn.Parameter(torch.full((2, 2), 0.0 if zero == "weights" else 1.0))
    optimizer = Lamb([w], lr=0.5, weight_decay=0.0)
    w.grad = torch.full((2, 2), 1.0 if zero == "weights" else 0.0)
    before = w.detach().clone()
    optimizer.step()
    moved = 0.5 if zero == "weights" else 0.0
    torch.testing.assert_close(before - w.detach(), torch.full((2, 2), moved))


PEERS: list[tuple[type[Optimizer], Any, dict[str, Any], dict[str, Any]]] = [
    (AdamW, torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.1, "betas": (0.8, 0.99)}, {}),
    (AdamW, torch.optim.AdamW, {"lr": 0.1, "eps": 0.1, "maximize": True}, {}),
    (Adagrad, torch.optim.Adagrad, {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1}, {}),
    (Adagrad, torch.optim.Adagrad, {"lr": 0.1, "initial_accumulator_value": 0.5}, {}),
    (Adafactor, torch.optim.Adafactor, {"lr": 0.05, "weight_decay": 0.1}, {}),
    (Adafactor, torch.optim.Adafactor, {"beta2_decay": -0.5}, {"clip": 2.0}),
]


@pytest.mark.parametrize(("ours", "theirs", "shared", "own"), PEERS)
def test_steps_are_those_of_torch(
    ours: type[Optimizer], theirs: Any, shared: dict[str, Any], own: dict[str, Any]
) -> None:
    ps, qs = start(torch.float32), start(torch.float32)
    steps = gradients(50, torch.float32)
    run(ours(ps, **shared, **own), ps, steps)  # type: ignore[arg-type]
    run(theirs(qs, **shared, **({"d": own["clip"]} if own else {})), qs, steps)
    for p, q in zip(ps, qs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_adafactor_keeps_a_row_and_a_column() -> None:
    assert Adafactor([nn.Parameter(torch.ones(30, 50))]).state_bytes() == 4 * 80
    assert Adafactor([nn.Parameter(torch.ones(4, 30, 50))]).state_bytes() == 4 * 4 * 80
    assert Adafactor([nn.Parameter(torch.ones(50))]).state_bytes() == 4 * 50


def test_adafactor_bounds_small_variances_as_torch_does() -> None:
    """Gradients so small that the product of row and column is below the bound, in parts."""
    ps, qs = start(torch.float32), start(torch.float32)
    steps = gradients(5, torch.float32)
    for gs in steps:
        gs[0][:2] *= 1e-12
        gs[0][:, 0] = 0
    run(Adafactor(ps), ps, steps)
    run(torch.optim.Adafactor(qs), qs, steps)
    for p, q in zip(ps, qs, strict=True):
        assert p.isfinite().all()
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_adafactor_has_the_rates_of_the_paper() -> None:
    """Fixed; falling; growing at first; and times the size of the weights."""
    for options, expected in (
        ({"relative_step": False, "scale_parameter": False}, 0.1),
        ({"scale_parameter": False, "lr": 9.0}, 1.0),
        ({"scale_parameter": False, "warmup_init": True, "lr": 1e-6}, 1e-6),
        ({}, 0.2),
    ):
        w = nn.Parameter(torch.full((3, 3), 2.0))
        w.grad = torch.ones(3, 3)
        Adafactor([w], **{"lr": 0.1, **options}).step()  # type: ignore[arg-type]
        torch.testing.assert_close(2.0 - w.detach(), torch.full((3, 3), expected), rtol=0.2, atol=0)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Adafactor, {"beta2_decay": 0.8}, "beta2_decay=0.8"),
        (Adafactor, {"clip": 0.0}, "clip=0.0"),
        (Adafactor, {"eps2": -1.0}, "eps2=-1.0"),
        (Adagrad, {"lr_decay": -1.0}, "lr_decay=-1.0"),
        (Lamb, {"max_norm_weight": 0.0}, "max_norm_weight=0.0"),
        (AdEMAMix, {"betas": (0.9, 0.999)}, "three numbers"),
        (AdEMAMix, {"alpha": -1.0}, "alpha=-1.0"),
        (AdEMAMix, {"betas": (0.0, 0.9, 0.99), "t_beta3": 10}, "t_beta3=10"),
    ],
)
def test_options_out_of_range_are_refused(
    kind: type[Optimizer], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        kind([nn.Parameter(torch.ones(2))], **options)  # type: ignore[arg-type]
