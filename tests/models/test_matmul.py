"""Products by oneDNN against float64, whichever library this processor prefers."""

import pytest
import torch

from sharpen.models import matmul
from sharpen.models.matmul import mm

pytestmark = pytest.mark.skipif(not torch._C._has_mkldnn, reason="torch without oneDNN")


@pytest.fixture(params=[True, False], ids=["onednn", "torch"], autouse=True)
def preferred(request, monkeypatch):
    """Both libraries, on any processor."""
    monkeypatch.setattr(matmul, "prefers_onednn", lambda: request.param)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def check(found, left, right):
    # float32 sums of up to 1,600 products of numbers of about 1, one after the other.
    exact = left.double() @ right.double()
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("left_turned", [False, True])
@pytest.mark.parametrize("right_turned", [False, True])
@pytest.mark.parametrize(
    "shape", [(64, 576, 200), (96, 1600, 96), (1024, 16, 576), (31, 576, 576), (64, 575, 576)]
)
def test_products_of_any_strides(shape, left_turned, right_turned):
    rows, inner, columns = shape
    left = random(inner, rows).T if left_turned else random(rows, inner)
    right = random(columns, inner, seed=1).T if right_turned else random(inner, columns, seed=1)
    check(mm(left, right), left, right)
    whole = torch.full((rows + 2, columns), 7.0)
    assert mm(left, right, whole[1:-1]).data_ptr() == whole[1].data_ptr()
    check(whole[1:-1], left, right)
    assert bool((whole[[0, -1]] == 7).all())
