"""Quantized layers: every path against dequantize-and-multiply, and what each path keeps."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sharpen.compress import Grid, QuantizedEmbedding, QuantizedLinear, dequantize, quantize
from sharpen.compress import linear as linear_module
from sharpen.compress.groupwise import QuantizedWeight
from sharpen.compress.linear import weight_bytes


def layer_of(rows, columns, grid, *, seed=0, bias=False, kernel="auto"):
    generator = torch.Generator().manual_seed(seed)
    weight = quantize(torch.randn(rows, columns, generator=generator), grid)
    term = torch.randn(rows, generator=generator) if bias else None
    return QuantizedLinear(weight, term, kernel=kernel), weight, term


def relative_error(found, wanted):
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-9))


@given(
    tokens=st.sampled_from([1, 2, 8, 9, 32, 33, 70]),
    rows=st.sampled_from([1, 16, 64, 100, 192]),
    columns=st.sampled_from([64, 128, 256]),
    bits=st.sampled_from([4, 8]),
    group=st.sampled_from([32, 64, -1]),
    symmetric=st.booleans(),
    bias=st.booleans(),
)
def test_the_fast_paths_equal_dequantize_and_multiply(
    tokens, rows, columns, bits, group, symmetric, bias
):
    grid = Grid(bits=bits, group=group, symmetric=symmetric)
    layer, weight, term = layer_of(rows, columns, grid, bias=bias)
    x = torch.randn(tokens, columns, generator=torch.Generator().manual_seed(1))
    exact = dequantize(weight)
    wanted = F.linear(x, exact, term)
    # What rounding is measured against: the lengths of the vectors, for a sum may cancel.
    size = float(torch.outer(x.norm(dim=1), exact.norm(dim=1)).norm() + wanted.norm())
    # bfloat16 has 8 bits of mantissa: x, y and (4-bit, many rows) the weight are rounded to it
    assert float((layer(x) - wanted).norm()) < 0.004 * size
    reference, _, _ = layer_of(rows, columns, grid, bias=bias, kernel="reference")
    assert float((reference(x) - wanted).norm()) < 1e-6 * size


@pytest.mark.parametrize(
    ("grid", "shape", "path"),
    [
        (Grid(bits=4), (64, 96), "int4"),
        (Grid(bits=4, group=-1), (64, 96), "int4"),
        (Grid(bits=4, group=-1), (64, 48), "reference"),
        (Grid(bits=8), (5, 48), "int8"),
        (Grid(bits=8), (5, 40), "reference"),
        (Grid(bits=8, group=32), (5, 64), "reference"),
        (Grid(bits=8, symmetric=False), (5, 64), "reference"),
    ],
)
def test_the_path_is_the_fastest_that_takes_the_weight(grid, shape, path):
    layer, weight, _ = layer_of(*shape, grid)
    assert layer.path == path
    assert f"path={path}" in repr(layer)
    x = torch.randn(3, shape[1])
    assert relative_error(layer(x), F.linear(x, dequantize(weight))) < 0.012
    assert layer_of(*shape, grid, kernel="reference")[0].path == "reference"


def test_weights_off_the_cpu_take_the_reference_path():
    with torch.device("meta"):
        weight = QuantizedWeight(
            torch.zeros(64, 64, dtype=torch.int8), torch.ones(64, 2).bfloat16(), None, 4
        )
    assert QuantizedLinear(weight).path == "reference"


def test_scales_that_are_not_bfloat16_take_the_reference_path():
    _, weight, _ = layer_of(64, 64, Grid(bits=4))
    odd = QuantizedWeight(weight.values, weight.scale.float() * 1.0001, None, 4)
    layer = QuantizedLinear(odd)
    assert layer.path == "reference"
    x = torch.randn(3, 64)
    assert torch.allclose(layer(x), F.linear(x, dequantize(odd)), atol=1e-5)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kernel", ["auto", "reference"])
def test_the_weight_can_be_had_back(bits, kernel):
    layer, weight, _ = layer_of(80, 64, Grid(bits=bits), kernel=kernel)
    assert torch.equal(layer.dequantized(), dequantize(weight))


def test_an_unknown_processor_layout_only_costs_time(monkeypatch):
    layer, weight, _ = layer_of(80, 64, Grid(bits=4))
    x = torch.randn(40, 64)
    wanted = F.linear(x, dequantize(weight))
    monkeypatch.setattr(linear_module, "_knows_layout", lambda: False)
    assert relative_error(layer(x), wanted) < 0.012
    assert relative_error(layer.dequantized(), dequantize(weight)) < 0.004


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shape_and_type_follow_the_input(bits, dtype):
    layer, _, _ = layer_of(48, 64, Grid(bits=bits), bias=True)
    assert layer(torch.zeros(2, 3, 64, dtype=dtype)).shape == (2, 3, 48)
    assert layer(torch.zeros(2, 3, 64, dtype=dtype)).dtype == dtype
    assert layer(torch.zeros(0, 64, dtype=dtype)).shape == (0, 48)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.zeros(2, 64)).dtype == torch.bfloat16


@pytest.mark.parametrize("bits", [4, 8])
def test_converting_the_module_to_another_type_changes_nothing(bits):
    layer, _, _ = layer_of(48, 64, Grid(bits=bits))
    x = torch.randn(2, 64)
    before = layer(x)
    assert torch.equal(layer.float()(x), before)


@pytest.mark.parametrize("bits", [4, 8])
def test_gradients_reach_the_input(bits):
    layer, weight, _ = layer_of(48, 64, Grid(bits=bits))
    x = torch.randn(2, 64, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, dequantize(weight).sum(0).expand(2, -1), atol=1e-4)


def test_a_batch_gives_each_row_what_it_gets_alone():
    for bits in (4, 8):
        layer, _, _ = layer_of(64, 64, Grid(bits=bits))
        x = torch.randn(6, 64)
        alone = torch.cat([layer(row[None]) for row in x])
        assert relative_error(layer(x), alone) < 0.01


def test_only_packed_weights_stay_in_memory():
    for kernel in ("auto", "reference"):
        four, _, _ = layer_of(256, 512, Grid(bits=4, group=32), kernel=kernel)
        weights, scales = 256 * 512 // 2, 256 * 512 // 32
        assert weight_bytes(four) == weights + (4 if kernel == "auto" else 2) * scales
        eight, _, _ = layer_of(256, 512, Grid(bits=8), kernel=kernel)
        assert weight_bytes(eight) == 256 * 512 + 2 * 256
        four(torch.zeros(100, 512))
        assert weight_bytes(four) == weights + (4 if kernel == "auto" else 2) * scales


def test_embedding_gives_dequantized_rows_and_shares_them_with_the_head():
    weight = quantize(torch.randn(50, 64), Grid(bits=8))
    embedding = QuantizedEmbedding(weight, dtype=torch.float32)
    head = QuantizedLinear(weight)
    ids = torch.tensor([[0, 49], [7, 7]])
    assert torch.equal(embedding(ids), dequantize(weight)[ids])
    both = nn.ModuleList([embedding, head])
    assert weight_bytes(both) <= 50 * 64 + 2 * 2 * 50
