from pathlib import Path
from typing import Any

import pytest

import sharpen as sh
from sharpen.core.errors import ConfigError
from sharpen.problems.synthetic import synthetic
from sharpen.search.bench import compare_optimizers

SPACE = sh.Space(x=sh.Float(-1, 1), y=sh.Float(-1, 1))


def bowl(config: dict[str, Any]) -> float:
    return float((config["x"] - 0.3) ** 2 + (config["y"] + 0.2) ** 2)


def test_the_better_optimizer_comes_first_and_the_other_is_behind(tmp_path: Path) -> None:
    found = compare_optimizers(
        [sh.problem(SPACE, bowl, minimize="loss")],
        ["random", "cmaes"],
        trials=60,
        seeds=8,
        store=tmp_path / "b.db",
    )
    (problem,) = found["problems"]
    first, second = problem["rows"]
    assert (first["optimizer"], first["behind"]) == ("cmaes", False)
    assert (second["optimizer"], second["behind"]) == ("random", True)
    assert first["q1"] <= first["median"] <= first["q3"]
    assert found["ranks"] == {"cmaes": 1.0, "random": 2.0}


def test_values_to_maximize_are_turned_round(tmp_path: Path) -> None:
    problem = sh.problem(SPACE, lambda c: {"gain": -bowl(c)}, maximize="gain")
    found = compare_optimizers(
        [problem], ["random", "cmaes"], trials=60, seeds=8, store=tmp_path / "b.db"
    )
    rows = found["problems"][0]["rows"]
    assert [row["optimizer"] for row in rows] == ["cmaes", "random"]
    assert [row["behind"] for row in rows] == [False, True]


def test_who_cannot_handle_a_problem_is_left_out_of_it_and_of_the_places(tmp_path: Path) -> None:
    calls: list[int] = []
    options: dict[str, Any] = {
        "trials": 5,
        "seeds": 2,
        "store": tmp_path / "b.db",
        "on_experiment": lambda e: calls.append(e.seed),
    }
    problems = [synthetic("branin"), synthetic("gramacy")]
    found = compare_optimizers(problems, ["sobol", "nelder-mead"], **options)
    branin, gramacy = found["problems"]
    assert branin["rows"][0]["regret"] > 0
    assert branin["rows"][0]["behind"] is None  # two seeds tell nothing
    unable = gramacy["rows"][1]
    assert unable["optimizer"] == "nelder-mead"
    assert "constraints" in unable["cannot"]
    assert sum(found["ranks"].values()) == 3.0
    assert compare_optimizers(problems, ["sobol", "nelder-mead"], **options) == found


@pytest.mark.parametrize("names", [[], ["sobl"]])
def test_nothing_and_unknown_names_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"needs a problem and an optimizer|no optimizer 'sobl'"):
        compare_optimizers([synthetic("branin")], names, store=tmp_path / "b.db")
