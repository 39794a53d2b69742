import pytest
import torch
from torch import nn

from sharpen.optim.lion import Lion


def test_steps_follow_the_program_of_the_paper() -> None:
    """Program 1 of Chen et al., in float64."""
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(5, 4, dtype=torch.float64))
    expected, m = w.detach().clone(), torch.zeros(5, 4, dtype=torch.float64)
    optimizer = Lion([w], lr=0.01, betas=(0.8, 0.9), weight_decay=0.5)
    for _ in range(4):
        g = torch.randn(5, 4, dtype=torch.float64)
        w.grad = g.clone()
        optimizer.step()
        direction = torch.sign(0.8 * m + 0.2 * g)
        expected = expected - 0.01 * (direction + 0.5 * expected)
        m = 0.9 * m + 0.1 * g
        torch.testing.assert_close(w.detach(), expected)
        torch.testing.assert_close(optimizer.state[w]["exp_avg"], m)


def test_a_gradient_of_zeros_moves_nothing() -> None:
    w = nn.Parameter(torch.ones(40))
    optimizer = Lion([w], lr=0.1)
    for impl in ("eager", "fused"):
        optimizer.param_groups[0]["impl"] = impl
        w.grad = torch.zeros(40)
        w.grad[1] = -0.0
        optimizer.step()
        assert (w == 1).all()


@pytest.mark.peer
@pytest.mark.parametrize("impl", ["eager", "foreach", "auto"])
def test_weights_have_the_bits_of_lion_pytorch(impl: str) -> None:
    peer = pytest.importorskip("lion_pytorch")
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((33, 17), (7,))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    a = Lion(ours, lr=1e-3, weight_decay=0.1, impl=impl)  # type: ignore[arg-type]
    b = peer.Lion(theirs, lr=1e-3, weight_decay=0.1, use_triton=False)
    for _ in range(100):
        for p, q in zip(ours, theirs, strict=True):
            q.grad = torch.randn_like(p)
            p.grad = q.grad.clone()
        a.step()
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)
        assert torch.equal(a.state[p]["exp_avg"], b.state[q]["exp_avg"])
