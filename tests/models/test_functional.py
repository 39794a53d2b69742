import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.models.functional import lora_linear, rms_norm, rotate, swiglu


def _random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def _angles(tokens: int, half: int) -> tuple[Tensor, Tensor]:
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] * torch.linspace(1, 0.1, half)
    return angle.cos()[None, :, None], angle.sin()[None, :, None]


def test_rms_norm_is_torchs_and_its_gradient_is_right() -> None:
    x, w = _random(2, 3, 8), _random(8)
    torch.testing.assert_close(rms_norm(x, w, 1e-5), F.rms_norm(x, (8,), w, 1e-5))
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 1e-5), (x, w))


def test_rotate_turns_each_pair_and_its_gradient_turns_back() -> None:
    x = _random(2, 3, 2, 8)
    cos, sin = _angles(3, 4)
    y = rotate(x, cos, sin)
    pairs = torch.complex(x[..., :4], x[..., 4:]) * torch.complex(cos, sin)
    torch.testing.assert_close(y, torch.cat((pairs.real, pairs.imag), dim=-1))
    assert torch.autograd.gradcheck(lambda x: rotate(x, cos, sin), (x,))


def test_swiglu_is_the_product_and_its_gradient_is_right() -> None:
    a, b = _random(3, 5), _random(5, 3).T.detach().clone().requires_grad_()
    torch.testing.assert_close(swiglu(a, b), F.silu(a) * b)
    assert torch.autograd.gradcheck(swiglu, (a, b))


@pytest.mark.parametrize("bias", [False, True])
def test_lora_linear_is_the_sum_and_its_gradient_is_right(bias: bool) -> None:
    x, w, a, b = _random(2, 3, 5), _random(4, 5).detach(), _random(2, 5), _random(4, 2)
    c = _random(4).detach() if bias else None
    expected = F.linear(x, w, c) + 0.5 * F.linear(F.linear(x, a), b)
    torch.testing.assert_close(lora_linear(x, w, c, a, b, 0.5), expected)
    assert torch.autograd.gradcheck(lambda x, a, b: lora_linear(x, w, c, a, b, 0.5), (x, a, b))


def test_bfloat16_inputs_are_summed_in_float32() -> None:
    x = _random(4, 512, dtype=torch.bfloat16)
    w = _random(512, dtype=torch.float32)
    exact = F.rms_norm(x.double(), (512,), w.double(), 1e-5)
    # One rounding to bfloat16 (8 bits) at the end, relative error 2^-8.
    torch.testing.assert_close(rms_norm(x, w, 1e-5).double(), exact, rtol=2**-8, atol=1e-6)
    rms_norm(x, w, 1e-5).sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.bfloat16
    assert w.grad is not None and w.grad.dtype == torch.float32


def test_autocast_decides_the_type_of_the_low_rank_product() -> None:
    x, w = _random(3, 8, dtype=torch.float32), _random(4, 8, dtype=torch.bfloat16).detach()
    a, b = _random(2, 8, dtype=torch.float32), _random(4, 2, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = lora_linear(x, w, None, a, b, 1.0)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.float32
    assert a.grad is not None and a.grad.dtype == torch.float32


def test_what_is_kept_is_what_the_formula_needs() -> None:
    """Saved bytes of a norm and a gated product, parameters aside: e H + 4 and 2 e F a token."""
    x, w = _random(4, 64, dtype=torch.bfloat16), _random(64, dtype=torch.float32)
    kept: list[int] = []

    def pack(t: Tensor) -> Tensor:
        if t.data_ptr() != w.data_ptr():
            kept.append(t.numel() * t.element_size())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        rms_norm(x, w, 1e-5)
    assert sum(kept) == 4 * (2 * 64 + 4)
    kept.clear()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        swiglu(x, x)
    assert sum(kept) == 4 * (2 * 2 * 64)
