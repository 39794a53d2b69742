"""Grids: error bounds, idempotence, and the search for a clipped scale."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.compress import Grid, dequantize, quantize
from sharpen.compress.groupwise import quantize_on
from sharpen.core.errors import ConfigError, DataError

grids = st.builds(
    Grid,
    bits=st.sampled_from([4, 8]),
    group=st.sampled_from([32, 64, -1]),
    symmetric=st.booleans(),
    clip=st.just("none"),
)


@st.composite
def weights(draw):
    """Rows with outliers, one-sided groups, zeros and values of very different sizes."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    weight = torch.randn(3, 64, generator=generator)
    weight[0] = weight[0].abs() * draw(st.sampled_from([1.0, 1e-12, 1e12]))
    weight[1, :32] = 0
    weight[2, 5] *= draw(st.sampled_from([1.0, -1.0, 100.0]))
    return weight + draw(st.sampled_from([0.0, 3.0, -3.0]))


def per_weight(scale, weight):
    return scale.float().repeat_interleave(weight.shape[1] // scale.shape[1], 1)


@given(weight=weights(), grid=grids)
def test_every_weight_moves_by_at_most_half_a_step(weight, grid):
    quantized = quantize(weight, grid)
    half = per_weight(quantized.scale, weight).abs() / 2
    # a last bit of float32 in w / s, and the zero point's own rounding, may tip a tie
    slack = 1e-5 if grid.symmetric else 0.5 + 1e-5
    error = (dequantize(quantized) - weight).abs()
    assert bool((error <= half * (1 + slack) + 1e-30).all())


@given(weight=weights(), grid=grids)
def test_inside_an_asymmetric_range_the_bound_is_half_a_step(weight, grid):
    grid = Grid(bits=grid.bits, group=grid.group, symmetric=False)
    quantized = quantize(weight, grid)
    inside = (quantized.values > grid.low) & (quantized.values < grid.high)
    error = (dequantize(quantized) - weight).abs() - per_weight(quantized.scale, weight) * 0.50001
    assert bool((error[inside] <= 0).all())


@given(weight=weights(), grid=grids)
def test_quantizing_what_was_dequantized_changes_nothing(weight, grid):
    first = quantize(weight, grid)
    again = quantize_on(dequantize(first), first.scale, first.zero, bits=grid.bits)
    assert torch.equal(again.values, first.values)
    assert torch.equal(dequantize(again), dequantize(first))


def test_the_largest_weight_meets_the_longer_side_of_the_grid():
    weight = torch.zeros(2, 32)
    weight[0, 3], weight[1, 4] = 2.0, -2.0
    quantized = quantize(weight, Grid(bits=4))
    assert quantized.values[0, 3] == quantized.values[1, 4] == -8
    assert quantized.scale.flatten().tolist() == [-0.25, 0.25]
    assert torch.equal(dequantize(quantized), weight)


def test_scales_are_bfloat16_and_never_rounded_down():
    weight = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    scale = quantize(weight, Grid(bits=8, group=32)).scale
    assert scale.dtype == torch.bfloat16
    exact = weight.abs().amax(1, keepdim=True) / 128
    assert bool((scale.float().abs() >= exact).all())


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_clipped_scale_never_has_more_squared_error(symmetric):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(32, 128, generator=generator) ** 3
    plain = Grid(bits=4, group=64, symmetric=symmetric)
    clipped = Grid(bits=4, group=64, symmetric=symmetric, clip="mse")
    errors = [
        (dequantize(quantize(weight, grid)) - weight).view(32, 2, 64).square().sum(-1)
        for grid in (plain, clipped)
    ]
    assert bool((errors[1] <= errors[0] * (1 + 1e-6)).all())
    assert float(errors[1].sum()) < 0.97 * float(errors[0].sum())


def test_defaults_are_what_the_fast_kernels_take():
    assert Grid(bits=4).group_size == 32
    assert Grid(bits=8).group_size == -1
    assert quantize(torch.ones(2, 96), Grid(bits=4)).group_size == 32
    assert quantize(torch.ones(2, 96), Grid(bits=8)).shape == (2, 96)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"bits": 3}, "bits=3 must be 4 or 8"), ({"group": 48}, "group=48 must be 32, 64, 128")],
)
def test_grids_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Grid(**options)


def test_a_group_that_does_not_divide_names_those_that_do():
    with pytest.raises(ConfigError, match=r"group=128 .* 96 columns of q_proj. Choose 32, -1"):
        quantize(torch.ones(2, 96), Grid(bits=4, group=128), where="q_proj")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(bad):
    weight = torch.ones(2, 32)
    weight[1, 3] = bad
    with pytest.raises(DataError, match=r"v_proj holds NaN or infinity"):
        quantize(weight, Grid(), where="v_proj")


def test_what_is_no_matrix_is_refused():
    with pytest.raises(DataError, match="rows and columns"):
        quantize(torch.ones(4), Grid())
    with pytest.raises(DataError, match="too large for bfloat16"):
        quantize(torch.tensor([[3.4e38, -3.4e38] * 16]), Grid(symmetric=False))
