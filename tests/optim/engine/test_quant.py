"""Codes and scales: the table, the rule, and native code with the bits of its twin."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sharpen.native.info import compiler, supported
from sharpen.optim.engine.quant import (
    BlockQuantTensor,
    codebook,
    dequantize_blockwise,
    midpoints,
    quantize_blockwise,
)

VARIANTS = ["0", *supported()] if compiler() else ["0"]


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SHARPEN_NATIVE", request.param)
    name: str = request.param
    return name


def test_the_codebooks_are_those_of_the_paper() -> None:
    for signed, total, second in ((True, 1.0, 3.25e-6), (False, 75.105263, 7.75e-7)):
        book = codebook(signed)
        assert book.shape == (256,) and (book.diff() > 0).all()
        assert float(book.double().sum()) == pytest.approx(total, abs=1e-6)
        positive = book[book > 0]
        assert float(positive[0]) == pytest.approx(5.5e-7 if signed else 3.25e-7)
        assert float(positive[1]) == pytest.approx(second)
        assert float(book[-1]) == 1.0 and float(book[-2]) == pytest.approx(0.99297, abs=4e-3)
    assert float(codebook(True)[0]) == -float(codebook(True)[254])
    assert int((codebook(True) == 0).nonzero()) == 127


def numbers(signed: bool, bits: int) -> Tensor:
    """All bfloat16 ones of magnitude 1 at most, midpoints and their neighbours, random ones."""
    half = (torch.arange(2**16, dtype=torch.int32) << 16).view(torch.float32)
    middle = midpoints(signed, bits).view(torch.int32)
    near = torch.cat([middle - 1, middle, middle + 1]).view(torch.float32)
    generator = torch.Generator().manual_seed(0)
    even = torch.rand(500_000, generator=generator)
    small = 10 ** (-9 * torch.rand(500_000, generator=generator))
    x = torch.cat([half[half.isfinite()], near, even, small])
    x = x[x.abs() <= 1]
    return torch.cat([x, -x]) if signed else x[x >= 0]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("signed", [True, False])
def test_a_code_counts_the_midpoints_below(variant: str, signed: bool, bits: int) -> None:
    x = numbers(signed, bits)
    pairs = torch.stack([x, torch.ones_like(x)], 1)  # each in a block with 1, so of scale 1
    codes, absmax = quantize_blockwise(pairs, signed=signed, bits=bits, block_size=2)
    assert (absmax == 1).all()
    expected = torch.searchsorted(midpoints(signed, bits), x)
    assert torch.equal((codes[::2] if bits == 8 else codes & 15).long(), expected)


@pytest.mark.parametrize("signed", [True, False])
def test_every_code_reads_as_its_value(variant: str, signed: bool) -> None:
    codes = torch.arange(256, dtype=torch.uint8).repeat(3)[:-3]
    absmax = torch.tensor([0.3, 0.0, 2e-3])
    scales = absmax.repeat_interleave(256)[:-3]
    for floor in (False, True):
        book = codebook(signed).clone()
        if floor and not signed:
            book[0] = 1.6e-7
        found = dequantize_blockwise(codes, absmax, (765,), signed=signed, floor=floor)
        assert torch.equal(found, book[codes.long()] * scales)


@pytest.mark.parametrize("signed", [True, False])
def test_every_pair_of_small_codes_reads_as_its_values(variant: str, signed: bool) -> None:
    codes = torch.arange(256, dtype=torch.uint8).repeat(2)
    absmax = torch.tensor([0.3, 0.0])
    found = dequantize_blockwise(
        codes, absmax, (1023,), signed=signed, bits=4, block_size=512, floor=True
    )
    halves = torch.stack([codes & 15, codes >> 4], 1).view(-1).long()
    expected = codebook(signed, 4)[halves] * absmax.repeat_interleave(512)
    assert torch.equal(found, expected[:1023])


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 5),
    width=st.integers(1, 70),
    block_size=st.sampled_from([1, 7, 16, 64]),
    layout=st.sampled_from(["flat", "row"]),
    signed=st.booleans(),
    bits=st.sampled_from([8, 4]),
    exponent=st.integers(-44, 37),
    seed=st.integers(0, 99),
)
def test_native_codes_are_those_of_the_twin(
    rows: int,
    width: int,
    block_size: int,
    layout: str,
    signed: bool,
    bits: int,
    exponent: int,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=generator)
    x = (x if signed else x.square()) * 10.0**exponent
    x[0] = 0
    options = {"signed": signed, "bits": bits, "block_size": block_size, "layout": layout}
    found = []
    for name in VARIANTS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SHARPEN_NATIVE", name)
            codes, absmax = quantize_blockwise(x, **options)  # type: ignore[arg-type]
            values = dequantize_blockwise(codes, absmax, (rows, width), **options)  # type: ignore[arg-type]
            found.append((codes, absmax, values))
    for parts in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(parts, found[0], strict=True))
    assert found[0][2].isfinite().all()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("signed", [True, False])
def test_the_ends_of_float32_stay_finite(variant: str, signed: bool, bits: int) -> None:
    for values in ([1e-45, 0.0, 3e-45], [math.inf, 1.0, 0.0], [3e38, 1e38, 0.0]):
        x = torch.tensor(values)
        codes, absmax = quantize_blockwise(x, signed=signed, bits=bits)
        back = dequantize_blockwise(codes, absmax, (3,), signed=signed, bits=bits)
        assert back.isfinite().all() and (back >= 0).all()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("signed", [True, False])
def test_what_was_read_is_packed_to_the_same_codes(signed: bool, bits: int) -> None:
    x = torch.randn(10, 100, generator=torch.Generator().manual_seed(1))
    x = x if signed else x.square()
    x[:, 0] = 9.0  # each block has a code of 1, so that its scale is kept; -1 is no code
    packed = BlockQuantTensor.quantize(x, signed=signed, bits=bits, block_size=100)
    codes, values = packed.codes.clone(), packed.dequantize()
    packed.copy_(values)
    assert torch.equal(packed.codes, codes)
    assert torch.equal(packed.dequantize(), values)


@pytest.mark.parametrize(
    ("signed", "block_size", "bar"),
    [(True, 256, 0.00853), (True, 2048, 0.00972), (False, 256, 0.00682), (False, 2048, 0.00806)],
)
def test_errors_are_no_larger_than_bitsandbytes(signed: bool, block_size: int, bar: float) -> None:
    """Its mean errors of normal numbers, or their squares; half a per cent for the sample."""
    x = torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    x = x if signed else x.square()
    codes, absmax = quantize_blockwise(x, signed=signed, block_size=block_size)
    back = dequantize_blockwise(codes, absmax, (2**20,), signed=signed, block_size=block_size)
    assert float((x - back).abs().mean()) <= bar * 1.005
