import json
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

import sharpen as sh
from sharpen.core.errors import ConfigError, ExecutionError, Interrupted, MissingFileError
from sharpen.core.executor import Inline
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.problem import TrialContext
from sharpen.core.pruner import Median
from sharpen.core.store import open_store
from sharpen.core.study import Budget, Study
from sharpen.core.study_view import _non_dominated, load_study
from sharpen.search import Random

SPACE = sh.Space(x=sh.Float(-5, 5), n=sh.Int(1, 4), kind=sh.Categorical("a", "b"))


@sh.problem(SPACE, minimize="loss", constraints=["memory <= 3"])
def bowl(config: dict[str, Any]) -> dict[str, float]:
    return {"loss": config["x"] ** 2 + config["n"], "memory": config["n"]}


def make(problem: Any = bowl, **options: Any) -> Study:
    options = {"store": "sqlite://", "optimizer": "random", "budget": Budget(trials=20), **options}
    return Study(problem, **options)


def test_the_best_is_the_lowest_feasible_value() -> None:
    study = make(budget=Budget(trials=60)).run()
    trials = study.trials()
    assert [t.number for t in trials] == list(range(60))
    feasible = [t for t in trials if t.config["n"] <= 3]
    assert [t for t in trials if t.feasible] == feasible
    assert study.best == min(feasible, key=lambda t: t.value)
    assert study.best.value == study.best.config["x"] ** 2 + study.best.config["n"]
    assert study.counts() == {"ok": 60}


def test_a_maximized_objective_is_the_mirror_image_of_a_minimized_one() -> None:
    up = sh.problem(SPACE, lambda c: {"gain": -(c["x"] ** 2)}, maximize="gain", name="up")
    down = sh.problem(SPACE, lambda c: {"loss": c["x"] ** 2}, minimize="loss", name="down")
    first, second = make(up).run().best, make(down).run().best
    assert first.config == second.config
    assert first.value == -second.value


def test_the_pareto_set_is_what_no_trial_beats() -> None:
    space = sh.Space(x=sh.Float(0, 1), y=sh.Float(0, 1))
    both = sh.problem(space, lambda c: (c["x"], c["y"]), minimize="a", maximize="b", name="two")
    study = make(both, budget=Budget(trials=80)).run()
    front = {t.number for t in study.pareto()}
    values = {t.number: (t.values["a"], -t.values["b"]) for t in study.trials()}
    for number, (a, b) in values.items():
        beaten = any(p <= a and q <= b and (p, q) != (a, b) for p, q in values.values())
        assert (number in front) == (not beaten)
    with pytest.raises(ConfigError, match="use pareto"):
        _ = study.best


