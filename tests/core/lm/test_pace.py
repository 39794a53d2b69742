from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.lm.pace import MinuteLimit, backoff_s, retry_after_s

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.floats(0, 20), st.integers(1, 8)), min_size=1, max_size=60),
)
def test_no_minute_has_more_than_the_limit(limit: int, asked: list[tuple[float, int]]) -> None:
    now = 0.0
    pace = MinuteLimit(limit, lambda: now)
    sent: list[tuple[float, int]] = []
    for pause, amount in asked:
        now += pause
        sent.append((now + pace.reserve(amount), min(amount, limit)))
    times = [when for when, _ in sent]
    assert times == pytest.approx(sorted(times), abs=1e-6)
    for end in times:
        inside = sum(much for when, much in sent if end - 60 + 1e-6 < when <= end)
        assert inside <= limit


def test_nothing_waits_while_there_is_room() -> None:
    now = 0.0
    pace = MinuteLimit(3, lambda: now)
    assert [pace.reserve() for _ in range(5)] == [0, 0, 0, 60, 60]
    now = 121.0
    assert pace.reserve() == 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        ("0.25", 0.25),
        ("-1", 0.0),
        ("Sun, 01 Mar 2026 12:00:07 GMT", 7.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
    ],
)
def test_servers_say_when_to_come_back(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, NOW) == seconds


def test_waits_grow_up_to_a_cap() -> None:
    for failures in range(1, 12):
        drawn = [backoff_s(failures, 0.5) for _ in range(200)]
        most = min(30.0, 0.5 * 2 ** (failures - 1))
        assert 0 <= min(drawn) < 0.2 * most
        assert 0.8 * most < max(drawn) <= most
