from pathlib import Path
from typing import Any

import pytest

import sharpen as sh
from sharpen.core.errors import ConfigError, MissingFileError
from sharpen.core.executor import Local
from sharpen.core.pruner import Median
from sharpen.core.study_file import join_study, load_study_file

YAML = """\
store: {store}
command: "python objective.py --x={{x}} --n={{n}}"
space:
  x: {{type: float, low: 0, high: 1}}
  n: {{type: int, low: 1, high: 4, active_if: "x > 0.5"}}
forbid: ["x > 0.9"]
minimize: [y]
maximize: z
constraints: ["y <= 10"]
optimizer: random
budget: {{trials: 6}}
workers: 2
timeout_s: 60
pruner: median
enqueue: [{{x: 0.25}}]
"""
OBJECTIVE = """\
import json, sys
values = dict(a.lstrip("-").split("=") for a in sys.argv[1:])
print(json.dumps({"y": float(values["x"]), "z": int(values.get("n", 0))}))
"""


def write(folder: Path, text: str = YAML) -> Path:
    (folder / "objective.py").write_text(OBJECTIVE)
    path = folder / "demo.yaml"
    path.write_text(text.format(store=folder / "s.db"))
    return path


def test_a_study_file_runs_in_its_folder_and_resumes(tmp_path: Path) -> None:
    path = write(tmp_path)
    seen: list[int] = []

    def note(study: Any, trial: Any) -> None:
        seen.append(trial.number)

    study = load_study_file(path, callbacks=[note])
    assert study.name == "demo"
    assert isinstance(study.executor, Local)
    assert (study.executor.slots, study.executor.timeout_s) == (2, 60.0)
    assert isinstance(study.pruner, Median)
    study.run()
    trials = study.trials()
    assert sorted(seen) == [0, 1, 2, 3, 4, 5]
    assert trials[0].config == {"x": 0.25}
    for trial in trials:
        assert trial.state == "ok"
        assert trial.config["x"] <= 0.9
        assert trial.values == {"y": trial.config["x"], "z": trial.config.get("n", 0)}
    again = load_study_file(path, ["budget.trials=8"]).run()
    assert [t.number for t in again.trials()] == list(range(8))
    assert again.trials()[:6] == trials


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("budget: {{trials: 6}}", "budgt: {{trials: 6}}"),
            "demo.yaml:11: .*Did you mean 'budget'",
        ),
        (("trials: 6", "trials: 0"), "demo.yaml:11: .*trials must be positive"),
        (("{{trials: 6}}", "{{}}"), "demo.yaml:11: .*needs trials, seconds, cost or target"),
        (("low: 0, high: 1", "low: 2, high: 1"), "demo.yaml:4: .*low=2.0 must be less"),
        (("--x={{x}}", "--x={{q}}"), "demo.yaml:2: .*placeholder"),
        (("x > 0.9", "q > 0.9"), "demo.yaml:6: .*names 'q'"),
        (("y <= 10", "y == 10"), "demo.yaml:9: .*is no constraint"),
        (("optimizer: random", "optimizer: rando"), "demo.yaml:10: .*Did you mean 'random'"),
        (("workers: 2", "workers: 0"), "workers must be at least 1"),
        (("{{x: 0.25}}", "{{x: 7}}"), "demo.yaml:15: .*x must be from 0.0 to 1.0"),
        (("pruner: median", "pruner: mean"), "demo.yaml:14: .*pruner must be"),
    ],
)
def test_errors_carry_file_and_line(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in YAML
    path = write(tmp_path, YAML.replace(*change))
    with pytest.raises(ConfigError, match=message):
        load_study_file(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none.yaml"):
        load_study_file(tmp_path / "none.yaml")


NAMED = """\
name: named
store: {store}
problem: {problem}
optimizer: {{name: random}}
budget: {{trials: 4}}
"""
MODULE = """\
import sharpen as sh
space = sh.Space(x=sh.Float(0, 1))

@sh.problem(space, minimize="y")
def bowl(config):
    return (config["x"] - 0.3) ** 2

def shifted(by):
    return sh.problem(space, lambda c: (c["x"] - by) ** 2, minimize="y")

number = 3
"""


def named(folder: Path, problem: str, more: str = "") -> Path:
    module = f"mine_{abs(hash(str(folder)))}"
    (folder / f"{module}.py").write_text(MODULE)
    path = folder / "named.yaml"
    text = NAMED.format(store=folder / "s.db", problem=problem.replace("mine", module))
    path.write_text(text + more)
    return path


def test_a_problem_is_found_by_its_name(tmp_path: Path) -> None:
    study = load_study_file(named(tmp_path, "mine:bowl")).run()
    assert study.counts() == {"ok": 4}
    assert all(t.value == (t.config["x"] - 0.3) ** 2 for t in study.trials())
    joined = join_study(tmp_path / "s.db", "named", trials=6, workers=2).run()
    assert joined.counts() == {"ok": 6}
    made = load_study_file(
        named(tmp_path, "{name: 'mine:shifted', by: 0.7}", "seed: 1\n"), ["name=b"]
    )
    assert all(t.value == (t.config["x"] - 0.7) ** 2 for t in made.run().trials())


@pytest.mark.parametrize(
    ("problem", "more", "message"),
    [
        ("nothing", "", "named.yaml:3: there is no problem 'nothing'"),
        ("mine:bowls", "", "named.yaml:3: .*has no 'bowls'"),
        ("no_such_module:f", "", "named.yaml:3: .*no module 'no_such_module'"),
        ("mine:number", "", "named.yaml:3: .*is no problem"),
        ("mine:shifted", "", "named.yaml:3: .*cannot be made"),
        ("{name: 'mine:bowl', by: 1}", "", "named.yaml:3: .*takes no arguments"),
        ("mine:bowl", "minimize: y\n", "named.yaml:6: minimize goes with command"),
        ("mine:bowl", "command: run\n", "needs command or problem"),
    ],
)
def test_problems_that_are_not_there_are_explained(
    tmp_path: Path, problem: str, more: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_study_file(named(tmp_path, problem, more))


def test_a_study_of_a_python_program_cannot_be_joined_by_name(tmp_path: Path) -> None:
    problem = sh.problem(sh.Space(x=sh.Float(0, 1)), lambda c: c["x"], minimize="y", name="p")
    sh.Study(problem, optimizer="random", store=tmp_path / "s.db", budget=sh.Budget(trials=1))
    with pytest.raises(ConfigError, match="begun by a Python program"):
        join_study(tmp_path / "s.db", "p")
