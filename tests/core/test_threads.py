import threading
import time
from typing import Any

import pytest

import sharpen as sh
from sharpen.core.errors import ConfigError
from sharpen.core.executor import Job
from sharpen.core.executors import make_executor
from sharpen.core.problem import TrialContext
from sharpen.core.threads import Threads

SPACE = sh.Space(x=sh.Float(0, 10))


def test_trials_wait_side_by_side_in_this_process(tmp_path: Any) -> None:
    both = threading.Barrier(4, timeout=30)

    def wait(config: dict[str, Any]) -> float:
        both.wait()
        return float(config["x"])

    problem = sh.problem(SPACE, wait, minimize="y")
    study = sh.Study(
        problem,
        optimizer="sobol",
        store=tmp_path / "s.db",
        budget=sh.Budget(trials=8),
        executor=Threads(4),
    ).run()
    assert study.counts() == {"ok": 8}
    alone = sh.Study(
        sh.problem(SPACE, lambda c: c["x"], minimize="y"),
        optimizer="sobol",
        store=tmp_path / "alone.db",
        budget=sh.Budget(trials=8),
    ).run()
    assert {t.config["x"] for t in study.trials()} == {t.config["x"] for t in alone.trials()}


def test_reports_are_answered_and_errors_cost_one_trial() -> None:
    def climb(config: dict[str, Any], trial: TrialContext) -> float:
        if config["x"] > 5:
            raise LookupError("above five")
        for step in range(100):
            if trial.report(step, config["x"] + step) == "stop":
                break
        return float(config["x"])

    threads = Threads(3)
    threads.open(sh.problem(SPACE, climb, minimize="y"))
    for number, x in enumerate((1.0, 2.0, 6.0)):
        threads.submit(Job(number=number, config={"x": x}, seed=number))
    heard: list[int] = []

    def answer(number: int, point: Any) -> Any:
        heard.append(threading.get_ident())
        return "stop" if number == 1 and point.step == 4 else "continue"

    ended: dict[int, Any] = {}
    while len(ended) < 3:
        ended.update(threads.poll(10.0, answer))
    assert [ended[n].status for n in range(3)] == ["ok", "pruned", "failed"]
    assert len(ended[0].trace) == 100
    assert len(ended[1].trace) == 5
    assert "LookupError: above five" in ended[2].error
    assert set(heard) == {threading.get_ident()}
    assert threads.poll(0.0, answer) == []
    threads.close()


def test_closing_stops_trials_at_their_next_report() -> None:
    left = threading.Event()

    def forever(config: dict[str, Any], trial: TrialContext) -> float:
        step = 0
        while trial.report(step, 0.0) == "continue":
            step += 1
            time.sleep(0.01)
        left.set()
        return 0.0

    threads = Threads(1)
    threads.open(sh.problem(SPACE, forever, minimize="y"))
    threads.submit(Job(number=0, config={"x": 1.0}, seed=0))
    assert threads.poll(0.2, lambda number, point: "continue") == []
    threads.close()
    assert left.wait(10)


def test_no_threads_are_refused() -> None:
    with pytest.raises(ConfigError, match="workers must be at least 1"):
        Threads(0)


@pytest.mark.parametrize(
    ("given", "limits", "message"),
    [
        ("locale", {}, "executor must be one of local, ray, threads, got 'locale'"),
        ({"address": "auto"}, {}, "executor must be one of"),
        ("threads", {"timeout_s": 3.0}, "the executor 'threads' keeps no timeout_s"),
        ({"name": "threads", "address": "x"}, {}, "'threads' has no option 'address'"),
        ({"name": "ray", "adress": "x"}, {}, "It has: address, resources"),
        ({"name": "ray"}, {"memory_bytes": 1 << 30}, "the executor 'ray' keeps no memory_bytes"),
    ],
)
def test_executors_by_name_refuse_what_they_cannot(
    given: Any, limits: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_executor(given, workers=1, **limits)


def test_executors_by_name() -> None:
    local = make_executor("local", workers=3, timeout_s=2.0)
    assert isinstance(local, sh.Local)
    assert (local.slots, local.timeout_s) == (3, 2.0)
    assert make_executor({"name": "threads"}, workers=2).slots == 2
