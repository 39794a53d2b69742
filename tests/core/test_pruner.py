import pytest

from sharpen.core.errors import ConfigError
from sharpen.core.pruner import Median

OTHERS = [[(1, 1.0), (2, 3.0)], [(1, 2.0), (2, 2.0)], [(1, 3.0), (2, 9.0)], [(1, 4.0)]]


@pytest.mark.parametrize(
    ("curve", "stop"),
    [
        ([(1, 2.5)], False),  # the means at step 1 are 1, 2, 3, 4: the median is 2.5
        ([(1, 2.6)], True),
        ([(1, 9.0), (2, 3.0)], False),  # at step 2 they are 2, 2, 6, 4: the median is 3
        ([(1, 9.0), (2, 3.1)], True),
        ([(1, 2.0), (2, 99.0)], False),  # the best so far counts
    ],
)
def test_stops_what_is_worse_than_the_median_of_means(
    curve: list[tuple[int, float]], stop: bool
) -> None:
    assert Median().should_stop(curve, OTHERS) is stop


def test_waits_for_enough_trials_and_steps() -> None:
    assert not Median(min_trials=5).should_stop([(2, 99.0)], OTHERS)
    assert not Median(warmup_steps=2).should_stop([(2, 99.0)], OTHERS)
    assert Median(warmup_steps=1).should_stop([(2, 99.0)], OTHERS)
    assert not Median().should_stop([(0, 99.0)], OTHERS)
    with pytest.raises(ConfigError, match="min_trials=0"):
        Median(min_trials=0)
