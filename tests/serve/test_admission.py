import pytest

from sharpen.core.errors import BusyError, ConfigError
from sharpen.serve.admission import Admission, OverloadedError, QueueLimits


def refusal(admission, count=1, tokens=10, waiting=1, free=0):
    with pytest.raises(OverloadedError) as caught:
        admission.check(count, tokens, waiting, free)
    assert isinstance(caught.value, BusyError)
    return caught.value


def test_what_can_start_at_once_is_never_refused():
    admission = Admission(QueueLimits(requests=0, tokens=1, seconds=0))
    admission.check(2, 1000, waiting=0, free=2)
    assert refusal(admission, count=3, waiting=0, free=2).reason == "queue_full"


def test_requests_are_counted():
    admission = Admission(QueueLimits(requests=3))
    admission.check(2, 10, waiting=1, free=0)
    assert refusal(admission, count=3).reason == "queue_full"


def test_tokens_of_prompts_that_wait_are_bounded_but_one_may_always_wait():
    admission = Admission(QueueLimits(tokens=100))
    admission.check(1, 5000, waiting=0, free=0)
    admission.enter("a", 90, 10)
    admission.check(1, 10, waiting=1, free=0)
    assert refusal(admission, tokens=11).reason == "queue_tokens"
    admission.leave("a")
    admission.leave("a")
    admission.check(1, 11, waiting=0, free=0)


def test_the_wait_is_work_over_speed():
    admission = Admission(QueueLimits(seconds=2.5))
    admission.enter("a", 60, 40)
    admission.check(1, 10, waiting=1, free=0)  # nothing is known of the speed yet
    admission.computed(50, 1.0)
    assert admission.wait_s == 2.0
    admission.check(1, 10, waiting=1, free=0)
    admission.enter("b", 300, 1)
    error = refusal(admission)
    assert (error.reason, error.retry_after_s) == ("queue_timeout", 6)
    assert "about 8 s" in str(error)
    admission.leave("b")
    admission.check(1, 10, waiting=1, free=0)


def test_long_limits_count_as_answers_were():
    admission = Admission()
    for _ in range(200):
        admission.answered(20)
    admission.computed(100, 1.0)
    admission.enter("a", 80, 1_000_000)
    assert admission.wait_s == pytest.approx(1.0, abs=0.02)
    for _ in range(200):
        admission.computed(200, 1.0)
    assert admission.wait_s == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    "settings", [{"requests": -1}, {"tokens": 0}, {"seconds": -1}, {"seconds": float("nan")}]
)
def test_limits_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError):
        QueueLimits(**settings)