@given(
    st.lists(
        st.lists(st.integers(0, 4), min_size=3, max_size=3).map(tuple), min_size=1, max_size=25
    )
)
def test_non_dominated_rows_are_those_of_brute_force(rows: list[tuple[int, ...]]) -> None:
    def dominates(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        return all(p <= q for p, q in zip(a, b, strict=True)) and a != b

    expected = [i for i, row in enumerate(rows) if not any(dominates(o, row) for o in rows)]
    assert _non_dominated(np.array(rows, dtype=float)) == expected


@pytest.mark.parametrize("workers", [None, 2])
def test_stopping_and_resuming_gives_the_same_trials_as_one_run(
    tmp_path: Path, workers: int | None
) -> None:
    problem = sh.problem(SPACE, lambda c: c["x"] ** 2 + c["n"], minimize="loss", name="bowl")
    whole = make(problem, optimizer="sobol").run()
    for trials in (5, 12, 20):
        part = make(
            problem,
            optimizer="sobol",
            store=tmp_path / "s.db",
            budget=Budget(trials=trials),
            workers=workers,
        ).run()
        assert len(part.trials()) == trials
    assert [t.config for t in part.trials()] == [t.config for t in whole.trials()]
    assert part.best.config == whole.best.config


def test_each_trial_has_a_seed_of_its_own_that_does_not_change() -> None:
    seen: list[int] = []

    def objective(config: dict[str, Any], trial: TrialContext) -> float:
        seen.append(trial.seed)
        return 0.0

    problem = sh.problem(SPACE, objective, minimize="y")
    study = make(problem).run()
    assert seen == [t.seed for t in study.trials()]
    assert len(set(seen)) == 20
    make(problem).run()
    assert seen[:20] == seen[20:]
    make(problem, seed=1).run()
    assert not set(seen[:20]) & set(seen[40:])


def test_failures_are_kept_with_their_traceback_and_count_against_the_budget() -> None:
    def flaky(config: dict[str, Any]) -> float:
        if config["kind"] == "b":
            raise LookupError("kind b is broken")
        return float("nan") if config["n"] == 4 else config["x"]

    study = make(sh.problem(SPACE, flaky, minimize="y")).run()
    counts = study.counts()
    assert sum(counts.values()) == 20
    for trial in study.trials():
        assert trial.feedback is not None
        if trial.config["kind"] == "b":
            assert "LookupError: kind b is broken" in str(trial.feedback.error)
            assert "in flaky" in str(trial.feedback.error)
        elif trial.config["n"] == 4:
            assert "not finite" in str(trial.feedback.error)
        else:
            assert trial.state == "ok"
    assert study.best.config["kind"] == "a"


def test_a_study_whose_first_trials_all_fail_stops_and_says_why() -> None:
    def broken(config: dict[str, Any]) -> float:
        raise KeyError("lr")

    study = make(sh.problem(SPACE, broken, minimize="y"))
    with pytest.raises(ExecutionError, match=r"first 5 trials(.|\n)*KeyError: 'lr'"):
        study.run()
    assert study.counts() == {"failed": 5}
    with pytest.raises(ExecutionError, match=r"none ended well and feasible.*KeyError: 'lr'"):
        _ = study.best
    assert study.pareto() == []


def test_an_equal_configuration_is_not_measured_twice_unless_asked_to() -> None:
    space = sh.Space(kind=sh.Categorical("a", "b", "c"))
    calls: list[str] = []

    def objective(config: dict[str, Any]) -> float:
        calls.append(config["kind"])
        return float(len(calls))

    problem = sh.problem(space, objective, minimize="y")
    study = make(problem).run()
    assert sorted(calls) == ["a", "b", "c"]
    for trial in study.trials():
        first = next(t for t in study.trials() if t.config == trial.config)
        assert trial.value == first.value
        assert trial.feedback is not None
        assert trial.feedback.info.get("same_as", first.number) == first.number
    make(problem, dedup="reevaluate").run()
    assert len(calls) == 23


def test_a_budget_ends_at_its_first_limit() -> None:
    target = make(budget=Budget(trials=500, target=3.0)).run()
    values = [t.value for t in target.trials() if t.feasible]
    assert values[-1] <= 3.0 < min(values[:-1])
    patient = make(budget=Budget(trials=500, patience=7)).run()
    values = [t.value for t in patient.trials() if t.feasible]
    assert values.index(min(values)) == len(values) - 8
    start = time.monotonic()
    slow = sh.problem(SPACE, lambda c: time.sleep(0.02) or 1.0, minimize="y")
    timed = make(slow, budget=Budget(seconds=0.1)).run()
    assert 1 <= len(timed.trials()) <= 10
    assert time.monotonic() - start >= 0.1


def test_when_time_is_up_running_trials_are_asked_to_stop() -> None:
    def endless(config: dict[str, Any], trial: TrialContext) -> float:
        step = 0
        while trial.report(step, 1.0) == "continue":
            step += 1
            time.sleep(0.005)
        return 1.0

    study = make(sh.problem(SPACE, endless, minimize="y"), budget=Budget(seconds=0.1)).run()
    assert study.counts() == {"pruned": 1}


def test_bad_curves_are_pruned_by_the_median_and_every_point_is_kept() -> None:
    def curve(config: dict[str, Any], trial: TrialContext) -> float:
        for step in range(5):
            if trial.report(step, config["x"] + step) == "stop":
                break
        return float(config["x"])

    study = make(
        sh.problem(SPACE, curve, minimize="y"), pruner="median", budget=Budget(trials=30)
    ).run()
    pruned = [t for t in study.trials() if t.state == "pruned"]
    whole = [t for t in study.trials() if t.state == "ok"]
    assert len(pruned) + len(whole) == 30
    assert len(pruned) >= 5
    assert all(len(t.feedback.trace) == 5 for t in whole if t.feedback)
    assert min(t.config["x"] for t in pruned) > study.best.config["x"]


def test_curves_of_running_trials_are_in_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpen.core.study._TRACE_EVERY_S", 0.0)
    lengths: list[int] = []

    def curve(config: dict[str, Any], trial: TrialContext) -> float:
        trial.report(0, 1.0)
        trial.report(1, 0.5)
        with study.store._database.read() as connection:
            rows = connection.exec_driver_sql("select count(*) from trace")
            lengths.append(int(rows.scalar_one()))
        return 0.0

    study = make(sh.problem(SPACE, curve, minimize="y"), budget=Budget(trials=2))
    study.run()
    assert lengths == [2, 4]


def test_trials_can_be_carried_out_by_hand() -> None:
    study = make(budget=Budget(trials=3))
    assert study.enqueue({"x": 0.5, "n": 1, "kind": "a"}) == [0]
    first = study.ask()
    assert first is not None
    assert (first.config, first.origin) == ({"x": 0.5, "n": 1, "kind": "a"}, "enqueued")
    second = study.ask()
    assert second is not None
    done = study.tell(second, {"loss": 2.0, "memory": 1})
    assert done.values == {"loss": 2.0}
    study.tell(first.number, Feedback(status="failed", error="by hand"))
    with pytest.raises(ConfigError, match="trial 0 waits for no result"):
        study.tell(0, {"loss": 1.0, "memory": 1})
    study.run()
    assert study.counts() == {"ok": 2, "failed": 1}
    assert study.ask() is None
    with pytest.raises(ConfigError, match="n must be an integer"):
        study.enqueue([{"x": 0.0, "n": 1, "kind": "a"}, {"x": 0.0, "n": 9, "kind": "a"}])
    assert len(study.trials()) == 3


def test_an_optimizer_may_be_a_class_or_an_object_and_learns_what_ended() -> None:
    optimizer = Random(SPACE, bowl.objectives, bowl.constraints, seed=4)
    study = make(optimizer=optimizer, seed=4).run()
    assert sorted(optimizer.history) == list(range(19))
    assert [t.config for t in make(optimizer=Random, seed=4).run().trials()] == [
        t.config for t in study.trials()
    ]
    with pytest.raises(ConfigError, match="another space"):
        make(optimizer=Random(sh.Space(x=sh.Float(0, 1))))
    with pytest.raises(ConfigError, match="Did you mean 'random'"):
        make(optimizer="randm")
    with pytest.raises(ConfigError, match="optimizer must be"):
        make(optimizer=3)


def test_an_optimizer_that_fails_leaves_its_number_to_be_asked_again() -> None:
    tight = sh.problem(SPACE.forbid("x >= -5"), lambda c: 0.0, minimize="y", name="tight")
    study = make(tight)
    with pytest.raises(ConfigError, match="feasible volume"):
        study.run()
    assert study.store.study("tight").counts == {"asking": 1}
    claim = study.store.claim(study.id, limit=20, lease_s=60)
    assert claim is not None
    assert claim.number == 0


def test_a_stored_study_must_be_the_same_one(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s.db")
    make(store=store, name="s", budget=Budget(trials=2)).run()
    other = sh.Space(x=sh.Float(-5, 6))
    for problem, what in (
        (sh.problem(other, lambda c: 0.0, minimize="loss"), "space"),
        (sh.problem(SPACE, lambda c: 0.0, maximize="loss"), "objectives"),
        (sh.problem(SPACE, lambda c: 0.0, minimize="loss"), "constraints"),
    ):
        with pytest.raises(ConfigError, match=f"with another {what}"):
            make(problem, store=store, name="s")
    with pytest.raises(ConfigError, match=r"another seed \(stored 0, now 1\)"):
        make(store=store, name="s", seed=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 2, "executor": Inline()}, "not both"),
        ({"dedup": "never"}, "dedup"),
        ({"pruner": "mean"}, "pruner"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**options)
    with pytest.raises(ConfigError, match=r"@sharpen.problem\(space"):
        make(lambda config: 0.0)
    for wrong in ({}, {"trials": 0}, {"seconds": -1.0}, {"patience": 3}):
        with pytest.raises(ConfigError, match="Budget"):
            Budget(**wrong)  # type: ignore[arg-type]
    two = sh.problem(SPACE, lambda c: (0.0, 1.0), minimize=["a", "b"])
    with pytest.raises(ConfigError, match="single objective"):
        make(two, budget=Budget(target=1.0))
    assert isinstance(make(pruner=Median(min_trials=2)).pruner, Median)


def test_an_interrupt_gives_the_trial_back_and_the_same_call_resumes(tmp_path: Path) -> None:
    calls = 0

    def objective(config: dict[str, Any]) -> float:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return float(config["x"])

    problem = sh.problem(SPACE, objective, minimize="y", name="p")
    study = make(problem, store=tmp_path / "s.db", budget=Budget(trials=6))
    with pytest.raises(Interrupted, match=r"keeps its 3 finished trials. Run it again"):
        study.run()
    assert study.counts() == {"ok": 3, "queued": 1}
    study.run()
    assert [(t.number, t.attempt) for t in study.trials()] == [(i, 1) for i in range(6)]
    assert study.counts() == {"ok": 6}


def test_callbacks_see_each_trial_once_it_is_stored() -> None:
    seen: list[tuple[int, int]] = []

    def note(study: Study, trial: Trial) -> None:
        seen.append((trial.number, len(study.trials())))

    make(callbacks=[note], budget=Budget(trials=4)).run()
    assert seen == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_the_heartbeat_renews_leases_of_trials_that_take_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sharpen.core.study._LEASE_S", 0.2)

    def slow(config: dict[str, Any]) -> float:
        time.sleep(0.5)
        other = study.store.claim(study.id, limit=1, lease_s=60)
        return 1.0 if other is None else 2.0

    study = make(sh.problem(SPACE, slow, minimize="y"), budget=Budget(trials=1))
    study.run()
    assert study.best.value == 1.0
    workers = make(
        sh.problem(SPACE, lambda c: time.sleep(0.5) or 1.0, minimize="y"),
        budget=Budget(trials=1),
        workers=1,
    )
    workers.run()
    assert [t.attempt for t in workers.trials()] == [1]


def test_the_frame_has_a_row_a_trial(tmp_path: Path) -> None:
    space = sh.Space(x=sh.Float(0, 1), loss=sh.Int(0, 3).active_if(sh.Gt("x", 0.5)))
    problem = sh.problem(
        space, lambda c: {"loss": c["x"], "m": 1}, minimize="loss", constraints=["m <= 2"]
    )
    study = make(problem).run()
    frame = study.frame()
    assert list(frame.columns) == [
        *["number", "state", "x", "config.loss", "loss", "m", "feasible", "seconds"]
    ]
    assert len(frame) == 20
    assert (frame["x"] == frame["loss"]).all()
    assert frame["config.loss"].isna().sum() == (frame["x"] <= 0.5).sum()
    text = study.export(tmp_path / "t.csv").read_text().splitlines()
    assert text[0].split(",") == list(frame.columns)
    assert len(text) == 21
    rows = [json.loads(r) for r in study.export(tmp_path / "t.jsonl").read_text().splitlines()]
    assert [r["config"] for r in rows] == [t.config for t in study.trials()]
    table = parquet.read_table(study.export(tmp_path / "t.parquet"))
    assert table.column_names == list(frame.columns)
    for name in ("number", "state", "x", "config.loss", "m", "feasible"):
        expected = [None if value != value else value for value in frame[name].tolist()]
        assert table[name].to_pylist() == expected
    with pytest.raises(ConfigError, match=r"must end in .jsonl, .csv or .parquet"):
        study.export(tmp_path / "t.xlsx")


def test_the_report_shows_the_best_the_history_and_failures(tmp_path: Path) -> None:
    def flaky(config: dict[str, Any]) -> dict[str, float]:
        if config["n"] == 4:
            raise LookupError("<n> is four")
        return {"loss": config["x"] ** 2, "memory": config["n"]}

    problem = sh.problem(SPACE, flaky, minimize="loss", constraints=["memory <= 2"], name="flaky")
    study = make(problem).run()
    page = study.report(tmp_path / "study.html").read_text()
    assert f"Trial {study.best.number}: loss = {study.best.value:.6g}." in page
    for part in ("History of loss", "loss by kind", "memory &lt;= 2", "&lt;n&gt; is four"):
        assert part in page
    charts = re.findall(r"Plotly.newPlot\('chart\d+', \.\.\.(\[.*?\]), \{responsive", page)
    (traces, layout), *_ = [json.loads(chart) for chart in charts]
    assert layout["title"]["text"] == "loss by trial"
    best = traces[1]["y"]
    assert best == sorted(best, reverse=True)
    assert best[-1] == study.best.value
    two = sh.problem(SPACE, lambda c: (c["x"], c["n"]), minimize=["a", "b"])
    assert "Pareto set" in make(two).run().report(tmp_path / "two.html").read_text()
    empty = make(name="empty", budget=Budget(trials=1))
    assert "no trials" in empty.report(tmp_path / "empty.html").read_text()


def test_a_stored_study_is_read_without_its_problem(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    study = make(store=path).run()
    view = Study.load(f"sqlite:///{path}", "bowl")
    assert view.trials() == study.trials()
    assert view.summary()["best"] == study.best.to_dict()
    assert view.summary()["trials"] == {"ok": 20}
    assert "bowl" in repr(view)
    with pytest.raises(ConfigError, match="Did you mean 'bowl'"):
        load_study(path, "bow")
    with pytest.raises(MissingFileError):
        load_study(tmp_path / "none.db", "bowl")


SCRIPT = """
import sys, time
import sharpen as sh

space = sh.Space(x=sh.Float(-5, 5), y=sh.Float(-5, 5))

@sh.problem(space, minimize="loss", name="killed")
def objective(config):
    with open(sys.argv[1] + ".begun", "a") as file:
        file.write(".")
    time.sleep(float(sys.argv[4]))
    return config["x"] ** 2 + config["y"] ** 2

workers = int(sys.argv[2]) or None
sh.Study(
    objective, optimizer=sys.argv[3], store=sys.argv[1], workers=workers,
    budget=sh.Budget(trials=60), max_attempts=50,
).run()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "optimizer"), [(0, "random"), (2, "random")])
def test_kills_at_random_moments_change_nothing_in_the_end(
    tmp_path: Path, workers: int, optimizer: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command, how = [sys.executable, str(script)], [str(workers), optimizer, "0.03"]
    kept, whole = tmp_path / "kept.db", tmp_path / "whole.db"
    subprocess.run([*command, str(whole), *how], check=True)
    rng, begun = random.Random(workers), tmp_path / "kept.db.begun"
    for _ in range(4):
        wanted = (begun.stat().st_size if begun.exists() else 0) + rng.randint(1, 9)
        process = subprocess.Popen([*command, str(kept), *how])
        deadline = time.monotonic() + 120
        while not (begun.exists() and begun.stat().st_size >= wanted):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.08))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    subprocess.run([*command, str(kept), *how], check=True)
    interrupted, straight = load_study(kept, "killed"), load_study(whole, "killed")
    assert [t.number for t in interrupted.trials()] == list(range(60))
    assert interrupted.counts() == {"ok": 60}
    assert [t.config for t in interrupted.trials()] == [t.config for t in straight.trials()]
    assert interrupted.best.config == straight.best.config
    assert interrupted.store.is_whole()


def test_several_processes_share_a_study(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    store = tmp_path / "s.db"
    command = [sys.executable, str(script), str(store), "0", "random", "0.004"]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [p.wait(timeout=60) for p in processes] == [0, 0]
    study = load_study(store, "killed")
    assert [t.number for t in study.trials()] == list(range(60))
    alone = Random(study.space, study.objectives).ask(60)
    assert [t.config for t in study.trials()] == [c.config for c in alone]


@pytest.mark.slow
def test_a_store_that_another_program_locks_for_half_a_minute_is_waited_for(
    tmp_path: Path,
) -> None:
    study = make(store=tmp_path / "s.db", budget=Budget(trials=40))
    locked = threading.Event()

    def lock() -> None:
        other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
        other.execute("begin immediate")
        locked.set()
        time.sleep(31)
        other.execute("rollback")
        other.close()

    thread = threading.Thread(target=lock)

    def after(study: Study, trial: Trial) -> None:
        if trial.number == 9:
            thread.start()
            assert locked.wait(10)

    study.callbacks = (after,)
    study.run()
    thread.join()
    assert study.counts() == {"ok": 40}
    assert [trial.attempt for trial in study.trials()] == [1] * 40
