"""Native bfloat16 products against float64, in every variant and way of this machine."""

import ctypes

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sharpen.models import products
from sharpen.models.products import BFloat16, Blocked, RowMajor, product, rounded_rows
from sharpen.native.build import build, function, load
from sharpen.native.info import compiler, cpu_flags, supported, variant

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
VARIANTS = supported()


def ways():
    """By tile registers or not."""
    if compiler() is None or variant() != "avx512" or "avx512_bf16" not in cpu_flags():
        return []
    return [False, True] if products.has_tiles(load("bf16_products"), "bf16") else [False]


WAYS = ways()


def random(*shape, seed=0):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return x.to(torch.bfloat16)


def laid(weight, width):
    rows, columns = weight.shape
    filled = F.pad(weight, (0, -columns % 32, 0, -rows % width))
    blocks = filled.view(filled.shape[0] // width, width, filled.shape[1] // 2, 2)
    return blocks.transpose(1, 2).contiguous()


def multiply(weight, x, bias, width, tiles, threads=2):
    """Of the library itself; the place after the result must stay as it is."""
    pointer, count = ctypes.c_void_p, ctypes.c_int
    native = function(
        load("bf16_products"), "linear_bf16", *[pointer] * 4, ctypes.c_int64, count, count
    )
    stored = laid(weight, width)
    described = products._Weight(stored.data_ptr(), weight.shape[1], weight.shape[0], width)
    y = torch.full((x.shape[0] + 1, weight.shape[0]), 7.0, dtype=torch.bfloat16)
    native(
        ctypes.addressof(described),
        bias.data_ptr() if bias is not None else None,
        x.data_ptr(),
        y.data_ptr(),
        x.shape[0],
        tiles,
        threads,
    )
    assert torch.equal(y[-1], torch.full_like(y[-1], 7.0))
    return y[:-1]


def check(found, weight, x, bias):
    exact = F.linear(x.double(), weight.double(), bias.double() if bias is not None else None)
    # One rounding to bfloat16, after float32 sums of up to 1,536 terms.
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("tiles", WAYS)
@given(
    rows=st.sampled_from([0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 33, 64]),
    inputs=st.sampled_from([1, 31, 32, 70, 576]),
    outputs=st.sampled_from([1, 16, 33, 64, 100]),
    width=st.sampled_from([32, 64]),
    biased=st.booleans(),
)
def test_products_of_few_rows(tiles, rows, inputs, outputs, width, biased):
    weight, x = random(outputs, inputs), random(rows, inputs, seed=1)
    bias = random(outputs, seed=2).float() if biased else None
    check(multiply(weight, x, bias, width, tiles), weight, x, bias)


@pytest.mark.parametrize("tiles", WAYS)
@pytest.mark.parametrize("width", [32, 64])
def test_a_row_does_not_depend_on_its_neighbours_nor_on_threads(tiles, width):
    weight, x = random(500, 600), random(64, 600, seed=1)
    whole = multiply(weight, x, None, width, tiles)
    for rows in (1, 2, 3, 5, 8, 11, 16, 31):
        for threads in (1, 2, 3):
            part = x[3 : 3 + rows].contiguous()
            assert torch.equal(
                multiply(weight, part, None, width, tiles, threads), whole[3 : 3 + rows]
            )


@pytest.mark.parametrize("tiles", WAYS)
def test_what_is_not_finite_stays_in_its_place(tiles):
    weight, x = random(40, 64), random(6, 64, seed=1)
    x[2, 5], x[4, 1] = float("nan"), float("inf")
    found = multiply(weight, x, None, 32, tiles)
    assert bool(found[2].isnan().all())
    assert bool(found[4].isinf().all())
    assert bool(found[[0, 1, 3, 5]].isfinite().all())


@needs_compiler
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("inputs", [1, 15, 16, 17, 576])
@pytest.mark.parametrize("biased", [True, False])
def test_rows_of_weights_as_they_are_stored(name, inputs, biased):
    types = (*[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 3, ctypes.c_int)
    native = function(ctypes.CDLL(str(build("products", name))), "linear_bf16", *types)
    weight, bias = random(33, inputs), random(33, seed=2) if biased else None
    address = bias.data_ptr() if bias is not None else None
    for rows in range(1, 9):
        x, y = random(rows, inputs, seed=rows), torch.empty(rows, 33, dtype=torch.bfloat16)
        native(weight.data_ptr(), address, x.data_ptr(), y.data_ptr(), rows, inputs, 33, 2)
        check(y, weight, x, bias)


def layer(inputs=96, outputs=80):
    return torch.nn.Linear(inputs, outputs, dtype=torch.bfloat16)


@pytest.mark.skipif(not WAYS, reason="no bfloat16 products")
def test_few_rows_read_the_weights_of_onednn():
    made = product(layer())
    assert isinstance(made, BFloat16)
    assert made._most > 0
    address = int(torch.ops.mkldnn.data_ptr(made._weight))
    assert made._described.values == address
    for rows in (1, 16, 64, 65, 200):
        x = random(rows, 96)
        torch.testing.assert_close(made(x), Blocked.__call__(made, x))


@pytest.mark.skipif(not WAYS, reason="no bfloat16 products")
def test_a_weight_whose_layout_cannot_be_told_stays_with_onednn():
    linear = layer()
    torch.nn.init.zeros_(linear.weight)
    made = product(linear)
    assert isinstance(made, BFloat16)
    assert made._most == 0
    assert made(random(2, 96)).shape == (2, 80)


def test_processors_without_bfloat16_keep_the_weights_as_they_are(monkeypatch):
    linear = layer()
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    made = product(linear)
    assert isinstance(made, RowMajor)
    assert made._weight.data_ptr() == linear.weight.data_ptr()
    for rows in (0, 1, 8, 20):
        x = random(rows, 96)
        torch.testing.assert_close(made(x), linear(x).detach())


@given(rows=st.integers(1, 20_000))
def test_rows_are_filled_up_by_little(rows):
    whole = rounded_rows(rows)
    assert rows <= whole < rows + max(16, rows / 16 + 1)
    assert rounded_rows(whole) == whole


def test_few_numbers_of_rows_are_met():
    assert len({rounded_rows(rows) for rows in range(17, 513)}) == 31
    assert len({rounded_rows(rows) for rows in range(513, 8193)}) == 16 * 4


@given(rows=st.integers(60, 300))
def test_rows_that_are_filled_up_have_the_values_of_a_plain_product(rows):
    generator = torch.Generator().manual_seed(rows)
    weight, x = (torch.randn(n, 48, generator=generator).bfloat16() for n in (40, rows))
    bias = torch.randn(40, generator=generator).bfloat16()
    found = Blocked(weight, bias)(x)
    assert found.shape == (rows, 40)
    assert found.is_contiguous()
    wanted = F.linear(x.double(), weight.double(), bias.double())
    torch.testing.assert_close(found.double(), wanted, rtol=2**-7, atol=0.05)
