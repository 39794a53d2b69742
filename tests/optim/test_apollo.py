import logging
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sharpen.core.errors import ConfigError
from sharpen.optim import Apollo, ApolloMini, create, estimate, parse_options
from sharpen.optim.engine.lowrank import FoldedAdamWRule
from sharpen.optim.engine.projector import Projector, param_seed, side_is_right

SHAPES = [(12, 5), (5, 12), (6, 6), (7, 5)]


class Written:
    """The algorithm, step by step, in float64."""

    def __init__(self, w: Tensor, index: int, **options: Any) -> None:
        self.w, self.index, self.o, self.t = w.clone(), index, options, 0
        self.m = self.v = torch.zeros(())
        self.q: float | None = None

    def step(self, g: Tensor) -> None:
        o, (m_rows, n) = self.o, self.w.shape
        self.t += 1
        right = m_rows >= n
        if (self.t - 1) % o["gap"] == 0:
            kind = Projector("gaussian", o["rank"], (m_rows, n), right)
            count = (self.t - 1) // o["gap"]
            self.p = kind.make(g, param_seed(o["seed"], self.index), count)
        r = g @ self.p.T if right else self.p.T @ g
        self.m = 0.9 * self.m + 0.1 * r
        self.v = 0.999 * self.v + 0.001 * r * r
        normed = self.m / (self.v.sqrt() + 1e-6)
        if o["scale_type"] == "tensor":
            s = g * (normed.norm() / (r.norm() + 1e-8))
        elif right:
            s = g * (normed.norm(dim=1) / (r.norm(dim=1) + 1e-8))[:, None]
        else:
            s = g * (normed.norm(dim=0) / (r.norm(dim=0) + 1e-8))[None, :]
        if o["front"]:
            s = s * math.sqrt(o["scale"])
        before = float(s.norm())
        growth = 1.0
        if self.q is not None:
            growth = max(before / (self.q + 1e-8), 1.01) / 1.01
        s, self.q = s / growth, before / growth
        if not o["front"]:
            s = s * math.sqrt(o["scale"])
        rate = o["lr"] * math.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t)
        self.w = self.w - rate * s
        self.w = self.w - o["lr"] * o["wd"] * self.w


@pytest.mark.parametrize("scale_type", ["channel", "tensor"])
@pytest.mark.parametrize("front", [False, True])
def test_steps_follow_the_algorithm(scale_type: str, front: bool) -> None:
    """Over refreshes and a sudden large gradient, for every side."""
    generator = torch.Generator().manual_seed(0)
    ws = [torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES]
    options = {"rank": 3, "gap": 7, "scale": 2.0, "lr": 0.01, "wd": 0.1, "seed": 5}
    written = [
        Written(w, i, scale_type=scale_type, front=front, **options) for i, w in enumerate(ws, 1)
    ]
    ps = [nn.Parameter(w.clone()) for w in ws]
    optimizer = Apollo(
        ps,
        rank=3,
        update_proj_gap=7,
        scale=2.0,
        scale_type=scale_type,  # type: ignore[arg-type]
        scale_front=front,
        weight_decay=0.1,
        wd_order="after",
        seed=5,
    )
    for t in range(30):
        for p, by_hand in zip(ps, written, strict=True):
            g = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            g *= 50 if t == 12 else 1
            p.grad = g.clone()
            by_hand.step(g)
        optimizer.step()
    for p, by_hand in zip(ps, written, strict=True):
        torch.testing.assert_close(p.detach(), by_hand.w)


def stepped(grads: list[Tensor], **options: Any) -> list[Tensor]:
    """The steps that gradients lead to, in learning rates."""
    w = nn.Parameter(torch.zeros_like(grads[0]))
    optimizer = Apollo([w], lr=1.0, **options)
    steps = []
    for g in grads:
        before = w.detach().clone()
        w.grad = g
        optimizer.step()
        steps.append(before - w.detach())
    return steps


def test_a_step_grows_by_one_percent_however_large_the_gradient() -> None:
    """The norm without a_t, after a gradient 1000 times as large."""
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(8, 6, generator=generator, dtype=torch.float64) for _ in range(5)]
    grads[4] *= 1000
    steps = stepped(grads, rank=2)
    rates = [math.sqrt(1 - 0.999**t) / (1 - 0.9**t) for t in range(1, 6)]
    norms = [float(s.norm()) / rate for s, rate in zip(steps, rates, strict=True)]
    assert norms[4] / norms[3] == pytest.approx(1.01, rel=1e-7)


