"""Native products of codes with bfloat16 activations against float64, bit for bit in the rows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.compress import kernels
from sharpen.compress.grid import Grid
from sharpen.compress.groupwise import dequantize, quantize
from sharpen.compress.kernels import CodeProduct
from sharpen.compress.linear import QuantizedLinear
from sharpen.models.products import Layers, has_tiles, product
from sharpen.native.build import load
from sharpen.native.info import compiler, cpu_flags, variant


def ways():
    """By tile registers or not."""
    if compiler() is None or variant() != "avx512" or "avx512_bf16" not in cpu_flags():
        return []
    return [False, True] if has_tiles(load("code_products"), "bf16") else [False]


WAYS = ways()
needs_products = pytest.mark.skipif(not WAYS, reason="no bfloat16 products")
GRIDS = [
    Grid(bits=4, group=32),
    Grid(bits=4, group=64, symmetric=False),
    Grid(bits=4, group=128),
    Grid(bits=8, group=-1),
]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(grid, rows, columns, tiles, bias=None):
    weight = quantize(random(rows, columns) + 0.1, grid)
    scales = weight.scale.to(torch.bfloat16)
    offsets = None if weight.zero is None else -weight.zero.to(torch.bfloat16) * scales
    library = load("code_products")
    linear = CodeProduct(weight.values, scales, offsets, grid.bits, bias, library, tiles)
    return linear, dequantize(weight, torch.float64)


@needs_products
@pytest.mark.parametrize("tiles", WAYS)
@given(
    grid=st.sampled_from(GRIDS),
    tokens=st.sampled_from([0, 1, 2, 5, 9, 17, 33, 64, 70]),
    rows=st.sampled_from([1, 16, 50]),
    columns=st.sampled_from([128, 384]),
    biased=st.booleans(),
)
def test_the_product_is_that_of_the_dequantized_weight(tiles, grid, tokens, rows, columns, biased):
    bias = random(rows, seed=2) if biased else None
    linear, exact = made(grid, rows, columns, tiles, bias)
    x = random(tokens, columns, seed=1).bfloat16().float()
    wanted = x.double() @ exact.T + (bias.double() if biased else 0)
    size = x.double().norm(dim=1)[:, None] * exact.norm(dim=1) + wanted.abs()
    # Asymmetric grids: offsets z s are rounded to bfloat16, as torch's kernel has them.
    limit = 1e-6 if grid.symmetric else 2**-8
    found = linear(x)
    assert found.shape == wanted.shape
    assert bool(((found - wanted).abs() <= limit * size + 1e-12).all())
    half = linear(x.bfloat16())
    torch.testing.assert_close(half, found.bfloat16(), rtol=0, atol=0)


@needs_products
@pytest.mark.parametrize("tiles", WAYS)
@pytest.mark.parametrize("columns", [16, 48, 80, 1008])
def test_whole_rows_of_any_length(tiles, columns):
    linear, exact = made(Grid(bits=8, group=-1), 20, columns, tiles)
    x = random(7, columns, seed=1).bfloat16()
    torch.testing.assert_close(
        linear(x.float()).double(), x.double() @ exact.T, rtol=1e-5, atol=1e-4
    )


@needs_products
@pytest.mark.parametrize("tiles", WAYS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_row_does_not_depend_on_its_neighbours_nor_on_threads(tiles, grid):
    linear, _ = made(grid, 500, 640, tiles)
    x = random(150, 640, seed=1)
    whole = linear(x)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for count in (1, 2, 5, 9, 16, 17, 40, 64, 65):
                assert torch.equal(linear(x[3 : 3 + count]), whole[3 : 3 + count])
    finally:
        torch.set_num_threads(before)


@needs_products
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_layers_on_one_input_become_one_product(grid):
    layers = [
        QuantizedLinear(quantize(random(rows, 256, seed=rows), grid), random(rows, seed=1))
        for rows in (24, 7, 40)
    ]
    linear = product(*layers)
    assert isinstance(linear, CodeProduct)
    for tokens in (1, 5, 40):
        x = random(tokens, 256, seed=4).bfloat16()
        # Sums of 256 terms, each side rounded to bfloat16; torch rounds some weights, too.
        torch.testing.assert_close(linear(x), Layers(*layers)(x).detach(), rtol=3e-2, atol=0.3)


@needs_products
def test_a_product_reads_what_is_stored_and_no_more():
    weight = quantize(random(160, 1024), Grid(bits=4, group=128))
    made = product(QuantizedLinear(weight))
    assert isinstance(made, CodeProduct)
    assert made.nbytes == 160 * (1024 // 2 + 2 * 2 * 1024 // 128)


def test_other_layers_run_as_they_are(monkeypatch):
    four = quantize(random(16, 128), Grid(bits=4, group=64))
    eight = quantize(random(16, 128), Grid(bits=8, group=-1))
    one, other = QuantizedLinear(four), QuantizedLinear(eight)
    assert isinstance(product(one, other), Layers)  # two widths
    assert isinstance(product(QuantizedLinear(four, kernel="reference")), Layers)
    monkeypatch.setattr(kernels, "cpu_flags", lambda: frozenset({"avx512f"}))
    assert isinstance(product(one), Layers)
