"""Blocks against one long row: equal logits, whatever the parts and their order."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.model_spec import ModelSpec
from sharpen.models.decode import InferenceLM, prepare_for_inference
from sharpen.models.decoder import DecoderLM
from sharpen.models.paged import PagedCache, PagedPart
from small_models import small_spec

VARIANTS = {
    "plain": {},
    "window": {"sliding_window": 9},
    "qk_norm": {"family": "qwen3"},
    "parallel": {"block": "parallel"},
}


def model(kind: str = "plain", dtype: torch.dtype = torch.float32, **more: object) -> DecoderLM:
    made = DecoderLM(small_spec(max_positions=256, **{**VARIANTS[kind], **more}))
    made.init_weights(0, std=0.2)
    return made.to(dtype).eval()


@pytest.fixture(scope="module", params=["native", "torch"])
def twins(request: pytest.FixtureRequest) -> dict[str, tuple[DecoderLM, InferenceLM]]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setenv("SHARPEN_NATIVE", "0")
        return {kind: (model(kind), prepare_for_inference(model(kind))) for kind in VARIANTS}


@given(
    kind=st.sampled_from(list(VARIANTS)),
    seed=st.integers(0, 2**32),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    block_size=st.sampled_from([1, 4, 16]),
)
def test_parts_in_any_order_give_the_logits_of_whole_rows(
    twins, kind: str, seed: int, lengths: list[int], block_size: int
) -> None:
    reference, engine = twins[kind]
    chance = random.Random(seed)
    vocab = reference.spec.vocab_size
    rows = [[chance.randrange(vocab) for _ in range(length)] for length in lengths]
    with torch.no_grad():
        expected = [reference(torch.tensor([row]))[0] for row in rows]
    needed = [-(-len(row) // block_size) for row in rows]
    numbers = list(range(sum(needed) + 2))
    chance.shuffle(numbers)
    tables = [[numbers.pop() for _ in range(count)] for count in needed]
    cache = engine.new_paged_cache(sum(needed) + 2, block_size)
    done = [0] * len(rows)
    while any(d < len(row) for d, row in zip(done, rows, strict=True)):
        chosen = [i for i, row in enumerate(rows) if done[i] < len(row) and chance.random() < 0.7]
        parts, wanted = [], []
        for i in chosen:
            left = len(rows[i]) - done[i]
            count = chance.choice([1, min(left, 3), left])
            keep = chance.randint(1, count)
            parts.append(PagedPart(rows[i][done[i] : done[i] + count], done[i], tables[i], keep))
            done[i] += count
            wanted.append(expected[i][done[i] - keep : done[i]])
        if parts:
            torch.testing.assert_close(
                engine.paged(parts, cache), torch.cat(wanted), atol=2e-4, rtol=1e-4
            )


def test_bfloat16_is_as_exact_as_with_the_contiguous_cache() -> None:
    engine = prepare_for_inference(model(dtype=torch.bfloat16))
    ids = torch.arange(40)[None] % engine.spec.vocab_size
    with torch.no_grad():
        exact = model(dtype=torch.bfloat16).float()(ids)[0]
    whole = (engine(ids)[0].float() - exact).abs().mean()
    cache, table = engine.new_paged_cache(5, 16), [4, 1, 2]
    parts = [PagedPart(ids[0, :30].tolist(), 0, table, 30)]
    parts += [PagedPart([int(ids[0, i])], i, table) for i in range(30, 40)]
    found = torch.cat([engine.paged([part], cache) for part in parts]).float()
    assert (found - exact).abs().mean() < 1.1 * whole
    assert whole < 0.05


def test_blocks_take_the_told_bytes() -> None:
    spec: ModelSpec = small_spec()
    cache = PagedCache(spec, 7, 16, dtype=torch.bfloat16)
    held = sum(b.nbytes for layer in range(spec.num_layers) for b in cache.buffers(layer))
    assert held == 7 * PagedCache.block_bytes(spec, 16, torch.bfloat16)
