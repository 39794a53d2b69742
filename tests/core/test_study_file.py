from pathlib import Path
from typing import Any

import pytest

from sharpen.core.errors import ConfigError, MissingFileError
from sharpen.core.executor import Local
from sharpen.core.pruner import Median
from sharpen.core.study_file import load_study_file

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
