import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.models.head_tiles import HeadTiles, row_tiles


@given(rows=st.integers(1, 200), tile=st.integers(1, 80))
def test_tiles_hold_every_row_once_and_few_sizes(rows: int, tile: int) -> None:
    numbers = torch.randperm(rows, generator=torch.Generator().manual_seed(rows))
    found, sizes = [], set()
    for at, real in row_tiles(numbers, tile):
        found.append(at[:real])
        sizes.add(len(at))
        assert len(at) <= tile and not bool(at[real:].any())
        assert len(at) % 32 == 0 or len(at) == tile
    assert torch.equal(torch.cat(found), numbers)
    assert len(sizes) <= 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_logits_are_those_of_the_head(dtype: torch.dtype, softcap: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(40, 6, generator=generator).to(dtype)
    w = torch.randn(9, 6, generator=generator)
    bias = torch.randn(9, generator=generator)
    tiles = HeadTiles(h, w, bias, tile=16, softcap=softcap)
    at = torch.tensor([3, 0, 39])
    found = tiles.logits(at)
    expected = (h[at] @ w.to(dtype).T).to(tiles.exact) + bias
    if softcap is None:
        assert found.slope is None
    else:
        ratio = torch.tanh(expected / softcap)
        expected = softcap * ratio
        assert found.slope is not None
        torch.testing.assert_close(found.slope, 1 - ratio.square(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.logits, expected.to(tiles.exact), rtol=1e-5, atol=1e-5)
    assert found.logits.untyped_storage().data_ptr() == tiles.memory.untyped_storage().data_ptr()
