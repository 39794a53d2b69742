"""Programs that read and print, as PIE's."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sharpen.align.rewards.code import CodeReward, PerfReward
from sharpen.align.rewards.scripts import pie_rows
from sharpen.align.rows import read_feedback
from sharpen.core.errors import ConfigError, DataError, ExecutionError

SLOW = "n = int(input())\nt = 0\nfor i in range(n + 1):\n    t += i\nprint(t)\n"
FAST = "n = int(input())\nprint(n * (n + 1) // 2)\n"
TESTS = [[f"{n}\n", f"{n * (n + 1) // 2}\n"] for n in (3, 2_000_000)]
ROW: dict[str, Any] = {"stdin": TESTS, "reference": SLOW}


@pytest.fixture(scope="module")
def code() -> Iterator[CodeReward]:
    made = CodeReward(repeats=2, cpu_s=2.0)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("program", "outcome"),
    [
        ("n = (", "compile"),
        ("", "compile"),
        ("print(0)", "wrong"),
        ("1 / 0", "error"),
        ("while True:\n    pass", "timeout"),
        (FAST, "correct"),
        (f"Faster:\n```python\n{FAST}```\nDone.", "correct"),
        (f"{FAST}```", "correct"),
    ],
)
def test_outcomes(code: CodeReward, program: str, outcome: str) -> None:
    verdict = code.verdict(program, ROW)
    assert verdict.outcome == outcome, verdict
    if outcome == "correct":
        assert verdict.log_ratio is not None
        assert verdict.log_ratio > 0.5
        assert (code.value(verdict) or 0) > 0.6
    if outcome == "wrong":
        assert code.value(verdict) == -0.3


def test_the_slow_program_itself_is_no_faster() -> None:
    made = PerfReward(repeats=3, dead_zone=0.3)
    assert made([""] * 2, [SLOW, FAST], [ROW] * 2) == [1.3, 2.0]
    made.close()


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_other_languages_are_compiled(code: CodeReward) -> None:
    program = (
        "#include <iostream>\nint main() { long long n; std::cin >> n;"
        " std::cout << n * (n + 1) / 2 << std::endl; }\n"
    )
    row = {"stdin": TESTS, "language": "cpp"}
    values = code([""] * 2, [program, "int main() {"], [row] * 2)
    assert values == [1.0, -1.0]


def test_rows_of_pie_are_rows_to_learn_from(code: CodeReward, tmp_path: Path) -> None:
    pair = {
        "problem_id": "p1",
        "language": "python",
        "submission_id_v0": "s1",
        "input": SLOW,
        "target": FAST,
    }
    (tmp_path / "pie.jsonl").write_text(json.dumps(pair) + "\n")
    (tmp_path / "tests" / "p1").mkdir(parents=True)
    for i, (given, expected) in enumerate(TESTS):
        (tmp_path / "tests" / "p1" / f"input.{i}.txt").write_text(given)
        (tmp_path / "tests" / "p1" / f"output.{i}.txt").write_text(expected)
    rows = pie_rows(tmp_path / "pie.jsonl", tmp_path / "tests")
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    row = read_feedback(file, kind="completion").rows[0]
    assert code.verdict(str(row.completions[0]), row.meta).outcome == "correct"
    assert "```python" in str(row.prompt)


def test_what_cannot_be_judged_is_named(code: CodeReward) -> None:
    for about, told in (
        ({"stdin": []}, "'stdin' must be"),
        ({"stdin": [["1"]]}, "'stdin' must be"),
        ({"stdin": TESTS, "language": "java"}, "'language'"),
    ):
        with pytest.raises(DataError, match=told):
            code([""], [FAST], [about])
    with pytest.raises(ConfigError, match="opcodes"):
        CodeReward(clock="opcodes")([""], [FAST], [ROW])
    with pytest.raises(ExecutionError, match="the reference of a row fails"):
        code([""], [FAST], [{"stdin": TESTS, "reference": "1 / 0"}])
