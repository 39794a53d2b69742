import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sharpen.core.errors import ConfigError
from sharpen.optim import schedules
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


def test_inverse_square_root_falls_from_the_end_of_warm_up_to_the_floor() -> None:
    schedule = Schedule(steps=10_000, kind="inv_sqrt", warmup=100, min_ratio=0.2)
    found = [schedule.factor(t) for t in (49, 99, 399, 10_000)]
    assert found == pytest.approx([0.5, 1.0, 0.5, 0.2])


def _rates(scheduler: torch.optim.lr_scheduler.LRScheduler, count: int) -> list[float]:
    rates = []
    for _ in range(count):
        rates.append(float(scheduler.get_last_lr()[0]))
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def _sgd(lr: float = 2.0) -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=lr)


@pytest.mark.parametrize(("steps", "warmup"), [(50, 15), (41, 3), (10, 2)])
def test_one_cycle_is_that_of_torch(steps: int, warmup: int) -> None:
    peer = torch.optim.lr_scheduler.OneCycleLR(
        _sgd(), 2.0, total_steps=steps, pct_start=warmup / steps, cycle_momentum=False
    )
    expected = _rates(peer, steps - 1)
    ours = schedules.one_cycle(_sgd(), steps, warmup)
    assert _rates(ours, steps - 1) == pytest.approx(expected, rel=1e-9)
    assert ours.get_last_lr()[0] == pytest.approx(2.0 / 25 / 1e4)


@pytest.mark.parametrize(
    ("make", "kind", "options"),
    [
        (schedules.warmup_cosine, "cosine", {"warmup": 4, "min_ratio": 0.2}),
        (schedules.warmup_linear, "linear", {"warmup": 0.25, "min_ratio": 0.0}),
        (schedules.wsd, "wsd", {"warmup": 2, "min_ratio": 0.1, "decay_frac": 0.5}),
        (schedules.inv_sqrt, "inv_sqrt", {"warmup": 5, "min_ratio": 0.0}),
        (schedules.one_cycle, "one_cycle", {"warmup": 0.3, "min_ratio": 0.1}),
    ],
)
def test_schedulers_give_the_factors_of_their_schedules(
    make: Any, kind: Any, options: dict[str, float]
) -> None:
    schedule = Schedule(steps=20, kind=kind, **options)
    expected = [2.0 * schedule.factor(t) for t in range(25)]
    assert _rates(make(_sgd(), 20, **options), 25) == pytest.approx(expected)


def test_a_constant_rate_needs_no_number_of_steps() -> None:
    assert _rates(schedules.constant(_sgd(), warmup=2), 4) == [1.0, 2.0, 2.0, 2.0]
    assert _rates(schedules.constant(_sgd()), 3) == [2.0] * 3


@given(
    steps=st.integers(1, 500),
    kind=st.sampled_from(["cosine", "linear", "wsd", "constant", "inv_sqrt", "one_cycle"]),
    warmup=st.floats(0, 0.9),
    floor=st.floats(0, 1),
)
def test_factors_stay_between_nothing_and_the_peak(
    steps: int, kind: str, warmup: float, floor: float
) -> None:
    schedule = Schedule(steps=steps, kind=kind, warmup=warmup, min_ratio=floor)  # type: ignore[arg-type]
    factors = [schedule.factor(t) for t in range(steps + 1)]
    assert all(0 < f <= 1 + 1e-12 or f == floor == 0 for f in factors[:-1])
    after = factors[max(schedule.warmup_steps - 1, 0) :]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(after))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"kind": "cosin"}, "kind='cosin'"),
        ({"warmup": -1}, "warmup=-1"),
        ({"warmup": 11}, "warmup=11"),
        ({"min_ratio": 1.5}, "min_ratio=1.5"),
        ({"decay_frac": 0.0}, r"decay_frac=0\.0"),
    ],
)
def test_impossible_schedules_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schedule(**{"steps": 10, **changes})
