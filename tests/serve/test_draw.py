"""Tokens drawn natively, by torch, and by a plain sort in float64 are the same."""

import ctypes
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ExecutionError
from sharpen.native.build import build, function
from sharpen.native.info import compiler, supported
from sharpen.serve import draw as draw_module
from sharpen.serve.draw import Draw, draw

VARIANTS = ["0", *(supported() if compiler() is not None else [])]


@pytest.fixture(params=VARIANTS, scope="module")
def drawn(request):
    """draw() of each variant, "0" by torch."""

    def of_variant(dtype):
        if request.param == "0":
            return None
        suffix = "f32" if dtype == torch.float32 else "bf16"
        pointer, integer = ctypes.c_void_p, ctypes.c_int64
        types = (pointer, integer, integer, pointer, pointer, ctypes.c_int)
        library = ctypes.CDLL(str(build("sampling", request.param)))
        return function(library, f"draw_{suffix}", *types)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw_module, "_native", of_variant)
        yield draw


def plain(logits, one):
    """The definition, with a stable sort of all tokens."""
    if one.temperature == 0:
        return int((logits == logits.max()).nonzero()[0])
    q = torch.softmax(logits.double() / one.temperature, -1)
    ids = torch.arange(q.numel())
    if one.top_k or one.top_p < 1:
        q, ids = q.sort(descending=True, stable=True)
        if one.top_k:
            q, ids = q[: one.top_k], ids[: one.top_k]
            q = q / q.sum()
        kept = q.cumsum(0) - q < one.top_p if one.top_p < 1 else q >= 0
        q, ids = q[kept], ids[kept]
    kept = q >= one.min_p * q.max()
    q, ids = q[kept], ids[kept]
    passed = (q.cumsum(0) > one.u * q.sum()).nonzero()
    return int(ids[passed[0]]) if len(passed) else int(ids[-1])


def logits_of(kind, size, seed):
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    if kind == "sharp":
        x = x * 5
    elif kind == "flat":
        x = x * 0.01
    elif kind == "masked":
        x[
            torch.randperm(size, generator=torch.Generator().manual_seed(seed))[: size - 3]
        ] = -torch.inf
    return x


draws = st.builds(
    Draw,
    temperature=st.sampled_from([0.0, 0.01, 0.7, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 2, 40, 1500, 10**6]),
    top_p=st.sampled_from([1.0, 0.999, 0.9, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 1e-7, 0.05, 0.5, 1.0]),
    u=st.floats(0, 1, exclude_max=True),
)


@given(
    draws=st.lists(draws, min_size=1, max_size=6),
    kind=st.sampled_from(["normal", "sharp", "flat", "masked"]),
    size=st.sampled_from([4, 257, 3000]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_tokens_are_those_of_the_definition(drawn, draws, kind, size, dtype):
    if dtype == torch.bfloat16 and draw_module._native(dtype) is None and size > 1024:
        # Equal logits are the rule then, and torch keeps any of those at the border of a nucleus.
        draws = [replace(one, top_k=0) for one in draws]
    logits = torch.stack([logits_of(kind, size, seed) for seed in range(len(draws))]).to(dtype)
    expected = [plain(row, one) for row, one in zip(logits, draws, strict=True)]
    assert drawn(logits, draws) == expected


def test_equal_logits_go_by_ids(drawn):
    logits = torch.tensor([[1.0, 3.0, 2.0, 3.0, 2.0, 2.0]])
    assert drawn(logits, [Draw()]) == [1]
    for u, token in ((0.0, 1), (0.49, 1), (0.51, 3), (0.99, 3)):
        assert drawn(logits, [Draw(temperature=1.0, top_k=2, u=u)]) == [token]
    # Running sums of all: 0.309, 0.617, 0.731, 0.845, 0.958, 1.
    for u, token in ((0.7, 2), (0.8, 4), (0.9, 5), (0.99, 0)):
        assert drawn(logits, [Draw(temperature=1.0, top_p=0.999, u=u)]) == [token]


def test_all_tokens_come_as_often_as_they_should(drawn):
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0, -30.0]).repeat(1000, 1)
    numbers = [(i + 0.5) / 1000 for i in range(1000)]
    expected = torch.softmax(logits[0].double(), -1)
    for settings in ({}, {"top_p": 0.9999999}):
        found = drawn(logits, [Draw(temperature=1.0, u=u, **settings) for u in numbers])
        counts = torch.bincount(torch.tensor(found), minlength=5).double()
        torch.testing.assert_close(counts / 1000, expected, atol=1e-3, rtol=0)


def test_rows_that_are_left_out_cost_nothing(drawn):
    logits = torch.full((3, 50), float("nan"))
    logits[1] = torch.arange(50.0)
    assert drawn(logits, [None, Draw(), None]) == [None, 49, None]
    assert drawn(torch.empty(0, 50), []) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_told(drawn, bad):
    logits = torch.zeros(2, 600)
    logits[1, 300] = bad
    with pytest.raises(ExecutionError, match="not finite"):
        drawn(logits, [Draw(temperature=1.0, u=0.5)] * 2)
    masked = torch.full((1, 600), -torch.inf)
    with pytest.raises(ExecutionError, match="not finite"):
        drawn(masked, [Draw(temperature=1.0, u=0.5)])


def test_the_largest_of_what_is_not_finite(drawn):
    logits = torch.full((1, 600), -torch.inf)
    logits[0, 400] = -5.0
    assert drawn(logits, [Draw()]) == [400]
    assert drawn(logits, [Draw(temperature=1.0, u=0.999)]) == [400]