def test_a_gradient_of_zeros_does_not_hold_back_all_later_steps() -> None:
    grads = [torch.ones(8, 6), torch.zeros(8, 6), torch.ones(8, 6), torch.ones(8, 6)]
    steps = stepped(grads, rank=2)
    assert float(steps[1].norm()) == 0
    assert float(steps[2].norm()) > 0.3 * float(steps[0].norm())


def test_without_a_limit_a_norm_is_not_remembered() -> None:
    grads = [1e-7 * torch.ones(8, 6), torch.ones(8, 6)]  # eps makes the first step a small one
    steps = stepped(grads, rank=2, norm_growth=None)
    assert float(steps[1].norm()) > 10 * float(steps[0].norm())
    with_limit, without = (
        Apollo([nn.Parameter(torch.zeros(8, 6))], rank=2, norm_growth=n) for n in (1.01, None)
    )
    slots = [
        o.specs(p, g, (8, 6))
        for o in (with_limit, without)
        for g in o.param_groups
        for p in g["params"]
    ]
    assert ["limiter" in s for s in slots] == [True, False]


@pytest.mark.parametrize("side", ["std", "reverse_std", "left", "right"])
@pytest.mark.parametrize("shape", [(9, 6), (6, 9)])
def test_channels_are_those_of_the_side_that_stays(side: Any, shape: tuple[int, int]) -> None:
    """The step is the gradient with rows (columns) scaled, and nothing else."""
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    (step,) = stepped([g], rank=3, proj_side=side)
    ratio = step / g
    along = 1 if side_is_right(side, shape) else 0
    spread = ratio.amax(along) - ratio.amin(along)
    assert float(spread.max()) < 1e-4 * float(ratio.abs().max())
    other = ratio.amax(1 - along) - ratio.amin(1 - along)
    assert float(other.min()) > 1e-3


@pytest.mark.parametrize("kind", ["apollo", "apollo_mini"])
def test_bytes_of_states_follow_the_formulas(kind: str) -> None:
    """2 L r values, and s r more where the basis is kept: rank 1, or 16 r up to L."""
    shapes = [(64, 48), (48, 200), (300, 20), (31, 33)]
    for rank in (1,) if kind == "apollo_mini" else (2, 5, 18):
        for cache in (True, False, "auto"):
            ps = [nn.Parameter(torch.zeros(s)) for s in shapes]
            maker = Apollo if kind == "apollo" else ApolloMini
            optimizer = maker(ps, rank=rank, cache_projection=cache)
            low = sum(4 * 2 * max(s) * rank for s in shapes)
            keeps = [
                cache is True or (cache == "auto" and (rank == 1 or 16 * rank <= max(s)))
                for s in shapes
            ]
            bases = sum(4 * min(s) * rank for s, kept in zip(shapes, keeps, strict=True) if kept)
            assert optimizer.state_bytes(predicted=True) == low + bases
            for p in ps:
                p.grad = torch.ones_like(p)
            optimizer.step()
            assert optimizer.state_bytes() == low + bases
            assert optimizer.state_bytes(include_projection=False) == low


