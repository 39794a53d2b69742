import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError
from sharpen.serve.blocks import BlockPool


def hashes_of(pool: BlockPool, tokens: list[int], extra: str = "") -> list[bytes]:
    found, previous = [], pool.root(extra)
    for i in range(0, len(tokens) - pool.size + 1, pool.size):
        previous = pool.chain(previous, tokens[i : i + pool.size])
        found.append(previous)
    return found


def test_a_released_prefix_is_found_until_its_blocks_are_handed_out() -> None:
    pool = BlockPool(4, 2)
    hashes = hashes_of(pool, [1, 2, 3, 4])
    blocks = pool.take(2)
    for block, one in zip(blocks, hashes, strict=True):
        pool.know(block, one)
    pool.release(blocks)
    assert pool.num_free == 4
    assert pool.find(hashes) == blocks
    others = pool.take(2)  # those that never held anything go first
    assert not set(others) & set(blocks)
    pool.take(1)  # then the tail of the released sequence
    assert pool.find(hashes) == blocks[:1]


def test_blocks_that_hold_nothing_go_before_those_that_were_never_used() -> None:
    pool = BlockPool(6, 2)
    hashes = hashes_of(pool, [1, 2, 3, 4])
    blocks = pool.take(3)  # the third one was not filled
    for block, one in zip(blocks, hashes, strict=False):
        pool.know(block, one)
    pool.release(blocks)
    assert pool.take(1) == blocks[2:]
    pool.share(blocks[:2])
    pool.release(blocks[:2], forget=True)
    assert pool.find(hashes) == []
    assert pool.take(2) == blocks[:2]


def test_what_others_hold_is_not_forgotten() -> None:
    pool = BlockPool(3, 2)
    (block,) = pool.take(1)
    hashes = hashes_of(pool, [5, 6])
    pool.know(block, hashes[0])
    pool.share([block])
    pool.release([block], forget=True)
    assert pool.find(hashes) == [block]


def test_sharing_keeps_blocks_until_the_last_holder_leaves() -> None:
    pool = BlockPool(3, 2)
    (block,) = pool.take(1)
    pool.know(block, hashes_of(pool, [5, 6])[0])
    pool.share([block])
    pool.release([block])
    assert pool.num_used == 1
    assert pool.num_needed([block]) == 0
    pool.release([block])
    assert pool.num_used == 0
    assert pool.num_needed([block]) == 1
    pool.share([block])
    assert pool.num_used == 1


def test_hashes_depend_on_all_before_and_on_what_else_decides() -> None:
    pool = BlockPool(1, 2)
    assert hashes_of(pool, [1, 2, 3, 4])[1] != hashes_of(pool, [9, 2, 3, 4])[1]
    assert hashes_of(pool, [1, 2], "a") != hashes_of(pool, [1, 2], "b")
    assert hashes_of(pool, [1, 2]) != hashes_of(BlockPool(1, 2), [1, 2])  # a key of its own
    assert len(hashes_of(pool, [1, 2])[0]) == 16


def test_the_first_block_of_equal_contents_stays_the_known_one() -> None:
    pool = BlockPool(2, 1)
    (one,) = hashes_of(pool, [7])
    a, b = pool.take(2)
    pool.know(a, one)
    pool.know(b, one)
    assert pool.find([one]) == [a]
    pool.forget()
    assert pool.find([one]) == []


@pytest.mark.parametrize(("count", "size"), [(0, 16), (4, 0)])
def test_an_empty_pool_is_refused(count: int, size: int) -> None:
    with pytest.raises(ConfigError, match="must be at least 1"):
        BlockPool(count, size)


def test_more_than_there_are_is_refused() -> None:
    pool = BlockPool(2, 4)
    with pytest.raises(ConfigError, match="2 are free"):
        pool.take(3)
    assert pool.num_free == 2


@given(st.lists(st.integers(0, 5), max_size=60))
def test_free_and_used_are_all(actions: list[int]) -> None:
    pool = BlockPool(6, 2)
    held: list[list[int]] = []
    for action in actions:
        if action <= 2 and action <= pool.num_free:
            held.append(pool.take(action))
        elif action == 3 and held:
            pool.release(held.pop(0))
        elif held:
            again = held[-1]
            pool.share(again)
            held.append(list(again))
        count = sum(map(len, held))
        assert sum(pool.holders(b) for b in range(6)) == count
        assert pool.num_used == len({b for blocks in held for b in blocks})
        assert pool.num_free + pool.num_used == 6
