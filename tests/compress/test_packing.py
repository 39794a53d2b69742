"""Packed words: round trips, damaged parts, and the peer package's own packing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.compress import Grid, dequantize, quantize
from sharpen.compress.packing import pack_int32, pack_weight, unpack_int32, unpack_weight
from sharpen.core.errors import FileFormatError


@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 40),
    bits=st.sampled_from([4, 8]),
    seed=st.integers(0, 999),
)
def test_unpacking_undoes_packing(rows, columns, bits, seed):
    half = 1 << (bits - 1)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-half, half, (rows, columns), generator=generator).to(torch.int8)
    words = pack_int32(values, bits)
    assert words.dtype == torch.int32
    assert words.shape == (rows, -(-columns * bits // 32))
    assert torch.equal(unpack_int32(words, bits, columns), values)


def test_words_are_laid_out_as_the_formula_says():
    values = torch.tensor([[-8, 7, 0, 1, -1, 2, 3, -8, 5]], dtype=torch.int8)
    words = pack_int32(values, 4)[0].tolist()
    first = sum((int(q) + 8) << (4 * i) for i, q in enumerate(values[0, :8]))
    assert [w % (1 << 32) for w in words] == [first, 13]


def parts(symmetric=True, bits=4):
    weight = torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
    quantized = quantize(weight, Grid(bits=bits, group=32, symmetric=symmetric))
    return quantized, pack_weight(quantized)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_weight_survives_storage(bits, symmetric):
    quantized, stored = parts(symmetric, bits)
    found = unpack_weight(stored, bits, (10, 64), "file: layer")
    assert torch.equal(dequantize(found), dequantize(quantized))
    assert (found.zero is None) == symmetric


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("weight_packed", None, "lacks weight_packed"),
        ("weight_packed", lambda t: t[:, :-1], r"must be torch.int32 of shape \[10, 8\]"),
        ("weight_packed", lambda t: t.float(), "is torch.float32"),
        ("weight_shape", lambda t: t + 1, r"weight_shape is \[11, 65\]; config.json says"),
        ("weight_scale", lambda t: t[:-1], r"must be \[10, G\]"),
        ("weight_scale", lambda t: t[:, :0], r"must be \[10, G\]"),
        ("weight_scale", lambda t: t * 0, "finite numbers other than 0"),
        ("weight_scale", lambda t: t / 0, "finite numbers"),
        ("weight_scale", lambda t: t.to(torch.int32), "finite numbers"),
        ("weight_zero_point", lambda t: t[:1], r"weight_zero_point .* \[2, 2\]"),
    ],
)
def test_damaged_parts_are_refused(name, change, message):
    _, stored = parts(symmetric=False)
    if change is None:
        del stored[name]
    else:
        stored[name] = change(stored[name])
    with pytest.raises(FileFormatError, match=message) as error:
        unpack_weight(stored, 4, (10, 64), "model.safetensors: q_proj")
    assert "model.safetensors: q_proj" in str(error.value)


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [32, -1])
@pytest.mark.parametrize("symmetric", [True, False])
def test_compressed_tensors_packs_and_dequantizes_bit_for_bit_the_same(bits, group, symmetric):
    from compressed_tensors.compressors import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(2))
    quantized = quantize(weight, Grid(bits=bits, group=group, symmetric=symmetric))
    stored = pack_weight(quantized)
    arguments = QuantizationArgs(
        num_bits=bits,
        type="int",
        symmetric=symmetric,
        strategy="channel" if group == -1 else "group",
        group_size=None if group == -1 else group,
    )
    scheme = QuantizationScheme(targets=["Linear"], weights=arguments)
    peer = PackedQuantizationCompressor.decompress(dict(stored), scheme)["weight"]
    assert torch.equal(peer, dequantize(quantized, torch.bfloat16))
    # In float32, where q s is exact, the peer's own rounding finds the same integers.
    state = {"weight": dequantize(quantized), "weight_scale": quantized.scale.float()}
    if quantized.zero is not None:
        state["weight_zero_point"] = quantized.zero
    again = PackedQuantizationCompressor.compress(state, scheme)
    assert sorted(again) == sorted(stored)
    for name, tensor in stored.items():
        assert torch.equal(again[name].to(tensor.dtype), tensor), name
