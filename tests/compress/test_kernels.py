"""Native products of 4- and 8-bit rows: every variant and way against float64, bit for bit in M."""

import ctypes

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.compress.kernels import WAYS, IntegerProduct, best_way
from sharpen.compress.mixed import (
    MixedLinear,
    MixedWeight,
    integer_product,
    quantize_activations,
    row_product,
)
from sharpen.compress.rows import grouped, quantize_rows
from sharpen.models.products import Layers, product
from sharpen.native.build import build, load
from sharpen.native.info import compiler, supported, variant

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")


def ways():
    """Every variant of this machine, and every way in the best of them."""
    names = [(name, "plain") for name in supported()]
    best = best_way(load("integer_products")) if variant() == "avx512" else "plain"
    return names + [("avx512", way) for way in WAYS[1 : WAYS.index(best) + 1]]


MADE = ways() if compiler() is not None else []


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weight_of(rows, columns, share, seed=0):
    eight = torch.rand(rows, generator=torch.Generator().manual_seed(seed)) < share
    return MixedWeight.of(quantize_rows(random(rows, columns, seed=seed) + 0.2, eight))


def made(weight, name, way, bias=None, activation_bits=8):
    library = ctypes.CDLL(str(build("integer_products", name)))
    return IntegerProduct(weight.parts(), weight.shape, bias, library, way, activation_bits)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(("name", "way"), MADE)
@given(
    tokens=st.sampled_from([0, 1, 2, 3, 7, 8, 13, 16, 33, 64, 70]),
    rows=st.sampled_from([1, 15, 16, 100]),
    columns=st.sampled_from([1, 64, 65, 100, 128, 192, 576, 640]),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    biased=st.booleans(),
)
def test_the_product_is_that_of_dequantized_operands(
    name, way, tokens, rows, columns, share, biased
):
    weight, x = weight_of(rows, columns, share), random(tokens, columns, seed=1)
    bias = random(rows, seed=2) if biased else None
    codes, scale = quantize_activations(x)
    inner = (grouped(codes.double()) * scale.double()[..., None]).flatten(1)[:, :columns]
    dequantized = weight.dequantized(torch.float64)
    wanted = inner @ dequantized.T + (bias.double() if biased else 0)
    size = inner.norm(dim=1)[:, None] * dequantized.norm(dim=1) + wanted.abs()
    found = made(weight, name, way, bias)(x)
    assert found.shape == wanted.shape
    assert bool(((found.double() - wanted).abs() <= 1e-6 * size + 1e-12).all())


@pytest.mark.parametrize(("name", "way"), MADE)
def test_a_row_does_not_depend_on_its_neighbours_nor_on_threads(name, way, threads):
    weight, x = weight_of(400, 1000, 0.2), random(70, 1000, seed=1)
    linear = made(weight, name, way)
    whole = linear(x)
    for count in (1, 2, 3, 5, 9, 17, 64):
        for number in (1, 2, 3):
            threads(number)
            assert torch.equal(linear(x[3 : 3 + count]), whole[3 : 3 + count])


@pytest.mark.parametrize("activation_bits", [8, 16])
@pytest.mark.parametrize("columns", [576, 700])
def test_ways_with_fused_sums_have_the_same_bits(columns, activation_bits):
    weight, x = weight_of(100, columns, 0.5), random(40, columns, seed=1)
    found = [
        made(weight, name, way, None, activation_bits)(x) for name, way in MADE if name != "scalar"
    ]
    assert all(torch.equal(one, found[0]) for one in found)


@pytest.mark.parametrize(("name", "way"), MADE)
@pytest.mark.parametrize("columns", [100, 576])
def test_activations_of_16_bits_are_those_of_the_twin_and_a_hundred_times_as_fine(
    name, way, columns
):
    weight, bias = weight_of(40, columns, 0.6), random(40, seed=2)
    x = random(19, columns, seed=1)
    x[:, 3] *= 100
    exact = x.double() @ weight.dequantized(torch.float64).T
    errors = []
    for bits in (8, 16):
        linear = made(weight, name, way, bias, bits)
        found = linear(x) - bias
        torch.testing.assert_close(found, row_product(x, weight, bits), rtol=1e-4, atol=1e-3)
        assert torch.equal(linear(x[4:9]), linear(x)[4:9])
        errors.append(float((found.double() - exact).norm() / exact.norm()))
    assert errors[1] < errors[0] / 100


@pytest.mark.parametrize(("name", "way"), MADE)
def test_extreme_codes_do_not_overflow(name, way):
    columns = 256
    for value in (-1.0, 1.0):
        for share in (0.0, 1.0):
            w = torch.full((16, columns), value)
            w[:, ::2] *= -1
            eight = torch.full((16,), share) > 0.5
            weight = MixedWeight.of(quantize_rows(w, eight))
            x = torch.full((17, columns), 3.0)
            x[:, 1::2] *= -1
            codes, scale = quantize_activations(x)
            wanted = integer_product(codes, scale, weight)
            torch.testing.assert_close(made(weight, name, way)(x), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("name", "way"), MADE)
def test_what_is_not_finite_shows_in_its_row_alone(name, way):
    weight, x = weight_of(20, 256, 0.5), random(12, 256, seed=1)
    linear = made(weight, name, way)
    whole = linear(x)
    x[4, 200], x[7, 3] = float("nan"), float("inf")
    found = linear(x)
    kept = [i for i in range(12) if i not in (4, 7)]
    assert bool(found[[4, 7]].isnan().all())
    assert torch.equal(found[kept], whole[kept])


@pytest.mark.parametrize(("name", "way"), MADE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_types_are_rounded_once(name, way, dtype):
    weight, x = weight_of(40, 192, 0.3), random(11, 192, seed=1).to(dtype)
    linear = made(weight, name, way)
    assert torch.equal(linear(x), linear(x.float()).to(dtype))


def test_layers_on_one_input_become_one_product():
    bias = random(24, seed=3)
    layers = [
        MixedLinear(weight_of(24, 192, 0.3), bias),
        MixedLinear(weight_of(7, 192, 1.0, seed=1)),
        MixedLinear(weight_of(40, 192, 0.0, seed=2)),
    ]
    linear = product(*layers)
    assert isinstance(linear, IntegerProduct)
    x = random(5, 192, seed=4)
    # Two orders of float32 sums over groups.
    torch.testing.assert_close(linear(x), Layers(*layers)(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("columns", [1024, 576, 64])
def test_a_product_reads_what_is_stored_and_no_more(columns):
    weight = weight_of(160, columns, 0.1)
    stored = sum(x.nbytes for x in weight.tensors().values())
    assert product(MixedLinear(weight)).nbytes <= stored + 32 * columns  # the last tiles' rows


def test_without_native_code_the_layers_run_as_they_are(monkeypatch):
    monkeypatch.setenv("SHARPEN_NATIVE", "0")
    assert isinstance(product(MixedLinear(weight_of(16, 128, 0.5))), Layers)


@pytest.mark.skipif(("avx512", "tiles") not in MADE, reason="no tile registers")
def test_tile_registers_are_shared_with_onednn():
    weight, x = weight_of(64, 256, 0.5), random(40, 256, seed=1)
    linear, dense = made(weight, "avx512", "tiles"), random(64, 256).bfloat16()
    ours, theirs = linear(x), x.bfloat16() @ dense.T
    for _ in range(20):
        assert torch.equal(x.bfloat16() @ dense.T, theirs)
        assert torch.equal(linear(x), ours)
