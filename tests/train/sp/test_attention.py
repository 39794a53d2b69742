"""Every technique against float64 attention in one process, and what it sends against formulas."""

import pytest

import distributed
from sequence_parallel import GRID, check, errors, grid
from sharpen.plan.communication import ring_bytes, ulysses_bytes
from sharpen.train.comm import Axis

# Some forty roundings in float32: processors sum in orders of their own.
LIMITS = [1e-10] * len(GRID) + [5e-6] * len(GRID)
HEADS = [(9, 3), (8, 2), (8, 8), (7, 7)]


def assert_small(found):
    worst = [max(case) for case in found]
    assert len(worst) == len(LIMITS)
    bad = [(i, e) for i, (e, limit) in enumerate(zip(worst, LIMITS, strict=True)) if not e <= limit]
    assert not bad


@pytest.mark.parametrize("technique", ["ulysses", "ring", "usp"])
def test_one_rank_is_plain_attention(technique):
    alone = Axis(None)
    assert_small([errors(case, alone, alone, technique=technique) for case in grid()])
    assert alone.bytes_sent == 0


PLANS = {
    2: [("ulysses", "contiguous", (1, 2)), ("ring", "contiguous", (2, 1))],
    3: [("ulysses", "contiguous", (1, 3)), ("ring", "zigzag", (3, 1))],
    4: [
        ("ulysses", "contiguous", (1, 4)),
        ("ring", "contiguous", (4, 1)),
        ("ring", "zigzag", (4, 1)),
        ("usp", "contiguous", (2, 2)),
        ("usp", "zigzag", (2, 2)),
    ],
}


@pytest.fixture(scope="module")
def results():
    """What every rank found, by number of ranks; each number is started once."""
    known = {}

    def get(ranks):
        if ranks not in known:
            known[ranks] = distributed.run(check, ranks, PLANS[ranks], HEADS)
        return known[ranks]

    return get


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_compute_what_one_process_computes(results, ranks):
    for found in results(ranks):
        assert list(found) == PLANS[ranks]
        for measured, _ in found.values():
            assert_small(measured)


def exchanges(heads, ranks, rank):
    query, key = heads
    found = ulysses_bytes(query, key, 8, ranks=ranks, tokens=6, element_bytes=2)[rank]
    return found.forward, found.backward


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ulysses_sends_each_key_head_to_the_ranks_that_use_it(results, ranks):
    for rank, found in enumerate(results(ranks)):
        _, sent = found["ulysses", "contiguous", (1, ranks)]
        assert sent == [(*exchanges(heads, ranks, rank), 0, 0) for heads in HEADS]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "worked"),
    [(2, [(13, 13), (13, 13)]), (4, [(23, 21), (21, 19), (19, 25), (21, 19)])],
)
def test_nine_heads_over_three_send_the_worked_numbers(results, ranks, worked):
    unit = 2 * 6 * 8  # bytes of a head's tokens
    found = [rank["ulysses", "contiguous", (1, ranks)][1][0] for rank in results(ranks)]
    assert [(forward // unit, backward // unit) for forward, backward, _, _ in found] == worked


@pytest.mark.slow
def test_a_ring_sends_keys_and_values_and_float32_gradients(results):
    for found in results(4):
        for layout in ("contiguous", "zigzag"):
            for (_, keys), sent in zip(HEADS, found["ring", layout, (4, 1)][1], strict=True):
                expected = ring_bytes(keys * 8, ranks=4, tokens=6, element_bytes=2)
                assert sent == (0, 0, expected.forward, expected.backward)


@pytest.mark.slow
def test_usp_sends_the_own_key_heads_around_the_ring(results):
    for rank, found in enumerate(results(4)):
        own_keys = [2, 1, 4, 4 - rank % 2]
        sent = found["usp", "contiguous", (2, 2)][1]
        for heads, keys, got in zip(HEADS, own_keys, sent, strict=True):
            ring = ring_bytes(keys * 8, ranks=2, tokens=12, element_bytes=2)
            assert got == (*exchanges(heads, 2, rank % 2), ring.forward, ring.backward)
