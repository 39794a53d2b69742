import torch

from sharpen.models.kv_cache import KVCache
from small_models import small_spec


def filled(lengths, *, capacity=4, width=None):
    """A cache whose keys and values say which row and position they belong to."""
    spec = small_spec()
    width = width or max(lengths)
    starts = torch.tensor([width - n for n in lengths])
    cache = KVCache(spec, len(lengths), capacity=capacity, starts=starts)
    cache.reserve(width)
    for layer in range(spec.num_layers):
        keys = torch.zeros(len(lengths), spec.num_kv_heads, width, spec.head_dim)
        for row, n in enumerate(lengths):
            for position in range(n):
                keys[row, :, width - n + position] = 1000 * layer + 100 * row + position + 1
        cache.put(layer, keys, -keys)
    cache.advance(width)
    return cache


def rows(cache, layer):
    """What each row holds, without its padding."""
    empty = torch.zeros(cache.batch, cache.spec.num_kv_heads, 0, cache.spec.head_dim)
    keys, values = cache.put(layer, empty, empty)
    assert torch.equal(keys, -values)
    starts = cache.starts if cache.starts is not None else torch.zeros(cache.batch).long()
    return [keys[i, 0, int(start) :, 0].tolist() for i, start in enumerate(starts)]


def test_the_buffer_grows_and_keeps_what_it_held():
    cache = filled([3], capacity=3)
    before = cache.num_bytes
    cache.reserve(1)
    assert cache.num_bytes == 2 * before
    assert rows(cache, 1) == [[1001, 1002, 1003]]


def test_bytes_are_those_of_the_formula():
    spec = small_spec()
    cache = KVCache(spec, 3, capacity=10, dtype=torch.bfloat16)
    assert cache.num_bytes == 2 * spec.num_layers * 3 * 10 * spec.kv_size * 2


def test_selecting_rows_drops_padding_they_share():
    cache = filled([6, 2, 4])
    cache.select(torch.tensor([1, 2]))
    assert cache.length == 4
    assert rows(cache, 0) == [[101, 102], [201, 202, 203, 204]]
    cache.select(torch.tensor([0]))
    assert (cache.length, cache.starts) == (2, None)
    assert rows(cache, 1) == [[1101, 1102]]


def test_the_buffer_grows_after_rows_left():
    cache = filled([6, 2])
    cache.select(torch.tensor([1]))
    cache.reserve(20)
    assert rows(cache, 0) == [[101, 102]]
