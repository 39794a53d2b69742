"""Attention of packed documents on a CUDA device, against float64."""

import pytest
import torch

from sharpen.models.attention import Documents, document_attention

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("follows", [None, [None, 0, 0, None, 3, 3]])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_values_and_gradients(dtype, follows, kv_heads, window):
    lengths = [40, 3, 70, 17, 1, 130]
    torch.manual_seed(0)
    given = [torch.randn(1, sum(lengths), n, 64, dtype=torch.float64) for n in (4, *[kv_heads] * 2)]
    weight = torch.randn(1, sum(lengths), 4, 64, dtype=torch.float64)
    found = []
    for device, kind in (("cpu", torch.float64), ("cuda", dtype)):
        own = [x.to(device, kind, copy=True).requires_grad_() for x in given]
        y = document_attention(*own, Documents(lengths, follows), window)
        (y * weight.to(device, kind)).sum().backward()
        found.append([x.detach().double().cpu() for x in (y, *(x.grad for x in own))])
    for exact, near in zip(*found, strict=True):
        error = float((near - exact).norm() / exact.norm())
        assert error < (1e-2 if dtype == torch.bfloat16 else 1e-5)


def test_all_documents_are_computed_at_once():
    with torch.profiler.profile(acc_events=True) as seen:
        x = torch.randn(1, 64, 2, 64, device="cuda", dtype=torch.bfloat16)
        document_attention(x, x, x, Documents([16] * 4))
    kernels = [one for one in seen.events() if "flash" in one.name and "Kernel" not in one.name]
    assert sum("_flash_attention_forward" in one.name for one in kernels) == 1
