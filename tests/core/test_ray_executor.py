import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

import sharpen as sh
from executor_trials import act, go
from sharpen.core.errors import ConfigError, DependencyNotInstalled, ExecutionError
from sharpen.core.problem import TrialContext
from sharpen.core.ray_executor import Ray

pytestmark = [
    pytest.mark.slow,
    pytest.mark.peer,
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture
def executor() -> Iterator[Ray]:
    made = Ray(timeout_s=20.0)
    yield made
    made.close()
    assert ray.is_initialized()  # the cluster was not its own


def test_trials_are_tasks_and_what_goes_wrong_costs_one(executor: Ray) -> None:
    executor.open(act)
    assert executor.slots == 2
    ended = go(executor, [(1.0, "ok"), (2.0, "raise"), (3.0, "kill"), (4.0, "ok")])
    assert [ended[n].status for n in range(4)] == ["ok", "failed", "failed", "ok"]
    assert ended[0].objectives == {"y": 1.0}
    assert ended[3].info["seed"] == 103
    assert ended[3].info["pid"] != os.getpid()
    assert "RuntimeError: on purpose" in str(ended[1].error)
    assert ended[2].info == {"killed": True}


def test_reports_come_here_and_answers_go_there(executor: Ray) -> None:
    executor.open(act)
    seen: list[int] = []

    def answer(number: int, point: Any) -> Any:
        seen.append(point.step)
        return "stop" if point.step >= 3 else "continue"

    ended = go(executor, [(1.0, "say")], answer)
    assert ended[0].status == "pruned"
    assert seen[:4] == [0, 1, 2, 3]
    assert 4 <= len(ended[0].trace) < 600


def test_what_takes_too_long_is_killed() -> None:
    executor = Ray(1, timeout_s=1.0)
    executor.open(act)
    begin = time.monotonic()
    ended = go(executor, [(1.0, "hang")])
    executor.close()
    assert ended[0].status == "timeout"
    assert "took more than 1 seconds" in str(ended[0].error)
    assert time.monotonic() - begin < 30


def test_a_study_runs_on_a_cluster_and_begins_a_killed_trial_again(tmp_path: Path) -> None:
    folder = tmp_path

    def once(config: dict[str, Any], trial: TrialContext) -> float:
        mark = folder / str(trial.number)
        if trial.number == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return float(config["x"])

    problem = sh.problem(sh.Space(x=sh.Float(0, 1)), once, minimize="y")
    study = sh.Study(
        problem,
        optimizer="random",
        store=tmp_path / "s.db",
        budget=sh.Budget(trials=8),
        executor=Ray(),
    ).run()
    assert study.counts() == {"ok": 8}
    assert [trial.attempt for trial in study.trials()] == [1, 1, 1, 2, 1, 1, 1, 1]


def test_a_cluster_without_room_and_wrong_options_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ExecutionError, match="no room for a trial"):
        Ray(resources={"num_gpus": 1}).open(act)
    with pytest.raises(ConfigError, match="workers must be at least 1"):
        Ray(0)
    with pytest.raises(ConfigError, match="timeout_s must be positive"):
        Ray(timeout_s=0)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(DependencyNotInstalled, match="ray"):
        Ray()
