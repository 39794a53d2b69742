import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

import sharpen as sh
from sharpen.core.errors import ConfigError
from sharpen.problems.db import DuckDB
from sharpen.problems.db import duckdb as module

QUERIES = (1, 3, 6, 14)


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def problem() -> DuckDB:
    return DuckDB(0.01, queries=QUERIES, repeats=1)


def test_settings_hold_while_the_queries_run(
    problem: DuckDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {
        **problem.space.default(),
        "threads": 1,
        "memory_mb": 300,
        "preserve_insertion_order": False,
        "perfect_ht_threshold": 3,
        "optimizer.top_n": False,
        "optimizer.cte_inlining": False,
    }
    seen: dict[str, str] = {}
    real = duckdb.connect

    class Watched:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.connection = real(*arguments, **options)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: object) -> None:
            rows = self.connection.execute("select name, value from duckdb_settings()").fetchall()
            seen.update(dict(rows))
            self.connection.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.connection, name)

    monkeypatch.setattr(duckdb, "connect", Watched)
    feedback = problem.evaluate(config)
    assert seen["threads"] == "1"
    assert seen["memory_limit"] == "286.1 MiB"  # 300 MB
    assert seen["preserve_insertion_order"] == "false"
    assert seen["perfect_ht_threshold"] == "3"
    assert set(seen["disabled_optimizers"].split(",")) == {"top_n", "cte_inlining"}
    each = feedback.info["seconds"]
    assert set(each) == {str(query) for query in QUERIES}
    assert feedback.objectives["seconds"] == pytest.approx(sum(each.values()))
    assert min(each.values()) > 0


def test_all_settings_and_passes_are_known_to_duckdb(problem: DuckDB) -> None:
    with duckdb.connect() as connection:
        names = {
            row[0] for row in connection.execute("select name from duckdb_settings()").fetchall()
        }
        passes = {row[0] for row in connection.execute("FROM duckdb_optimizers()").fetchall()}
        for statement in problem.settings(problem.space.default()):
            connection.execute(statement)
    assert set(module._PASSES) <= passes
    assert {line.split()[1] for line in problem.settings(problem.space.default())} <= names


def test_another_answer_fails_and_a_long_pass_is_interrupted(problem: DuckDB) -> None:
    problem.evaluate(problem.space.default())
    rows = problem._answers[6]
    problem._answers[6] = [(rows[0][0] + 1,)]
    study = sh.Study(problem, optimizer="random", store="sqlite://", budget=sh.Budget(trials=1))
    trial = study.ask()
    assert trial is not None
    from sharpen.core.problem import evaluate

    feedback = evaluate(problem, trial.config)
    assert feedback.status == "failed"
    assert "query 6 has another answer" in str(feedback.error)
    problem._answers[6] = rows
    slow = DuckDB(0.01, repeats=3, limit_s=0.01)
    slow._answers = {1: []}
    assert slow.evaluate(slow.space.default()).status == "timeout"


def test_what_a_killed_process_left_of_the_data_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "sharpen" / "tpch"
    folder.mkdir(parents=True)
    name = f"duckdb-{duckdb.__version__}-0.01"
    for ending in (".partial", ".partial.wal"):
        (folder / f"{name}{ending}").write_bytes(b"half of it")
    path = module._make_data(0.01)
    assert sorted(p.name for p in folder.iterdir()) == [f"{name}.db", f"{name}.lock"]
    with duckdb.connect(str(path), read_only=True) as connection:
        rows = connection.execute("select count(*) from orders").fetchone()
    assert rows == (15_000,)


def test_sums_in_another_order_are_the_same_answer() -> None:
    assert module._same([(1, 0.1 + 0.2)], [(1, 0.3)])
    assert not module._same([(1, 0.3001)], [(1, 0.3)])
    assert not module._same([(1, 0.3), (1, 0.3)], [(1, 0.3)])


def test_a_study_of_settings_runs_in_processes_of_their_own(
    problem: DuckDB, tmp_path: Path
) -> None:
    assert pickle.loads(pickle.dumps(problem))._answers == {}
    study = sh.Study(
        problem,
        optimizer="sobol",
        store=tmp_path / "s.db",
        budget=sh.Budget(trials=4),
        workers=2,
    ).run()
    assert study.counts() == {"ok": 4}


@pytest.mark.parametrize(
    "options",
    [
        {"scale": 0.0},
        {"scale": float("inf")},
        {"limit_s": float("nan")},
        {"repeats": 0},
        {"limit_s": 0.0},
        {"queries": ()},
        {"queries": (0, 5)},
        {"measure": "gpu"},
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        DuckDB(**options)
