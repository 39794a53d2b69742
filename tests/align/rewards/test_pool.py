import multiprocessing
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from sample_rewards import Counted, sample
from sharpen.align.rewards import RewardPool, Rewards
from sharpen.core.errors import ConfigError, DataError, ExecutionError

WORDS = ["good", "nan", "inf", "drop", "text", "true", "raise", "short"]
REASONS = ["", "not finite", "not finite", "dropped", "wrong type", "", "raised", "wrong length"]


def score(pool: RewardPool, words: Sequence[str], **options: Any) -> Rewards:
    return pool.score([""] * len(words), list(words), **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_no_number_has_a_reason(workers: int) -> None:
    with RewardPool(sample, workers=workers) as pool:
        found = score(pool, WORDS)
        assert found.values == [4.0, None, None, None, None, 1.0, None, None]
        assert found.reasons == REASONS
        assert "on purpose" in found.error
        assert score(pool, ["scalar"]).reasons == ["wrong type"]
        assert pool.stats.missing["not finite"] == 2
        assert pool.stats.samples == len(WORDS) + 1
        assert score(pool, []).values == []


def test_a_hang_and_a_crash_take_nobody_with_them(tmp_path: Path) -> None:
    words = ["a", "hang", "bb", "crash", "ccc", f"crash-once {tmp_path / 'mark'}", "dddd"]
    with RewardPool(sample, workers=2, deadline_s=1.5) as pool:
        found = score(pool, words)
        assert found.values == [1, None, 2, None, 3, 1, 4]
        assert found.reasons == ["", "deadline", "", "crashed", "", "", ""]
        assert pool.stats.retried == 2  # each crash once
        assert pool.stats.missing == {"deadline": 1, "crashed": 1}


def test_a_chunk_that_fails_is_tried_sample_by_sample() -> None:
    words = ["a", "raise", "bb", "crash", "ccc", "dddd", "hang", "e"]
    with RewardPool(sample, workers=2, deadline_s=1.5, chunk=4) as pool:
        found = score(pool, words)
        assert found.values == [1, None, 2, None, 3, 4, None, 1]
        assert found.reasons == ["", "raised", "", "crashed", "", "", "deadline", ""]
    with RewardPool(sample, workers=0, chunk=4) as pool:
        assert score(pool, ["a", "raise", "bb"]).values == [1, None, 2]
        assert pool.stats.calls == 4


def test_submit_returns_at_once_and_results_keep_their_order() -> None:
    with RewardPool(sample, workers=2, deadline_s=1.5) as pool:
        first = pool.submit(["", ""], ["hang", "abc"])
        second = pool.submit([""] * 20, ["x" * i for i in range(1, 21)])
        assert not first.done()
        assert second.result().values == list(range(1, 21))
        assert first.result().values == [None, 3]


def test_results_may_be_taken_before_all_are_there() -> None:
    with RewardPool(sample, workers=1, deadline_s=60) as pool:
        score(pool, ["warm"])
        found = score(pool, ["a", "hang", "b"], timeout_s=2.0)
        assert found.values == [1, None, None]
        assert found.reasons == ["", "deadline", "deadline"]
        assert pool.stats.waited_s >= 2.0


def test_what_nobody_waits_for_is_not_computed(tmp_path: Path) -> None:
    file = tmp_path / "calls"
    file.write_text("")
    with RewardPool(Counted(file=str(file), pause_s=0.3), workers=1) as pool:
        late = pool.submit([""] * 3, ["a", "bb", "ccc"])
        assert late.result(0.0).reasons == ["deadline"] * 3
        assert score(pool, ["ccc"]).values == [3]
    assert set(file.read_text().split()) <= {"a", "ccc"}


def test_what_is_known_is_not_computed_again(tmp_path: Path) -> None:
    file = tmp_path / "calls"
    for workers in (0, 2):
        file.write_text("")
        reward = Counted(file=str(file), pause_s=0.1)
        with RewardPool(reward, workers=workers) as pool:
            both = [pool.submit([""] * 4, ["a", "bb", "a", "a"]) for _ in range(2)]
            assert [one.result().values for one in both] == [[1, 2, 1, 1]] * 2
            assert score(pool, ["bb", "ccc"]).values == [2, 3]
            assert pool.stats.known == 7 if workers else 5
        if workers:
            assert sorted(file.read_text().split()) == ["a", "bb", "ccc"]


def test_functions_of_this_place_run_in_copies_of_this_process() -> None:
    table = {"x": 7.0}

    def local(prompts: Any, completions: Any, meta: Any) -> list[float]:
        assert multiprocessing.current_process().name != "MainProcess"
        return [table[text] for text in completions]

    with RewardPool(local, workers=1) as pool:
        assert score(pool, ["x"]).values == [7.0]


def eventually(what: Callable[[], bool], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def test_closing_leaves_no_process_and_lets_nobody_wait() -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}

    def others() -> set[int]:
        return {child.pid for child in psutil.Process().children(recursive=True)} - before

    pool = RewardPool(sample, workers=2, deadline_s=60)
    pending = pool.submit([""] * 4, ["hang", "hang", "a", "b"])
    assert eventually(lambda: len(others()) == 2)
    found: list[Rewards] = []
    waiter = threading.Thread(target=lambda: found.append(pending.result()))
    waiter.start()
    pool.close()
    pool.close()
    waiter.join(10)
    assert found[0].reasons == ["closed"] * 4
    assert eventually(lambda: not others())
    with pytest.raises(ConfigError, match="closed"):
        score(pool, ["a"])


def test_a_reward_that_workers_cannot_load_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "rules.py"
    file.write_text("def good(prompts, completions, meta):\n    return [1.0] * len(prompts)\n")
    with RewardPool(f"{file}:good", workers=1) as pool:
        file.write_text("raise RuntimeError('gone')\n")
        with pytest.raises(ExecutionError, match="gone"):
            score(pool, ["a"])
        with pytest.raises(ExecutionError, match="gone"):
            score(pool, ["a"])


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="workers=-1"):
        RewardPool(sample, workers=-1)
    with RewardPool(sample, workers=0) as pool, pytest.raises(DataError, match="1 prompts, 2"):
        pool.submit(["a"], ["b", "c"])
