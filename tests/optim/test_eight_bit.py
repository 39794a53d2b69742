"""Optimizers with 8-bit states, beside bitsandbytes and beside 32 bits."""

from typing import Any

import pytest
import torch
from torch import nn

from sharpen.optim.adamw import AdamW, AdamW8bit
from sharpen.optim.ademamix import AdEMAMix8bit
from sharpen.optim.engine.base import Optimizer
from sharpen.optim.engine.quant import codebook, quantize_blockwise
from sharpen.optim.lion import Lion8bit

PARITY: dict[str, Any] = {"code_rounding": "lut16", "v_floor": False, "impl": "eager"}
PEERS: list[tuple[type[Optimizer], str, dict[str, Any], dict[str, str]]] = [
    (AdamW8bit, "AdamW8bit", {"weight_decay": 0.1}, {"exp_avg": "1", "exp_avg_sq": "2"}),
    (Lion8bit, "Lion8bit", {"weight_decay": 0.1}, {"exp_avg": "1"}),
]


@pytest.mark.peer
@pytest.mark.parametrize(("kind", "peer", "options", "states"), PEERS)
def test_codes_and_weights_have_the_bits_of_bitsandbytes(
    kind: type[Optimizer], peer: str, options: dict[str, Any], states: dict[str, str]
) -> None:
    """60 steps of a tensor whose last block is short, by its cells instead of nearest codes."""
    library = pytest.importorskip("bitsandbytes")
    generator = torch.Generator().manual_seed(0)
    p = nn.Parameter(torch.randn(4999, generator=generator))
    q = nn.Parameter(p.detach().clone())
    ours = kind([p], lr=1e-3, **options, **PARITY)  # type: ignore[arg-type]
    theirs = getattr(library.optim, peer)([q], lr=1e-3, **options)
    for _ in range(60):
        q.grad = torch.randn(4999, generator=generator) * 0.01
        p.grad = q.grad.clone()
        ours.step()
        theirs.step()
    assert torch.equal(p, q)
    for slot, number in states.items():
        assert torch.equal(ours.state[p][f"{slot}_codes"], theirs.state[q][f"state{number}"])
        assert torch.equal(ours.state[p][f"{slot}_absmax"], theirs.state[q][f"absmax{number}"])


@pytest.mark.peer
def test_codes_of_a_tensor_are_those_of_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(1))
    for signed, values in ((True, x), (False, x.square())):
        theirs, state = functional.quantize_blockwise(values, blocksize=256, code=codebook(signed))
        codes, absmax = quantize_blockwise(values, signed=signed, rounding="lut16")
        assert torch.equal(codes, theirs)
        assert torch.equal(absmax, state.absmax)
    assert torch.equal(codebook(True), functional.create_dynamic_map(signed=True))
    assert torch.equal(codebook(False), functional.create_dynamic_map(signed=False))


@pytest.mark.peer
def test_ademamix_is_that_of_bitsandbytes() -> None:
    """To rounding: bitsandbytes adds the averages in another order."""
    library = pytest.importorskip("bitsandbytes")
    generator = torch.Generator().manual_seed(0)
    p = nn.Parameter(torch.randn(5000, generator=generator))
    q = nn.Parameter(p.detach().clone())
    options: dict[str, Any] = {"lr": 1e-3, "t_alpha": 10, "t_beta3": 10}
    ours = AdEMAMix8bit([p], **options, **PARITY)
    theirs = library.optim.AdEMAMix8bit([q], **options)
    for _ in range(20):
        q.grad = torch.randn(5000, generator=generator) * 0.01
        p.grad = q.grad.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-5)


def test_weights_stay_near_those_of_32_bits() -> None:
    """By the bounds that bitsandbytes has; weights are made equal after each step."""
    generator = torch.Generator().manual_seed(0)
    p = nn.Parameter(0.1 * torch.randn(1024, 1024, generator=generator))
    q = nn.Parameter(p.detach().clone())
    exact, packed = AdamW([p]), AdamW8bit([q])
    for _ in range(20):
        p.grad = 0.01 * torch.randn(1024, 1024, generator=generator)
        q.grad = p.grad.clone()
        exact.step()
        packed.step()
        difference = (p - q).detach().abs()
        assert float(difference.mean()) < 6e-5
        assert float((difference / p.detach().abs()).median()) < 6e-4
        q.data.copy_(p)


def test_a_second_moment_that_rounds_to_nothing_makes_no_leap() -> None:
    """Beside one large gradient the squares of the others round to 0, and no later one helps."""
    results = {}
    for floor in (True, False):
        p = nn.Parameter(torch.zeros(4096))
        optimizer = AdamW8bit([p], lr=1e-3, weight_decay=0, v_floor=floor)
        for step in range(5):
            p.grad = torch.full((4096,), 0.0 if step else 1e-4)
            p.grad[::256] = 0.0 if step else 1.0
            optimizer.step()
        results[floor] = float(p.detach().abs().max())
    assert results[True] < 0.02
    assert results[False] > 10 * results[True]


def test_bytes_are_codes_and_a_scale_for_each_block() -> None:
    p = nn.Parameter(torch.ones(100, 100))
    blocks = -(-10_000 // 256)
    assert AdamW8bit([p]).state_bytes() == 2 * (10_000 + 4 * blocks)
    assert Lion8bit([p]).state_bytes() == 10_000 + 4 * blocks
    small = nn.Parameter(torch.ones(4095))
    assert AdamW8bit([small]).state_bytes() == 8 * 4095
