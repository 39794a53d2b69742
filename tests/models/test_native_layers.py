"""All layers in one native call: the bits of the same operations, one by one."""

import pytest
import torch
from torch import nn

from sharpen.compress.grid import Grid
from sharpen.compress.groupwise import quantize
from sharpen.compress.linear import QuantizedLinear
from sharpen.compress.mixed import MixedLinear, MixedWeight
from sharpen.compress.rows import quantize_rows
from sharpen.models import prepare_for_inference
from sharpen.models.paged import PagedPart
from sharpen.native.info import compiler, cpu_flags, variant
from small_models import small_model

pytestmark = pytest.mark.skipif(compiler() is None, reason="no compiler")

KINDS = {
    "float32": {},
    "bfloat16": {"dtype": torch.bfloat16},
    "qk_norm": {"dtype": torch.bfloat16, "family": "qwen3"},
    "bias": {"family": "qwen2"},
    "window": {"sliding_window": 5},
}


def steps(engine):
    """A prompt of 7 tokens beside one of 3, then single tokens with other parts."""
    cache = engine.new_paged_cache(8, 4)
    first, second = [0, 2, 4], [5, 1, 7]
    return [
        engine.paged(
            [PagedPart([3, 1, 4, 1, 5, 9, 2], 0, first, 3), PagedPart([6, 5, 3], 0, second)], cache
        ),
        engine.paged([PagedPart([5], 7, first), PagedPart([8], 3, second)], cache),
        engine.paged([PagedPart([9, 7], 4, second, 0)], cache),
        engine.paged([PagedPart([2], 6, second), PagedPart([6], 8, first)], cache),
    ]


def both(engine):
    assert engine._native is not None
    fused = steps(engine)
    engine._native = None
    return fused, steps(engine)


@pytest.mark.parametrize("kind", KINDS)
def test_bits_are_those_of_one_operation_after_the_other(kind):
    options = dict(KINDS[kind])
    dtype = options.pop("dtype", torch.float32)
    model = small_model(max_positions=64, **options).to(dtype)
    for one, other in zip(*both(prepare_for_inference(model)), strict=True):
        assert torch.equal(one, other)


def mixed(linear):
    eight = torch.arange(linear.weight.shape[0]) % 3 == 0
    return MixedLinear(MixedWeight.of(quantize_rows(linear.weight.detach().float(), eight)))


def four_bits(linear):
    return QuantizedLinear(quantize(linear.weight.detach().float(), Grid(bits=4)))


def compressed(made, dtype):
    model = small_model(max_positions=64).to(dtype)
    for block in model.model.layers:
        for part in (block.self_attn, block.mlp):
            for name, layer in part.named_children():
                if isinstance(layer, nn.Linear):
                    setattr(part, name, made(layer))
    return model


@pytest.mark.parametrize(
    ("made", "dtype"),
    [
        (mixed, torch.float32),
        (mixed, torch.bfloat16),
        pytest.param(
            four_bits,
            torch.bfloat16,
            marks=pytest.mark.skipif(
                variant() != "avx512" or "avx512_bf16" not in cpu_flags(),
                reason="no bfloat16 products",
            ),
        ),
    ],
)
def test_so_it_is_with_compressed_layers(made, dtype):
    for one, other in zip(*both(prepare_for_inference(compressed(made, dtype))), strict=True):
        assert torch.equal(one, other)


def test_products_of_another_type_go_one_by_one():
    engine = prepare_for_inference(compressed(four_bits, torch.float32))  # they take bfloat16
    assert engine._native is None
    assert all(bool(torch.isfinite(one).all()) for one in steps(engine))


def test_padded_rows_of_a_batch(monkeypatch):
    engine = prepare_for_inference(small_model(max_positions=64))
    starts = torch.tensor([0, 3])
    ids = torch.tensor([[4, 9, 1, 7, 3], [0, 0, 0, 8, 2]])

    def decoded():
        cache = engine.new_cache(2, capacity=5, starts=starts)
        engine(ids, cache=cache)
        return [engine(torch.tensor([[i], [i + 1]]), cache=cache) for i in range(6)]

    fused = decoded()
    monkeypatch.setattr(engine, "_native", None)
    assert all(map(torch.equal, fused, decoded()))


def test_parallel_blocks_adapters_and_watchers_go_one_by_one():
    assert prepare_for_inference(small_model(block="parallel"))._native is None
    seen = []
    engine = prepare_for_inference(small_model())
    part = PagedPart([1, 2], 0, [0], watcher=lambda one: seen.append(one.layer))
    engine.paged([part], engine.new_paged_cache(1, 4))
    assert seen == [0, 1]
