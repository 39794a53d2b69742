from typing import Any

import pytest

import sharpen as sh
from sharpen.core.errors import ConfigError
from sharpen.core.store import Store, open_store
from sharpen.core.study_compare import compare_studies

SPACE = sh.Space(x=sh.Float(0, 1), y=sh.Float(0, 1))


def made(store: Store, name: str, points: list[tuple[float, float]], **goals: Any) -> sh.Study:
    problem = sh.problem(SPACE, lambda c: {"a": c["x"], "b": c["y"]}, name=name, **goals)
    study = sh.Study(problem, optimizer="random", store=store, budget=sh.Budget(trials=len(points)))
    study.enqueue([{"x": x, "y": y} for x, y in points])
    return study.run()


def test_the_best_after_so_many_trials_is_told() -> None:
    store = open_store("sqlite://")
    many = made(store, "many", [(1 - k / 20, 0.0) for k in range(12)], minimize="a")
    few = made(store, "few", [(0.5, 0.0), (0.2, 0.0), (0.9, 0.0)], minimize="a")
    first, second = compare_studies([many, few])["studies"]
    assert first["best_after"] == pytest.approx({5: 0.8, 10: 0.55, 12: 0.45})
    assert first["best"] == pytest.approx(0.45)
    assert (second["best"], second["best_after"]) == (0.2, {})
    assert (first["trials"], second["ok"]) == (12, 3)


def test_coverage_is_the_share_that_is_weakly_dominated() -> None:
    store = open_store("sqlite://")
    goals: dict[str, Any] = {"minimize": "a", "maximize": "b"}
    one = made(store, "one", [(0.1, 0.5), (0.5, 0.9), (0.9, 0.1)], **goals)
    two = made(store, "two", [(0.1, 0.5), (0.4, 0.95), (0.05, 0.2), (0.6, 0.99)], **goals)
    first, second = compare_studies([one, two])["studies"]
    assert (first["pareto"], second["pareto"]) == (2, 4)
    assert first["covers"] == {"two": 0.25}
    assert second["covers"] == {"one": 1.0}


def test_only_like_is_compared_with_like() -> None:
    store = open_store("sqlite://")
    one = made(store, "one", [(0.1, 0.5)], minimize="a")
    two = made(store, "two", [(0.1, 0.5)], maximize="a")
    with pytest.raises(ConfigError, match=r"different objectives: min a and max a"):
        compare_studies([one, two])
    with pytest.raises(ConfigError, match="two studies or more"):
        compare_studies([one])
