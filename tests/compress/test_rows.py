"""Rows of 4 and 8 bits: error bounds, groups of one sign, and the layout of the bytes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.compress.rows import (
    GROUP,
    grouped,
    pack_nibbles,
    parameters,
    quantize_rows,
    row_bytes,
    unpack_nibbles,
)
from sharpen.core.errors import DataError

columns = st.sampled_from([1, 2, 63, 64, 127, 128, 129, 192, 256, 300])


@st.composite
def weights(draw):
    """Rows with outliers, of one sign, of zeros, and with very different sizes."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    weight = torch.randn(4, draw(columns), generator=generator)
    weight[0] = weight[0].abs() * draw(st.sampled_from([1.0, 1e-3, 1e12]))
    weight[1, : weight.shape[1] // 2] = 0
    weight[2, 0] *= draw(st.sampled_from([1.0, -1.0, 100.0]))
    return weight + draw(st.sampled_from([0.0, 3.0, -3.0]))


@given(weight=weights(), eight=st.lists(st.booleans(), min_size=4, max_size=4))
def test_no_weight_moves_by_more_than_half_a_step(weight, eight):
    codes = quantize_rows(weight, torch.tensor(eight))
    step = codes.scale.repeat_interleave(GROUP, 1)[:, : weight.shape[1]]
    error = (codes.dequantized() - weight).abs()
    # the zero point's own rounding may push the end of an asymmetric range half a step out
    slack = torch.where(codes.eight, 1e-4, 0.5001)[:, None]
    assert bool((error <= step * (0.5 + slack)).all())
    four, eights = codes.values[~codes.eight], codes.values[codes.eight]
    assert bool(((four >= 0) & (four <= 15)).all())
    assert bool((eights.abs() <= 127).all())


def test_groups_whose_weights_share_a_sign_stay_on_the_grid():
    spread = torch.linspace(0, 0.2, 128)
    for weight in (5 + spread, -5 - spread):
        codes = quantize_rows(weight[None], torch.tensor([False]))
        # from 0 to 5.2 in 15 steps: 0.35 wide, so off by 0.18 at most, and never by 4.6
        assert float((codes.dequantized() - weight).abs().max()) < 0.18


@given(weight=weights())
def test_scales_are_bfloat16_and_zeros_within_four_bits(weight):
    eight = torch.tensor([True, False, True, False])
    scale, zero = parameters(grouped(weight), eight)
    assert torch.equal(scale.bfloat16().float(), scale)
    assert bool((scale > 0).all())
    assert bool(((zero >= 0) & (zero <= 15) & (zero == zero.round())).all())
    assert not zero[eight].any()


@given(count=columns, seed=st.integers(0, 2**31))
def test_packing_and_unpacking_give_the_codes_back(count, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 16, (3, count), generator=generator)
    packed = pack_nibbles(codes)
    assert packed.dtype == torch.uint8
    assert packed.shape == (3, -(-count // 2))
    assert torch.equal(unpack_nibbles(packed, count).long(), codes)
    assert unpack_nibbles(packed[:0], count).shape == (0, count)


def test_a_byte_holds_columns_half_a_group_apart():
    codes = torch.arange(192).remainder(16)[None]
    codes[0, 64], codes[0, 160] = 9, 7
    packed = pack_nibbles(codes)[0]
    assert int(packed[0]) == 9 * 16 + int(codes[0, 0])  # columns 0 and 64
    assert int(packed[64]) == 7 * 16 + int(codes[0, 128])  # the short group: 128 and 160


def test_bytes_of_a_row():
    assert row_bytes(576) == (288 + 3 * 5, 576 + 2 * 5)
    assert row_bytes(1536) == (768 + 3 * 12, 1536 + 2 * 12)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e38])
def test_weights_that_no_grid_holds_are_named(bad):
    weight = torch.ones(2, 4)
    weight[1, 1] = bad
    with pytest.raises(DataError, match=r"layers\.0\.up"):
        quantize_rows(weight, torch.tensor([False, True]), where="layers.0.up")
