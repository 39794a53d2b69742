"""The benchmark of search on families of problems: its spaces, tables and verdicts."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sharpen.core.conditions import Eq, Lt
from sharpen.core.parameters import Bool, Categorical, Float, Int
from sharpen.core.space import Space

pytest.importorskip("sklearn")
from benchmarks.search import bench_tasks, journal, peers_base, tables
from benchmarks.search.players import VERSIONS, describe
from benchmarks.search.tasks import TASKS, make_task

SPACE = Space(
    kind=Categorical("a", "b"),
    rate=Float(1e-4, 1, log=True).active_if(Eq("kind", "b")),
    depth=Int(1, 9),
    on=Bool(),
)


def test_peers_are_told_ranges_choices_and_conditions() -> None:
    assert describe(SPACE) == [
        ["choice", ["a", "b"]],
        ["float", 1e-4, 1, {"log": True, "if": [0, ["b"]]}],
        ["int", 1, 9],
        ["bool"],
    ]


def test_a_condition_on_a_number_is_refused() -> None:
    space = Space(a=Float(0, 1), b=Float(0, 1, step=0.5).active_if(Lt("a", 0.5)))
    with pytest.raises(ValueError, match="'b'"):
        describe(space)


def test_a_described_space_is_read_with_its_conditions() -> None:
    read = [peers_base.Parameter.read(i, entry) for i, entry in enumerate(describe(SPACE))]
    assert [p.kind for p in read] == ["choice", "float", "int", "choice"]
    assert [p.is_active({"x0": "b"}) for p in read] == [True] * 4
    assert [p.is_active({"x0": "a"}) for p in read] == [True, False, True, True]
    assert read[1].at(read[1].unit(0.02)) == pytest.approx(0.02)
    assert read[1].at(0.5) == pytest.approx(1e-2)


def test_a_default_is_filled_where_a_parameter_is_not_active() -> None:
    read = [peers_base.Parameter.read(i, entry) for i, entry in enumerate(describe(SPACE))]
    start = peers_base.Start("x", read, 0, 0, 10, ["a", None, 5, True])
    assert start.named_default() == {"x0": "a", "x2": 5, "x3": True}
    assert start.full_default() == ["a", pytest.approx(1e-2), 5, True]


@pytest.mark.parametrize("name", [n for n in TASKS if not n.startswith("f")])
def test_a_task_has_one_loss_a_configuration(name: str) -> None:
    task = make_task(name, 0)
    default = task.space.default()
    assert task.loss(default) == task.loss(dict(default))
    assert task.loss(default) >= 0


@pytest.mark.parametrize("name", tables.TABLES)
def test_a_model_knows_rows_that_it_has_not_seen(name: str) -> None:
    found = tables.quality(name)
    assert found["rows"] > 500
    assert found["rank"] > 0.8


def _runs(method: str, values: list[float]) -> list[dict[str, Any]]:
    return [
        {"task": "pipelines", "method": method, "seed": i, "best": {"50": v, "100": v}}
        for i, v in enumerate(values)
    ]


def test_verdicts_follow_the_test_of_ranks() -> None:
    low, high = [0.1 + i / 1000 for i in range(12)], [0.2 + i / 1000 for i in range(12)]
    compare = bench_tasks.compare
    first = compare(_runs("gp", low), _runs("smac", high), 100)
    assert first is not None
    assert first["outcome"] == "win"
    assert first["p_value"] < 1e-4
    behind = compare(_runs("gp", high), _runs("smac", low), 100)
    assert behind is not None
    assert behind["outcome"] == "loss"
    same = compare(_runs("gp", low), _runs("smac", low), 100)
    assert same is not None
    assert same["outcome"] == "tie"
    assert compare(_runs("gp", low[:9]), _runs("smac", high), 100) is None


def test_what_has_run_is_not_run_again(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    keys = list(journal.alternating(["t"], ["a", "b"], range(2), 10))
    assert [(key[1], key[2]) for key in keys] == [("a", 0), ("b", 0), ("b", 1), ("a", 1)]
    played = []

    def play(task: str, method: str, seed: int, evaluations: int) -> dict[str, Any]:
        played.append(seed)
        return {"task": task, "method": method, "seed": seed, "evaluations": evaluations}

    first = journal.play_missing(path, keys[:3], play)
    with path.open("a") as file:
        file.write('{"task": "t", "meth')  # a stop in the middle of a line
    assert journal.play_missing(path, keys, None) == first
    assert len(played) == 3
    assert len(journal.play_missing(path, keys, play)) == 4
    assert journal.play_missing(path, keys, None) == journal.play_missing(path, keys, play)
    assert len(played) == 4


def test_runs_of_an_older_version_of_a_method_are_played_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.jsonl"
    old = '{"task": "t", "method": "%s", "seed": 0, "evaluations": 10}\n'
    path.write_text(old % "a" + old % "b")
    monkeypatch.setitem(VERSIONS, "a", 2)
    keys = list(journal.alternating(["t"], ["a", "b"], range(1), 10))
    assert [run["method"] for run in journal.play_missing(path, keys, None)] == ["b"]

    def play(task: str, method: str, seed: int, evaluations: int) -> dict[str, Any]:
        return {"task": task, "method": method, "seed": seed, "evaluations": evaluations}

    journal.play_missing(path, keys, play)
    runs = journal.play_missing(path, keys, None)
    assert {run["method"]: run.get("version", 1) for run in runs} == {"a": 2, "b": 1}


@pytest.mark.slow
def test_the_quick_run_ends_in_a_summary(tmp_path: Path, repository: Path) -> None:
    given = {k: v for k, v in os.environ.items() if not k.startswith("BENCH_")}
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.search.bench_tasks", "--quick", "--json", str(out)],
        cwd=repository,
        env=given,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "boosting-diabetes, loss" in done.stdout
    assert out.exists()
