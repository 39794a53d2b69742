import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import psutil
import pytest

from executor_trials import SPACE, act, go
from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.core.executor import Inline, Job, Local
from sharpen.core.feedback import TracePoint
from sharpen.core.problem import Answer, TrialContext, problem
from sharpen.core.trial_worker import serve_trials


@pytest.fixture(params=["fresh", "forked"])
def either(request: pytest.FixtureRequest) -> Any:
    """The same problem, importable or defined inside a function."""
    if request.param == "fresh":
        return act
    inner = act.function
    return problem(SPACE, lambda config, trial: inner(config, trial), minimize="y")


def test_workers_run_trials_in_processes_of_their_own(either: Any) -> None:
    executor = Local(2)
    executor.open(either)
    try:
        ended = go(executor, [(float(i), "ok") for i in range(6)])
        assert {n: f.objectives["y"] for n, f in ended.items()} == {i: i**2 for i in range(6)}
        assert {n: f.info["seed"] for n, f in ended.items()} == {i: 100 + i for i in range(6)}
        pids = {f.info["pid"] for f in ended.values()}
        assert 1 <= len(pids) <= 2
        assert os.getpid() not in pids
    finally:
        executor.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_failure_costs_one_trial_and_the_next_gets_a_new_worker(either: Any) -> None:
    executor = Local(1, timeout_s=1.0, memory_bytes=4 << 30)
    executor.open(either)
    try:
        ended = go(
            executor,
            [(1, "ok"), (1, "raise"), (1, "kill"), (1, "exit"), (1, "eat"), (1, "hang"), (2, "ok")],
        )
    finally:
        executor.close()
    assert [ended[i].status for i in range(7)] == [
        *["ok", "failed", "failed", "failed", "failed", "timeout", "ok"]
    ]
    assert "RuntimeError: on purpose" in str(ended[1].error)
    assert "SIGKILL" in str(ended[2].error)
    assert "exit code 7" in str(ended[3].error)
    assert "MemoryError" in str(ended[4].error)
    assert "more than 1 seconds" in str(ended[5].error)


def test_reports_reach_the_parent_and_its_answer_stops_the_trial(
    capfd: pytest.CaptureFixture[str],
) -> None:
    seen: list[tuple[int, int]] = []

    def on_report(number: int, point: TracePoint) -> Answer:
        seen.append((number, point.step))
        return "stop" if point.step == 3 else "continue"

    for executor in (Local(1), Inline()):
        seen.clear()
        executor.open(act)
        ended = go(executor, [(1, "say")], on_report)
        executor.close()
        assert seen == [(0, 0), (0, 1), (0, 2), (0, 3)]
        assert ended[0].status == "pruned"
        assert [p.value for p in ended[0].trace] == [0.0, 1.0, 2.0, 3.0]
        if isinstance(executor, Local):
            assert "this goes to standard error" not in capfd.readouterr().out


def test_closing_kills_what_runs(tmp_path: Path) -> None:
    executor = Local(1)
    executor.open(act)
    executor.submit(Job(number=0, config={"x": 1.0, "act": "hang"}, seed=0))
    assert executor.poll(0.3, lambda number, point: "continue") == []
    pids = [worker.process.pid for worker in executor._workers]
    executor.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


class Unloadable:
    name, space, constraints = "u", SPACE, ()
    objectives = act.objectives

    def __init__(self, load: Callable[[], None]) -> None:
        self.load = load

    def evaluate(self, config: dict[str, Any], trial: TrialContext) -> float:
        return 0.0

    def __reduce__(self) -> Any:
        return self.load, ()


def _raise() -> None:
    raise ValueError("cannot be loaded")


def _die() -> None:
    os._exit(3)


def test_a_problem_that_a_worker_cannot_load_is_an_error() -> None:
    executor = Local(1)
    executor.open(Unloadable(_raise))
    try:
        with pytest.raises(ExecutionError, match=r"cannot load the problem(.|\n)*cannot be loaded"):
            go(executor, [(1, "ok")])
    finally:
        executor.close()


def test_workers_that_die_at_once_are_an_error() -> None:
    executor = Local(1)
    executor.open(Unloadable(_die))
    try:
        with pytest.raises(ExecutionError, match="cannot be started: they ended with code 3"):
            go(executor, [(1, "ok")] * 5)
    finally:
        executor.close()


@pytest.mark.parametrize(
    "options", [{"workers": 0}, {"timeout_s": 0.0}, {"memory_bytes": 0}], ids=str
)
def test_wrong_limits_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Local(**options)


def test_a_worker_serves_until_its_pipe_closes() -> None:
    ours, theirs = Pipe()
    thread = threading.Thread(target=serve_trials, args=(theirs, act))
    thread.start()
    assert ours.recv()[0] == "ready"
    ours.send(Job(number=4, config={"x": 3.0, "act": "say"}, seed=9))
    kind, point = ours.recv()
    assert (kind, point.value) == ("report", 0.0)
    ours.send("stop")
    kind, feedback = ours.recv()
    assert (kind, feedback.status, feedback.objectives) == ("result", "pruned", {"y": 9.0})
    ours.close()
    thread.join(timeout=10)
    assert not thread.is_alive()
    theirs.close()
