import math

import pytest
import torch
from torch import nn

from sharpen.core.errors import ConfigError
from sharpen.optim import Fira

SHAPES = [(12, 7), (7, 12), (8, 8)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("compat", [False, True])
def test_steps_follow_the_algorithm(shape: tuple[int, int], compat: bool) -> None:
    """In float64, over refreshes and a sudden large gradient."""
    generator = torch.Generator().manual_seed(0)
    w = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    optimizer = Fira([w], rank=3, update_proj_gap=4, compat=compat, alpha=0.3)
    by_hand, m, v, q = torch.zeros(shape, dtype=torch.float64), 0.0, 0.0, 0.0
    for t in range(1, 14):
        g = torch.randn(shape, generator=generator, dtype=torch.float64) * (20 if t == 6 else 1)
        w.grad = g
        optimizer.step()
        if (t - 1) % 4 == 0:
            u, _, vh = torch.linalg.svd(g, full_matrices=False)
        right = shape[0] >= shape[1]
        basis = vh[:3] if right else u[:, :3]
        r = g @ basis.T if right else basis.T @ g
        m, v = 0.9 * m + 0.1 * r, 0.999 * v + 0.001 * r * r
        normed = m / (v.sqrt() + 1e-6)
        along = 1 if right else 0
        c = normed.norm(dim=along, keepdim=True) / (r.norm(dim=along, keepdim=True) + 1e-8)
        inside = [x @ basis if right else basis @ x for x in (r, normed)]
        d = (g - (0.3 if compat else 1.0) * inside[0]) * c
        if q:
            d = d / (max(float(d.norm()) / (q + 1e-8), 1.01) / 1.01)
        q = float(d.norm())
        rate = 0.01 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        by_hand = by_hand - rate * (0.3 * inside[1] + d)
    torch.testing.assert_close(w.detach(), by_hand)


def test_what_is_outside_of_the_subspace_moves_too() -> None:
    """GaLore's step would have rank 2."""
    w = nn.Parameter(torch.zeros(9, 6))
    optimizer = Fira([w], rank=2)
    w.grad = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    assert int(torch.linalg.matrix_rank(w.detach())) == 6


def test_bytes_of_states_follow_the_formula() -> None:
    """2 L r + s r values."""
    ps = [nn.Parameter(torch.randn(s)) for s in SHAPES]
    optimizer = Fira(ps, rank=3)
    for p in ps:
        p.grad = torch.randn_like(p)
    optimizer.step()
    expected = sum(4 * (2 * max(s) * 3 + min(s) * 3) for s in SHAPES)
    assert optimizer.state_bytes() == expected == optimizer.state_bytes(predicted=True)


@pytest.mark.parametrize(
    ("options", "message"), [({"alpha": 0.0}, "alpha=0"), ({"norm_growth": 0.5}, "norm_growth=0.5")]
)
def test_impossible_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Fira([nn.Parameter(torch.zeros(9, 6))], **options)  # type: ignore[arg-type]
