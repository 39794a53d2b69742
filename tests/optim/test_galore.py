import math
from typing import Any

import pytest
import torch
from torch import nn

from sharpen.core.errors import ConfigError
from sharpen.optim import GaLore, GaLore8bit

SHAPES = [(12, 7), (7, 12), (8, 8)]


@pytest.mark.peer
def test_steps_are_those_of_the_published_code() -> None:
    """galore-torch 1.0 over refreshes, with vectors beside the matrices."""
    from galore_torch import GaLoreAdamW

    generator = torch.Generator().manual_seed(0)
    ws = [torch.randn(s, generator=generator) for s in [*SHAPES, (9,)]]
    theirs, ours = ([nn.Parameter(w.clone()) for w in ws] for _ in range(2))
    low = {"rank": 3, "update_proj_gap": 10, "scale": 0.25, "proj_type": "std"}
    peer = GaLoreAdamW(
        [{"params": theirs[:-1], **low}, {"params": theirs[-1:]}],
        lr=0.01,
        weight_decay=0.1,
        no_deprecation_warning=True,
    )
    groups: list[dict[str, Any]] = [
        {"params": ours[:-1]},
        {"params": ours[-1:], "rule": "adamw_folded"},
    ]
    optimizer = GaLore(
        groups,
        rank=3,
        update_proj_gap=10,
        weight_decay=0.1,
        wd_order="after",
    )
    for _ in range(40):
        for x, y in zip(theirs, ours, strict=True):
            g = torch.randn(x.shape, generator=generator)
            x.grad, y.grad = g.clone(), g.clone()
        peer.step()
        optimizer.step()
    for x, y in zip(theirs, ours, strict=True):
        torch.testing.assert_close(y, x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_steps_follow_the_algorithm(shape: tuple[int, int]) -> None:
    """In float64, over a refresh."""
    generator = torch.Generator().manual_seed(0)
    w = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    optimizer = GaLore([w], rank=3, update_proj_gap=4)
    by_hand, m, v = torch.zeros(shape, dtype=torch.float64), 0.0, 0.0
    for t in range(1, 9):
        w.grad = g = torch.randn(shape, generator=generator, dtype=torch.float64)
        optimizer.step()
        if (t - 1) % 4 == 0:
            u, _, vh = torch.linalg.svd(g, full_matrices=False)
        right = shape[0] >= shape[1]
        r = g @ vh[:3].T if right else u[:, :3].T @ g
        m, v = 0.9 * m + 0.1 * r, 0.999 * v + 0.001 * r * r
        normed = m / (v.sqrt() + 1e-6)
        back = normed @ vh[:3] if right else u[:, :3] @ normed
        by_hand -= 0.01 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) * 0.25 * back
    torch.testing.assert_close(w.detach(), by_hand)


def test_bytes_of_states_follow_the_formula() -> None:
    """2 L r + s r values; a basis of singular vectors cannot be made again."""
    ps = [nn.Parameter(torch.randn(s)) for s in SHAPES]
    optimizer = GaLore(ps, rank=3)
    for p in ps:
        p.grad = torch.randn_like(p)
    optimizer.step()
    expected = sum(4 * (2 * max(s) * 3 + min(s) * 3) for s in SHAPES)
    assert optimizer.state_bytes() == expected == optimizer.state_bytes(predicted=True)
    assert optimizer.state_bytes(include_projection=False) == expected


def test_eight_bit_states_take_a_quarter() -> None:
    w = nn.Parameter(torch.randn(512, 64))
    optimizer = GaLore8bit([w], rank=16)
    moments = 2 * (512 * 16 + 4 * 512 * 16 // 256)
    assert optimizer.state_bytes(predicted=True) == moments + 4 * 64 * 16
    with pytest.raises(ConfigError, match="scale=0"):
        GaLore([w], scale=0.0)


@pytest.mark.parametrize("proj", ["randsvd", "orthogonal", "permutation"])
def test_other_bases_descend(proj: Any) -> None:
    """A quadratic of rank 2 is minimized with rank 4."""
    generator = torch.Generator().manual_seed(0)
    goal = torch.randn(20, 2, generator=generator) @ torch.randn(2, 12, generator=generator)
    w = nn.Parameter(torch.zeros(20, 12))
    optimizer = GaLore([w], lr=0.6, rank=4, update_proj_gap=5, proj=proj)
    for _ in range(300):
        w.grad = (w - goal).detach()
        optimizer.step()
    assert float((w - goal).detach().norm()) < 0.2 * float(goal.norm())
