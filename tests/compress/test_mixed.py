"""Layers of 4- and 8-bit rows: the integer path, tails, types, and what is kept in memory."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.compress import mixed
from sharpen.compress.linear import weight_bytes
from sharpen.compress.mixed import (
    MixedLinear,
    MixedWeight,
    integer_product,
    quantize_activations,
    row_product,
)
from sharpen.compress.rows import grouped, quantize_rows, row_bytes
from sharpen.core.errors import FileFormatError


def weight_of(rows, columns, share=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    eight = torch.rand(rows, generator=generator) < share
    codes = quantize_rows(torch.randn(rows, columns, generator=generator) + 0.2, eight)
    return MixedWeight.of(codes), codes


def inputs(tokens, columns, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, columns, generator=generator) * torch.rand(tokens, 1)


def rounded(x):
    codes, scale = quantize_activations(x)
    return (grouped(codes.double()) * scale.double()[..., None]).flatten(1)[:, : x.shape[1]]


shapes = {
    "tokens": st.sampled_from([0, 1, 2, 7, 33]),
    "rows": st.sampled_from([1, 15, 64, 100]),
    "columns": st.sampled_from([1, 5, 64, 127, 128, 192, 576]),
    "share": st.sampled_from([0.0, 0.3, 1.0]),
}


@given(**shapes)
def test_the_product_is_that_of_dequantized_operands(tokens, rows, columns, share):
    weight, codes = weight_of(rows, columns, share)
    assert torch.equal(weight.dequantized(), codes.dequantized())
    x = inputs(tokens, columns)
    wanted = rounded(x) @ codes.dequantized().double().T
    size = rounded(x).norm(dim=1)[:, None] * codes.dequantized().double().norm(dim=1)
    error = (row_product(x, weight).double() - wanted).abs()
    assert bool((error <= 1e-6 * size + 1e-12).all())  # a few roundings of float32


@given(**shapes)
def test_both_kinds_of_processor_give_the_same_bits(tokens, rows, columns, share):
    weight, _ = weight_of(rows, columns, share)
    codes, scale = quantize_activations(inputs(tokens, columns))
    by_default = integer_product(codes, scale, weight)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixed, "_has_integer_dots", lambda: False)
        assert torch.equal(integer_product(codes, scale, weight), by_default)


def test_sums_at_their_largest_are_exact():
    columns = 256
    eight = torch.tensor([False, True])
    codes = quantize_rows(torch.full((2, columns), -3.0), eight)
    weight = MixedWeight.of(codes)
    x = torch.ones(1, columns) * 127
    assert bool((codes.zero[0] == 15).all())
    wanted = rounded(x) @ codes.dequantized().double().T
    assert torch.equal(row_product(x, weight).double(), wanted.float().double())


def test_activations_are_rounded_by_token_and_group():
    x = torch.zeros(2, 192)
    x[0, 3], x[0, 150], x[1, 5] = 254.0, -1.0, 0.5
    codes, scale = quantize_activations(x)
    assert scale.tolist()[0] == [2.0, pytest.approx(1 / 127)]
    assert (int(codes[0, 3]), int(codes[0, 150]), int(codes[1, 5])) == (127, -127, 127)
    assert codes.count_nonzero() == 3
    assert torch.isfinite(scale).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_stays_visible(bad):
    x = torch.ones(2, 256)
    x[1, 200] = bad
    y = row_product(x, weight_of(8, 256)[0])
    assert bool(torch.isfinite(y[0]).all())
    assert bool(torch.isnan(y[1]).all())


def test_tiles_of_rows_and_tokens_change_nothing(monkeypatch):
    weight, _ = weight_of(300, 192)
    x = inputs(70, 192)
    whole = row_product(x, weight)
    monkeypatch.setattr(mixed, "_TILE_BYTES", 64 * 192)
    monkeypatch.setattr(mixed, "_TILE_TOKENS", 32)
    assert torch.equal(row_product(x, weight), whole)
    assert torch.equal(weight.dequantized(), weight_of(300, 192)[1].dequantized())


def test_the_layer_adds_its_bias_and_keeps_the_type_of_its_input():
    weight, codes = weight_of(20, 64)
    bias = torch.randn(20)
    layer = MixedLinear(weight, bias)
    x = inputs(6, 64).view(2, 3, 64)
    wanted = x @ codes.dequantized().T + bias
    for dtype, tolerance in ((torch.float32, 0.02), (torch.bfloat16, 0.03)):
        y = layer(x.to(dtype))
        assert (y.dtype, y.shape) == (dtype, (2, 3, 20))
        assert float((y.float() - wanted).norm() / wanted.norm()) < tolerance
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert "rows_int4=" in repr(layer)
    assert MixedLinear(weight)(torch.empty(0, 64)).shape == (0, 20)


def test_gradients_flow_through_the_dequantized_weight():
    weight, codes = weight_of(20, 64)
    x = inputs(3, 64).requires_grad_()
    MixedLinear(weight)(x).sum().backward()
    assert torch.allclose(x.grad, codes.dequantized().sum(0).expand(3, -1), atol=1e-4)


def test_converting_a_model_leaves_scales_as_stored():
    layer = MixedLinear(weight_of(20, 64)[0], torch.zeros(20))
    layer.to(torch.float64)
    assert layer.scale_int4.dtype == layer.scale_int8.dtype == torch.bfloat16
    assert layer.bias.dtype == torch.float64


def test_memory_is_what_is_stored_and_no_more():
    weight, codes = weight_of(100, 576)
    layer = MixedLinear(weight)
    layer(inputs(4, 576))
    four, eight = row_bytes(576)
    n8 = int(codes.eight.sum())
    assert weight_bytes(layer) == (100 - n8) * four + n8 * eight + 100 * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("scale_int8"), "layer lacks scale_int8"),
        (lambda t: t.update(weight_int4=t["weight_int4"][:, :-1]), r"weight_int4 is torch\.uint8"),
        (
            lambda t: t.update(weight_int8=t["weight_int8"].float()),
            r"weight_int8 is torch\.float32",
        ),
        (lambda t: t["indices_int4"].fill_(0), "must name each of 20 rows once"),
        (lambda t: t["scale_int4"].fill_(0), "scale_int4 must hold finite numbers above 0"),
        (lambda t: t["scale_int8"].fill_(float("inf")), "scale_int8 must hold finite"),
        (lambda t: t["zero_int4"].fill_(16), "zero_int4 must be from 0 to 15"),
    ],
)
def test_stored_tensors_are_checked(change, message):
    tensors = weight_of(20, 192)[0].tensors()
    MixedWeight.checked(tensors, (20, 192), "layer")
    change(tensors)
    with pytest.raises(FileFormatError, match=message):
        MixedWeight.checked(tensors, (20, 192), "layer")