def test_kept_and_remade_bases_take_the_same_steps() -> None:
    grads = [torch.randn(9, 6, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    for on_refresh, proj in (
        ("keep", "gaussian"),
        ("rotate", "orthogonal"),
        ("reset", "rademacher"),
    ):
        options = {"rank": 2, "update_proj_gap": 3, "proj": proj, "on_refresh": on_refresh}
        kept = stepped(grads, cache_projection=True, **options)
        remade = stepped(grads, cache_projection=False, **options)
        assert all(map(torch.equal, kept, remade))


def test_reset_moments_start_again() -> None:
    """With a reset at each step, a step is as the first one: sign by sign in the subspace."""
    g = torch.randn(9, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    steps = stepped([g, g], rank=5, update_proj_gap=1, on_refresh="reset", norm_growth=None)
    rate = math.sqrt(1 - 0.999) / (1 - 0.9)
    for count, step in enumerate(steps):
        projector = Projector("gaussian", 5, (9, 6), True)
        low = projector.down(g, projector.make(g, param_seed(0, 1), count))
        normed = 0.1 * low / (0.001**0.5 * low.abs() + 1e-6)
        c = normed.norm(dim=1) / (low.norm(dim=1) + 1e-8)
        torch.testing.assert_close(step, rate * c[:, None] * g)


def test_bfloat16_projections_are_near() -> None:
    grads = [torch.randn(40, 30, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    exact = stepped(grads, rank=8)
    rough = stepped(grads, rank=8, proj_dtype="bf16")
    for x, y in zip(exact, rough, strict=True):
        assert 0 < float((x - y).norm()) < 0.02 * float(x.norm())
    w = nn.Parameter(torch.zeros(9, 6))
    assert Apollo([w], rank=2, proj_dtype="auto").param_groups[0]["proj_dtype"] in ("fp32", "bf16")


def test_what_a_rank_does_not_fit_is_adamws_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    small, vector = nn.Parameter(torch.zeros(4, 300)), nn.Parameter(torch.zeros(9))
    with caplog.at_level(logging.WARNING):
        optimizer = Apollo([("small", small), ("vector", vector)], lr=0.1, rank=4, eps=1e-8)
    assert "small (4, 300)" in caplog.text and "vector" not in caplog.text
    small.grad, vector.grad = torch.ones(4, 300), torch.ones(9)
    optimizer.step()
    torch.testing.assert_close(small.detach(), torch.full((4, 300), -0.1))
    torch.testing.assert_close(vector.detach(), torch.full((9,), -0.1))


def test_roles_choose_what_is_projected() -> None:
    model = nn.Sequential(nn.Embedding(40, 32), nn.Linear(32, 64), nn.Linear(64, 40))
    optimizer = create("apollo-mini", model, min_lowrank_dim=32)
    rules = {g["role"]: g["rule"] for g in optimizer.param_groups}
    assert rules == {"embedding": "adamw", "matrix": "apollo", "vector": "adamw", "head": "adamw"}
    report = estimate(model, "apollo-mini", min_lowrank_dim=32)
    rest = 40 * 32 + 64 + 40 + 40 * 64
    assert (report.states, report.projections) == (4 * (2 * 64 + 2 * rest), 4 * 32)


def test_auto_is_a_quarter_of_the_short_side() -> None:
    w = nn.Parameter(torch.zeros(100, 40))
    optimizer = Apollo([w], rank="auto", cache_projection=True)
    assert optimizer.state_bytes(predicted=True) == 4 * (2 * 100 * 10 + 40 * 10)


def test_folded_adamw_has_eps_outside_the_corrections() -> None:
    g, w = torch.tensor([0.5, -2.0]), nn.Parameter(torch.zeros(2))
    optimizer = Apollo([{"params": [w], "rule": "adamw_folded"}], lr=0.1, eps=0.1)
    assert isinstance(optimizer.rules["adamw_folded"], FoldedAdamWRule)
    w.grad = g
    optimizer.step()
    rate = 0.1 * math.sqrt(1 - 0.999) / (1 - 0.9)
    expected = -rate * 0.1 * g / ((0.001 * g * g).sqrt() + 0.1)
    torch.testing.assert_close(w.detach(), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank=0"),
        ({"rank": "half"}, "rank='half'"),
        ({"update_proj_gap": 0}, "update_proj_gap=0"),
        ({"proj": "columns"}, "Use Frugal with select='columns'"),
        ({"proj": "gauss"}, "proj='gauss'"),
        ({"proj_side": "up"}, "proj_side='up'"),
        ({"on_refresh": "turn"}, "on_refresh='turn'"),
        ({"on_refresh": "rotate"}, "orthonormal"),
        ({"scale_type": "row"}, "scale_type='row'"),
        ({"scale": 0.0}, "scale=0"),
        ({"norm_growth": 1.0}, "norm_growth=1"),
        ({"proj_dtype": "fp16"}, "proj_dtype='fp16'"),
        ({"rng": "numpy"}, "rng='numpy'"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Apollo([nn.Parameter(torch.zeros(9, 6))], **options)


def test_options_of_transformers_trainer_are_understood() -> None:
    model = nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 8))
    text = "rank=1,proj=random,scale_type=tensor,scale=128.0,update_proj_gap=200"
    options = parse_options(text)
    optimizer = create("apollo_adamw", model, lr=0.01, min_lowrank_dim=8, **options)
    mini = create("apollo-mini", model, lr=0.01, min_lowrank_dim=8)
    names = ("rule", "rank", "proj", "scale_type", "scale", "update_proj_gap", "lr")
    for ours, theirs in zip(optimizer.param_groups, mini.param_groups, strict=True):
        assert [ours[name] for name in names] == [theirs[name] for name in names]
