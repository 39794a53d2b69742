import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError
from sharpen.optim.schedules import Schedule


def test_cosine_goes_from_warm_up_over_the_peak_to_the_floor() -> None:
    schedule = Schedule(steps=110, kind="cosine", warmup=10, min_ratio=0.1)
    assert [schedule.factor(t) for t in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    middle = 0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2
    assert schedule.factor(60) == pytest.approx(middle)
    assert schedule.factor(110) == pytest.approx(0.1)
    assert schedule.factor(10_000) == pytest.approx(0.1)


def test_linear_and_constant_and_wsd_follow_their_formulas() -> None:
    linear = Schedule(steps=100, kind="linear", warmup=0, min_ratio=0.0)
    assert [linear.factor(t) for t in (0, 25, 100)] == pytest.approx([1.0, 0.75, 0.0])
    constant = Schedule(steps=100, kind="constant", warmup=0)
    assert {constant.factor(t) for t in range(200)} == {1.0}
    wsd = Schedule(steps=100, kind="wsd", warmup=0, min_ratio=0.2, decay_frac=0.4)
    assert [wsd.factor(t) for t in (0, 60, 80, 100)] == pytest.approx([1.0, 1.0, 0.6, 0.2])


@given(
    steps=st.integers(1, 500),
    kind=st.sampled_from(["cosine", "linear", "wsd", "constant"]),
    warmup=st.floats(0, 0.9),
    floor=st.floats(0, 1),
)
def test_factors_stay_between_nothing_and_the_peak(
    steps: int, kind: str, warmup: float, floor: float
) -> None:
    schedule = Schedule(steps=steps, kind=kind, warmup=warmup, min_ratio=floor)  # type: ignore[arg-type]
    factors = [schedule.factor(t) for t in range(steps + 1)]
    assert all(0 < f <= 1 + 1e-12 or f == floor == 0 for f in factors[:-1])
    after = factors[schedule.warmup_steps :]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(after))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"warmup": -1}, "warmup=-1"),
        ({"warmup": 11}, "warmup=11"),
        ({"min_ratio": 1.5}, "min_ratio=1.5"),
        ({"decay_frac": 0.0}, r"decay_frac=0\.0"),
    ],
)
def test_impossible_schedules_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schedule(**{"steps": 10, **changes})  # type: ignore[arg-type]
