"""Native attention over blocks, of long parts and of single tokens, and how prompts are cut."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.models import native_step, prepare_for_inference
from sharpen.models.native_step import NativeStep, fused_step
from sharpen.models.paged import PagedCache, PagedContext, PagedPart
from sharpen.models.products import has_tiles
from sharpen.models.rope import Rope
from sharpen.models.step import Rows, TorchStep, gathered
from sharpen.native.build import load
from sharpen.native.info import compiler, cpu_flags, variant
from small_models import small_model, small_spec


def ways():
    """By tile registers or not."""
    if compiler() is None or variant() != "avx512" or "avx512_bf16" not in cpu_flags():
        return []
    return [False, True] if has_tiles(load("attention"), "bf16") else [False]


WAYS = ways()
pytestmark = pytest.mark.skipif(not WAYS, reason="no bfloat16 products")


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(spec, tiles):
    """The step, held to one way."""
    step = fused_step(spec, torch.bfloat16, torch.device("cpu"))
    assert isinstance(step, NativeStep)
    step.attend_tiles = tiles
    return step


def laid(spec, parts, *, block, seed=0):
    """A cache of random numbers, and the rows of parts (count, start) of so many sequences."""
    sizes = [-(-(start + count) // block) for count, start in parts]
    cache = PagedCache(spec, sum(sizes), block, dtype=torch.bfloat16)
    for i, buffer in enumerate(cache.buffers(0)):
        buffer.copy_(random(*buffer.shape, seed=seed + i))
    order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(seed)).tolist()
    asked = []
    for (count, start), size in zip(parts, sizes, strict=True):
        asked.append(PagedPart([1] * count, start, order[:size]))
        order = order[size:]
    return cache.buffers(0), PagedContext.of(asked, cache, Rope(spec)).rows


def exact(spec, q, buffers, rows, window):
    """Each row by itself in float64."""
    out = torch.empty(q.shape, dtype=torch.float64)
    keys, values = (gathered(b.double(), rows.tables) for b in buffers)
    group = spec.num_heads // spec.num_kv_heads
    for i, (sequence, position) in enumerate(
        zip(rows.sequences.tolist(), rows.positions.tolist(), strict=True)
    ):
        low = max(0, position + 1 - window) if window else 0
        if rows.firsts is not None:
            low = min(max(low, int(rows.firsts[i])), position)
        k, v = (
            x[sequence, :, low : position + 1].repeat_interleave(group, 0) for x in (keys, values)
        )
        scores = (k @ q[i].double()[..., None])[..., 0] / spec.head_dim**0.5
        out[i] = (scores.softmax(-1)[:, None] @ v)[:, 0]
    return out.flatten(1)


@pytest.mark.parametrize("tiles", WAYS)
@given(
    parts=st.lists(
        st.tuples(st.sampled_from([1, 2, 9, 40, 130]), st.sampled_from([0, 1, 250, 256, 600])),
        min_size=1,
        max_size=3,
    ),
    heads=st.sampled_from([(4, 4), (4, 2), (6, 2), (7, 1), (40, 2)]),
    size=st.sampled_from([32, 64, 96]),
    block=st.sampled_from([5, 16, 32]),
    window=st.sampled_from([None, 1, 30, 300]),
    padded=st.booleans(),
)
def test_attention_of_parts(tiles, parts, heads, size, block, window, padded):
    spec = small_spec(num_heads=heads[0], num_kv_heads=heads[1], head_dim=size)
    buffers, rows = laid(spec, parts, block=block)
    if padded:
        rows = Rows(rows.places, rows.tables, rows.sequences, rows.positions, rows.positions // 3)
    q = random(len(rows.positions), heads[0], size, seed=5)
    found = made(spec, tiles).attend_rows(q, buffers, rows, window)
    # Queries and weights are rounded to bfloat16, and so is the result, of up to about 3.
    torch.testing.assert_close(
        found.double(), exact(spec, q, buffers, rows, window), atol=2e-2, rtol=1.6e-2
    )


def cut(rows, begin, end):
    at = slice(begin, end)
    return Rows(rows.places[at], rows.tables, rows.sequences[at], rows.positions[at])


@pytest.mark.parametrize("tiles", WAYS)
@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("heads", [(6, 2), (4, 4), (32, 1)])
def test_a_token_does_not_depend_on_how_the_prompt_was_cut(tiles, window, heads):
    spec = small_spec(num_heads=heads[0], num_kv_heads=heads[1], head_dim=64)
    buffers, rows = laid(spec, [(600, 20)], block=16)
    q, step = random(600, heads[0], 64, seed=5), made(spec, tiles)
    whole = step.attend_rows(q, buffers, rows, window)
    for sizes in ([1] * 5 + [3, 8, 9, 230, 345], [512, 88], [256, 256, 88]):
        begin, pieces = 0, []
        for size in sizes:
            one = cut(rows, begin, begin + size)
            pieces.append(
                step.attend_rows(q[begin : begin + size].contiguous(), buffers, one, window)
            )
            begin += size
        assert torch.equal(torch.cat(pieces), whole)


@pytest.mark.parametrize("tiles", WAYS)
def test_results_do_not_depend_on_neighbours_nor_on_threads(tiles):
    spec = small_spec(num_heads=6, num_kv_heads=2, head_dim=64)
    buffers, rows = laid(spec, [(1, 700), (1, 30), (40, 300), (200, 900)], block=16)
    q, step = random(242, 6, 64, seed=5), made(spec, tiles)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 16):
            torch.set_num_threads(threads)
            found.append(step.attend_rows(q, buffers, rows, None))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found)
    alone = step.attend_rows(q[:1].contiguous(), buffers, cut(rows, 0, 1), None)
    assert torch.equal(alone, found[0][:1])


@pytest.mark.parametrize("tiles", WAYS)
def test_what_a_block_held_before_does_not_show(tiles):
    spec = small_spec(num_heads=4, num_kv_heads=2, head_dim=32)
    buffers, rows = laid(spec, [(10, 3)], block=32)
    q, step = random(10, 4, 32, seed=5), made(spec, tiles)
    expected = step.attend_rows(q, buffers, rows, None)
    for buffer in buffers:
        buffer[:, :, 13:] = float("nan")
    assert torch.equal(step.attend_rows(q, buffers, rows, None), expected)


def test_long_parts_stay_with_torch_without_such_products(monkeypatch):
    spec = small_spec(head_dim=64)
    assert fused_step(spec, torch.bfloat16, torch.device("cpu")).rows_are_enough
    assert not fused_step(spec, torch.float32, torch.device("cpu")).rows_are_enough
    assert not TorchStep(spec).rows_are_enough
    monkeypatch.setattr(native_step, "cpu_flags", lambda: frozenset({"avx512f"}))
    assert not fused_step(spec, torch.bfloat16, torch.device("cpu")).rows_are_enough


def test_a_model_takes_its_prompts_so():
    model = small_model(head_dim=32).to(torch.bfloat16)
    ids = list(range(5, 55))
    with torch.no_grad():
        expected = model(torch.tensor([ids]))[0, -3:].float()
    fast = prepare_for_inference(model)
    cache = fast.new_paged_cache(4, 16)
    found = fast.paged([PagedPart(ids, 0, [2, 0, 3, 1], wanted=3)], cache).float()
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0)  # logits of up to about 5
