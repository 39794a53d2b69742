"""Layers whose products are oneDNN's against float64, whichever this processor prefers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sharpen.models import matmul, products
from sharpen.models.linear import Linear

pytestmark = pytest.mark.skipif(not torch._C._has_mkldnn, reason="torch without oneDNN")


@pytest.fixture(params=[True, False], ids=["onednn", "torch"], autouse=True)
def preferred(request, monkeypatch):
    """Both libraries, on any processor."""
    for module in (matmul, products):
        monkeypatch.setattr(module, "prefers_onednn", lambda: request.param)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def check(found, left, right):
    # float32 sums of 384 products of numbers of about 1.
    exact = left.double() @ right.double()
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("rows", [(2, 64), (3, 43)])
@pytest.mark.parametrize("biased", [True, False])
def test_a_layer_is_torchs_with_its_gradients(rows, biased):
    layer = Linear(256, 384, bias=biased)
    exact = nn.Linear(256, 384, bias=biased, dtype=torch.float64)
    exact.load_state_dict(layer.state_dict())
    x = random(*rows, 256).requires_grad_()
    wide = x.detach().double().requires_grad_()
    weight = random(*rows, 384, seed=1)
    (layer(x) * weight).sum().backward()
    (exact(wide) * weight).sum().backward()
    torch.testing.assert_close(layer(x).double(), exact(wide), rtol=1e-5, atol=1e-5)
    for found, wanted in ((x, wide), *zip(layer.parameters(), exact.parameters(), strict=True)):
        # Sums of 384 products of about 0.05 and 1, or of some 128 of about 1.
        torch.testing.assert_close(found.grad.double(), wanted.grad, rtol=1e-5, atol=1e-4)


def test_autocast_still_decides_the_type():
    layer, x = Linear(256, 384), random(64, 256)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_a_frozen_layer_gives_a_gradient_to_its_input_alone():
    layer, x = Linear(256, 384).requires_grad_(False), random(64, 256).requires_grad_()
    layer(x).sum().backward()
    assert layer.weight.grad is None
    check(x.grad, torch.ones(64, 384), layer.weight)


@pytest.mark.parametrize("rows", [17, 32, 45])
@pytest.mark.parametrize("biased", [True, False])
def test_many_rows_of_a_step(rows, biased):
    layer = nn.Linear(576, 320, bias=biased)
    made, x = products.product(layer), random(rows, 576)
    exact = F.linear(x.double(), layer.weight.double(), layer.bias.double() if biased else None)
    torch.testing.assert_close(made(x).double(), exact, rtol=1e-5, atol=1e-4)
