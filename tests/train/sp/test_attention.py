"""Every technique against float64 attention in one process: values and gradients."""

import pytest

import distributed
from sequence_parallel import GRID, check, errors, grid
from sharpen.train.comm import Axis

LIMITS = [1e-10] * len(GRID) + [2e-6] * len(GRID)


def assert_small(found):
    worst = [max(case) for case in found]
    assert len(worst) == len(LIMITS)
    bad = [(i, e) for i, (e, limit) in enumerate(zip(worst, LIMITS, strict=True)) if not e <= limit]
    assert not bad


@pytest.mark.parametrize("technique", ["ulysses", "ring", "usp"])
def test_one_rank_is_plain_attention(technique):
    alone = Axis(None)
    assert_small([errors(case, alone, alone, technique=technique) for case in grid()])


@pytest.mark.slow
@pytest.mark.parametrize(
    "plans",
    [
        [("ulysses", "contiguous", (1, 2)), ("ring", "contiguous", (2, 1))],
        [("ulysses", "contiguous", (1, 3)), ("ring", "zigzag", (3, 1))],
        [
            ("ulysses", "contiguous", (1, 4)),
            ("ring", "contiguous", (4, 1)),
            ("ring", "zigzag", (4, 1)),
            ("usp", "contiguous", (2, 2)),
            ("usp", "zigzag", (2, 2)),
        ],
    ],
    ids=["2 ranks", "3 ranks", "4 ranks"],
)
def test_ranks_compute_what_one_process_computes(plans):
    ring, sp = plans[0][2]
    for results in distributed.run(check, ring * sp, plans):
        assert [result[:3] for result in results] == plans
        for *_, found in results:
            assert_small(found)
