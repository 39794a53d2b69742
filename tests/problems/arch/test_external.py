"""Programs as simulators: files in, a report out, and what can go wrong on the way."""

from pathlib import Path
from typing import Any

import pytest

import sharpen as sh
from sharpen.core.errors import ConfigError, MissingFileError
from sharpen.core.problem import Objective, TrialContext, evaluate
from sharpen.problems.arch import ExternalSimulator

SPACE = sh.Space(policy=sh.Categorical("Open", "Closed"), size=sh.Int(1, 8), fast=sh.Bool())
OBJECTIVES = (Objective("power"),)
PATTERNS = {"power": r"^Average Power: +([0-9.e+-]+) mW", "latency": r"Latency: (\S+)"}
PROGRAM = """
import json, sys
config = json.load(open("mc.json"))["mcconfig"]
assert config["keep"] == {"as": "{it} is"} and config["fast"] in (True, False)
power = config["size"] * 10 + (5 if config["policy"] == "Open" else 0)
text = f"Average Power: 1 mW\\nAverage Power: {power} mW\\nLatency: {100 / config['size']}\\n"
if config["size"] == 7:
    sys.exit("no room")
if config["size"] == 6:
    text = text.replace("Latency", "Delay")
print(text)
open("report.txt", "w").write(text)
"""
TEMPLATE = """{"mcconfig": {"policy": "{policy}", "size": {size}, "fast": {fast},
  "keep": {"as": "{it} is"}}}"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "simulate.py").write_text(PROGRAM)
    (tmp_path / "mc.json").write_text(TEMPLATE)
    return tmp_path


def made(root: Path, **changes: Any) -> ExternalSimulator:
    options: dict[str, Any] = {"template": "mc.json", "parser": PATTERNS, "root": root, **changes}
    return ExternalSimulator("python {root}/simulate.py", SPACE, OBJECTIVES, **options)


def config(size: int, policy: str = "Open") -> dict[str, Any]:
    return {"policy": policy, "size": size, "fast": True}


def test_values_go_into_templates_and_metrics_come_out_of_the_report(root: Path) -> None:
    for report in (None, "report.txt"):
        feedback = evaluate(made(root, report=report), config(4))
        assert feedback.status == "ok", feedback.error
        assert feedback.objectives == {"power": 45.0}
        assert feedback.info["latency"] == 25.0
    assert sorted(p.name for p in root.iterdir()) == ["mc.json", "simulate.py"]


def test_a_function_parses_too_and_folders_stay_when_asked(root: Path) -> None:
    def parse(text: str, folder: Path) -> dict[str, float]:
        assert (folder / "mc.json").is_file()
        return {"power": float(text.count("mW"))}

    problem = made(root, parser=parse, keep=root / "runs")
    for _ in range(2):
        assert problem.evaluate(config(2), TrialContext(number=3)) == {"power": 2.0}
    assert '"size": 2' in (root / "runs" / "3" / "mc.json").read_text()


def test_a_study_finds_the_least(root: Path) -> None:
    study = sh.Study(
        made(root), optimizer="grid", store="sqlite://", budget=sh.Budget(trials=8), seed=1
    ).run()
    assert study.best.value == min(t.value for t in study.trials() if t.is_ok)


@pytest.mark.parametrize(
    ("size", "changes", "message"),
    [
        (7, {}, "failed with exit code 1:\nno room"),
        (6, {}, "'latency'"),
        (5, {"report": "none.txt"}, "wrote no none.txt"),
        (5, {"parser": {"power": "(Average)"}}, "'power' is 'Average', which is no number"),
    ],
)
def test_failures_say_what_the_program_said(
    root: Path, size: int, changes: Any, message: str
) -> None:
    feedback = evaluate(made(root, **changes), config(size))
    assert feedback.status == "failed"
    assert message in str(feedback.error)


def test_a_wrong_set_up_is_told_at_once(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"uses \{policy\}, so that parameter would change"):
        made(root, template=None)
    with pytest.raises(MissingFileError, match="no template"):
        made(root, template="other.json")
    with pytest.raises(ConfigError, match="must lie in the trial's folder"):
        made(root, template={"../mc.json": "mc.json"})
    with pytest.raises(ConfigError, match="has 0 groups"):
        made(root, parser={"power": "mW"})
    with pytest.raises(ConfigError, match="cannot be read"):
        made(root, parser={"power": "("})
    with pytest.raises(ConfigError, match="no parameter"):
        ExternalSimulator("run {sizes}", SPACE, OBJECTIVES, parser=PATTERNS, root=root)


def test_a_program_of_the_folder_is_found(root: Path) -> None:
    (root / "bin").mkdir()
    (script := root / "bin" / "sim").write_text("#!/bin/sh\necho Average Power: $1 mW\n")
    script.chmod(0o755)
    one = sh.Space(x=sh.Int(1, 9))
    parser = {"power": PATTERNS["power"]}
    problem = ExternalSimulator("bin/sim {x}", one, OBJECTIVES, parser=parser, root=root)
    assert problem.evaluate({"x": 3}) == {"power": 3.0}
