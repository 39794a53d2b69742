"""PIE's files and its evaluator, with programs of our own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sharpen.code.pie import PieConfig, Programs, load_pie, pie_eval, read_tests
from sharpen.code.pie.evaluation import accuracy
from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError

SLOW = "n = int(input())\nt = 0\nfor i in range(n + 1):\n    t += i\nprint(t)\n"
FAST = "n = int(input())\nprint(n * (n + 1) // 2)\n"
WRONG = "n = int(input())\nprint(n * (n - 1) // 2)\n"
HIDDEN = """\
import os
n = int(input())
r, w = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        t = 0
        for i in range(n + 1):
            t += i
        print(t, flush=True)
        os.write(w, b"x")
    os._exit(0)
os.wait()
os.read(r, 1)
"""
SLOW_CPP = """\
#include <iostream>
int main() {
    long long n, t = 0;
    std::cin >> n;
    for (volatile long long i = 0; i <= n; i = i + 1) t += i;
    std::cout << t << std::endl;
}
"""
FAST_CPP = """\
#include <iostream>
int main() {
    long long n;
    std::cin >> n;
    std::cout << n * (n + 1) / 2 << std::endl;
}
"""
NUMBERS = (3, 2_000_000)
QUICK = PieConfig(num_trials=2, ignore_first_k=1)


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    folder = tmp_path / "tests" / "p1"
    folder.mkdir(parents=True)
    for i, n in enumerate(NUMBERS):
        (folder / f"input.{i}.txt").write_text(f"{n}\n")
        (folder / f"output.{i}.txt").write_text(f"{n * (n + 1) // 2}\n")
    return folder.parent


def row(**more: Any) -> dict[str, Any]:
    base = {"submission_id_v0": "s1", "problem_id": "p1", "input": SLOW, "target": FAST}
    return {**base, "language": "Python", "cpu_time_v0": 1, **more}


def test_lines_are_compared_as_released() -> None:
    assert accuracy("6\n", "6") == 1
    assert accuracy("6.0004\n7", "6\n8") == 0.5
    assert accuracy("6\nmore", "6") == 1
    assert accuracy("", "6\n7") == 0
    assert accuracy("x", "y") == 0
    assert accuracy("", "") == 1


def test_speedups_of_python(tmp_path: Path, tests: Path) -> None:
    reference = lines(tmp_path / "reference.jsonl", [row()])
    answers = [WRONG, FAST, SLOW, "raise SystemExit(3)"]
    made = lines(tmp_path / "made.jsonl", [{"input": SLOW + "\n", "generated_answers": answers}])
    out = tmp_path / "report.json"
    report = pie_eval(made, reference, tests, QUICK, out=out)
    (found,) = report["rows"]
    assert found["input_acc"] == found["reference_acc"] == found["generated_answers_1_acc"] == 1
    assert found["generated_answers_0_acc"] == 0
    assert found["generated_answers_0_why"] == "wrong output"
    assert "ended with 3" in found["generated_answers_3_why"]
    assert found["input_time_mean"] > found["generated_answers_1_time_mean"] > 0
    metrics = report["metrics"]
    assert metrics["is_correct_best@1"] == 0
    assert metrics["mean_speedup_best@1"] == 1
    assert metrics["is_correct_best@2"] == metrics["is_correct_best@4"] == 1
    assert metrics["mean_speedup_best@2"] > 1.5
    assert metrics["percent_programs_speedup_best@2>=speedup_threshold_1.1"] == 1
    mean = metrics["mean_speedup_best@2"]
    assert metrics["geometric_mean_speedup_best@2"] == pytest.approx(mean)
    assert metrics["median_speedup_best@2"] == pytest.approx(mean)
    assert metrics["mean_speedup_tgt_over_src"] > 1.5
    assert metrics["suspicious"] == metrics["censored"] == 0
    assert json.loads(out.read_text())["metrics"] == metrics


def test_the_order_of_rows_changes_nothing_but_the_order(tmp_path: Path, tests: Path) -> None:
    two = [row(), row(submission_id_v0="s2", input=SLOW + "#", generated_answers=WRONG)]
    two[0]["generated_answers"] = [WRONG]
    one_way = pie_eval(lines(tmp_path / "a.jsonl", two), None, tests, QUICK)
    other = pie_eval(lines(tmp_path / "b.jsonl", two[::-1]), None, tests, QUICK)
    assert [r["name"] for r in one_way["rows"]] == ["s1", "s2"]
    assert [r["name"] for r in other["rows"]] == ["s2", "s1"]
    for name in ("is_correct_best@1", "mean_speedup_best@1", "mean_accuracy_best@1"):
        assert one_way["metrics"][name] == other["metrics"][name]


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_speedups_of_cpp(tmp_path: Path, tests: Path) -> None:
    big = tests / "p1" / "input.1.txt"
    big.write_text("60000000\n")
    (tests / "p1" / "output.1.txt").write_text(f"{60_000_000 * 60_000_001 // 2}\n")
    given = {"src_id": "a", "problem_id": "p1", "src_code": SLOW_CPP, "tgt_code": FAST_CPP}
    answers = ["int main() { return x; }", FAST_CPP]
    made = [{**given, "tests": [0, 1], "generated_answers": answers}]
    config = PieConfig(version="v2", num_trials=2, ignore_first_k=1)
    report = pie_eval(lines(tmp_path / "v2.jsonl", made), None, tests, config)
    (found,) = report["rows"]
    assert "does not compile" in found["generated_answers_0_why"]
    assert report["metrics"]["mean_speedup_best@2"] > 5


def test_what_is_stopped_took_at_least_so_long(tmp_path: Path, tests: Path) -> None:
    endless = "while True:\n    pass\n"
    made = [row(input=endless, generated_answers=[FAST, endless])]
    config = PieConfig(num_trials=2, ignore_first_k=1, max_time_per_run=0.5)
    report = pie_eval(lines(tmp_path / "a.jsonl", made), None, tests, config)
    (found,) = report["rows"]
    assert found["input_censored"]
    assert found["input_agg_runtime"] == pytest.approx(0.5)
    assert report["metrics"]["censored"] == 1
    assert report["metrics"]["mean_speedup_best@1"] > 2
    assert found["generated_answers_1_why"] == "it took too long"


def test_work_that_is_hidden_in_another_process_is_found(tests: Path) -> None:
    with Programs(limit_s=5) as programs:
        texts = ["4000000\n"]
        open_run = programs.run(programs.build(SLOW, "python"), texts)
        run = programs.run(programs.build(HIDDEN, "python"), texts)
    assert run.outputs == open_run.outputs
    assert not open_run.suspicious
    assert run.cpu_s[0] < open_run.cpu_s[0] / 2
    assert "were used" in run.suspicious


def test_an_evaluation_goes_on(tmp_path: Path, tests: Path) -> None:
    rows = [row(generated_answers=FAST), row(input=SLOW + "#", generated_answers=FAST)]
    made = lines(tmp_path / "a.jsonl", rows)
    out = tmp_path / "report.json"

    def stop(name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pie_eval(made, None, tests, QUICK, out=out, on_row=stop)
    assert not out.exists()
    kept = (tmp_path / "report.json.journal").read_text()
    report = pie_eval(made, None, tests, QUICK, out=out)
    assert json.loads(kept.splitlines()[-1])["found"] == report["rows"][0]
    assert not (tmp_path / "report.json.journal").exists()


def test_tests_are_chosen_by_the_row(tmp_path: Path, tests: Path) -> None:
    (one,) = load_pie(lines(tmp_path / "a.jsonl", [row(tests="[1]")]))
    assert read_tests(tests, one) == [("2000000\n", "2000001000000\n")]
    (missing,) = load_pie(lines(tmp_path / "b.jsonl", [row(tests=[7])]))
    with pytest.raises(MissingFileError, match=r"input\.7"):
        read_tests(tests, missing)
    (none,) = load_pie(lines(tmp_path / "c.jsonl", [row(problem_id="p2")]))
    with pytest.raises(MissingFileError, match="no tests"):
        read_tests(tests, none)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("{}\n", "needs the text"),
        ("[1]\n", "object"),
        ("{\n", "no JSON"),
        (json.dumps(row(language="Ada")) + "\n", "language"),
        (json.dumps(row(tests=[None])) + "\n", "list of numbers"),
    ],
)
def test_damaged_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=message):
        load_pie(path)


def test_wrong_use(tmp_path: Path, tests: Path) -> None:
    with pytest.raises(ConfigError, match="num_trials"):
        PieConfig(num_trials=1, ignore_first_k=1)
    with pytest.raises(ConfigError, match="version"):
        load_pie(tmp_path / "a.jsonl", "v3")  # type: ignore[arg-type]
    with pytest.raises(MissingFileError):
        load_pie(tmp_path / "nothing.jsonl")
    made = lines(tmp_path / "made.jsonl", [{"input": "other", "generated_answers": [FAST]}])
    reference = lines(tmp_path / "reference.jsonl", [row()])
    with pytest.raises(FileFormatError, match="no slow program"):
        pie_eval(made, reference, tests, QUICK)
    lines(made, [{"input": SLOW, "generated_answers": 7}])
    with pytest.raises(FileFormatError, match="must be programs"):
        pie_eval(made, reference, tests, QUICK)
