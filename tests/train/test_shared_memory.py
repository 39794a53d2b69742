"""What two ends of a pair of pipes say to each other; exchanges are tested with the collectives."""

import os
from datetime import timedelta

import pytest

from sharpen.train.shared_memory import SharedMemory, create_file


@pytest.fixture
def ends():
    """Two ranks' memories, in one process."""
    pipes = [os.pipe(), os.pipe()]
    found = [
        SharedMemory(
            [create_file("a"), create_file("b")],
            {},
            {1 - rank: pipes[rank][0]},
            {1 - rank: pipes[1 - rank][1]},
            timedelta(milliseconds=20),
        )
        for rank in range(2)
    ]
    yield found
    for memory in found:
        memory.close()


def test_numbers_arrive_in_order(ends):
    first, second = ends
    for number in (0, 1 << 40, 7):
        first.tell({1: number})
    assert [second.hear(0) for _ in range(3)] == [0, 1 << 40, 7]


def test_a_silent_rank_is_waited_for_and_no_longer(ends):
    with pytest.raises(RuntimeError, match=r"rank 1 of the group said nothing for 0:00:00\.02"):
        ends[0].hear(1)


def test_a_rank_that_has_ended_is_named(ends):
    ends[0].tell({1: 3})
    ends[1].close()
    with pytest.raises(RuntimeError, match="rank 1 of the group has ended"):
        ends[0].hear(1)
    with pytest.raises(RuntimeError, match="rank 1 of the group has ended"):
        ends[0].tell({1: 4})


def test_a_rank_that_ended_is_heard_out(ends):
    ends[1].tell({0: 5})
    ends[1].close()
    assert ends[0].hear(1) == 5
