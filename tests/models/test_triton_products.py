"""Products of one row as Triton kernels: on a GPU, or interpreted where there is none."""

import pytest
import torch
import torch.nn.functional as F

from sharpen.models.triton_products import gated_one, linear_one

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp")


def random(*shape, dtype, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("inputs", "outputs"), [(64, 12), (1024, 8), (2048, 5), (1000, 33), (5000, 3)]
)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_products(dtype, inputs, outputs, biased, gated):
    weight = random((1 + gated) * outputs, inputs, dtype=dtype) / inputs**0.5
    x = random(1, inputs, dtype=dtype, seed=1)
    bias = random((1 + gated) * outputs, dtype=dtype, seed=2) if biased else None
    exact = F.linear(x.double(), weight.double(), bias.double() if biased else None)
    if gated:
        gate, up = exact.chunk(2, -1)
        exact = F.silu(gate) * up
    found = (gated_one if gated else linear_one)(x, weight, bias)
    assert found.shape == (1, outputs)
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    torch.testing.assert_close(found.double(), exact, atol=tolerance, rtol=tolerance)
