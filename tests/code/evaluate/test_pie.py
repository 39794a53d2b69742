"""PIE's files and metrics, and programs that read standard input."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sharpen.code.evaluate import PieConfig, load_pie, pie_eval
from sharpen.code.evaluate.stdin_programs import build, new_pool, run_program
from sharpen.core.errors import ConfigError, DataError, FileFormatError, MissingFileError
from sharpen.core.sandbox import SandboxPool, detect_tiers

if sys.platform != "linux" or detect_tiers().best < 1:
    pytest.skip("sandboxes need Linux with Landlock", allow_module_level=True)

SLOW = """
n = int(input())
total = 0
for i in range(1, n + 1):
    total += i
print(total)
"""
FAST = "n = int(input())\nprint(n * (n + 1) // 2)\n"
WRONG = "n = int(input())\nprint(n * n // 2)\n"
ENDLESS = "while True:\n    pass\n"
SLOW_CPP = """
#include <cstdio>
int main() {
    long long n, total = 0;
    std::scanf("%lld", &n);
    for (volatile long long i = 1; i <= n * 2000; i++) if (i <= n) total += i;
    std::printf("%lld\\n", total);
}
"""
FAST_CPP = SLOW_CPP.replace("n * 2000", "n")
QUICK = PieConfig(num_trials=2, ignore_first_k=1, max_time_per_run=1.0)


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    with new_pool(1) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tests" / "p1").mkdir(parents=True)
    for i, n in enumerate((10, 20_000, 30_000)):
        (tmp_path / "tests" / "p1" / f"input.{i}.txt").write_text(f"{n}\n")
        (tmp_path / "tests" / "p1" / f"output.{i}.txt").write_text(f"{n * (n + 1) // 2}\n\n")
    return tmp_path


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def reference(folder: Path, count: int = 1) -> Path:
    rows = [
        {"submission_id_v0": f"s{i}", "problem_id": "p1", "input": SLOW + "#" * i, "target": FAST}
        for i in range(count)
    ]
    return write(folder / "reference.jsonl", rows)


@pytest.mark.parametrize(
    "program",
    [
        "print(int(input()) + 1)",
        "import sys\nprint(int(sys.stdin.readline()) + 1)",
        "import sys\nsys.stdout.buffer.write(b'%d\\n' % (int(sys.stdin.buffer.read()) + 1))",
        "import os\nprint(int(open(0).read()) + 1)",
        "import os\nos.write(1, b'%d' % (int(os.read(0, 99)) + 1))",
        "def f(n):\n    return f(n - 1) + 1 if n else 1\n"
        "if __name__ == '__main__':\n    print(f(int(input())))\n    raise SystemExit(0)",
    ],
)
def test_ways_to_read_and_write(pool: SandboxPool, program: str) -> None:
    found = run_program(program, [b"3\n", b"40\n"], pool)
    assert [said.strip() for said in found.outputs] == [b"4", b"41"], found.why
    assert len(found.times) == 2
    assert not found.why


def test_programs_that_fail(pool: SandboxPool) -> None:
    found = run_program("print(1 // int(input()))", [b"1", b"0", b"1"], pool)
    assert found.outputs == (b"1\n",)
    assert "ZeroDivisionError" in found.why
    assert "exit code 3" in run_program("raise SystemExit(3)", [b""], pool).why
    found = run_program(ENDLESS, [b""], pool, limit_s=0.3)
    assert found.late
    with pytest.raises(ConfigError, match="cpu"):
        run_program("", [b""], pool, clock="wall")
    with pytest.raises(ConfigError, match="python or cpp"):
        build("", "java", pool, ())  # type: ignore[arg-type]


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_cpp_is_compiled_and_timed(pool: SandboxPool) -> None:
    slow, fast = (build(source, "cpp", pool, ("-O3",)) for source in (SLOW_CPP, FAST_CPP))
    inputs = [b"10", b"20000"]
    a, b = (run_program(program, inputs, pool) for program in (slow, fast))
    assert a.outputs == b.outputs == (b"55\n", b"200010000\n"), a.why + b.why
    assert a.times[1] > 3 * b.times[1]
    with pytest.raises(ValueError, match="error"):
        build("int main() { return x; }", "cpp", pool, ())
    endless = build("int main() { for (volatile int i = 0;; i++) {} }", "cpp", pool, ("-O3",))
    assert run_program(endless, inputs, pool, limit_s=0.5).late


def test_metrics_of_generations(folder: Path) -> None:
    answers = [[WRONG, FAST], [SLOW, FAST], [WRONG, ENDLESS]]
    rows = [{"submission_id_v0": f"s{i}", "generated_answers": a} for i, a in enumerate(answers)]
    config = PieConfig(num_trials=2, max_time_per_run=1.0, k=(1, 2), clock="opcodes")
    out = folder / "report.json"
    report = pie_eval(
        write(folder / "generations.jsonl", rows[:2]),
        reference(folder, 3),
        folder / "tests",
        config,
        out=out,
    )
    first, second, missing = report["rows"]
    assert first["input_acc"] == first["reference_acc"] == 1.0
    assert first["generated_answers_0_acc"] == 0.0
    assert first["generated_answers_0_time_mean"] is None
    assert (first["speedup_best@1"], first["is_correct_best@1"]) == (1.0, False)
    assert first["speedup_best@2"] > 10
    assert second["speedup_best@1"] == pytest.approx(1.0, abs=1e-3)
    assert (missing["is_correct_best@2"], missing["speedup_best@2"]) == (False, 1.0)
    metrics = report["metrics"]
    assert metrics["best@1"]["correct"] == pytest.approx(1 / 3)
    assert metrics["best@2"]["correct"] == pytest.approx(2 / 3)
    assert metrics["best@1"]["optimized"] == 0
    assert metrics["best@2"]["optimized"] == pytest.approx(2 / 3)
    speedups = [row["speedup_best@2"] for row in report["rows"]]
    assert metrics["best@2"]["mean"] == pytest.approx(sum(speedups) / 3)
    assert metrics["best@2"]["median"] == pytest.approx(sorted(speedups)[1])
    assert metrics["reference"]["optimized"] == 1.0
    assert json.loads(out.read_text())["metrics"] == metrics


def test_order_and_ids_do_not_matter(folder: Path) -> None:
    rows = [{"input": SLOW + "#" * i, "generated_answers": FAST} for i in (1, 0)]
    config = PieConfig(clock="opcodes")
    report = pie_eval(
        write(folder / "g.jsonl", rows), reference(folder, 2), folder / "tests", config
    )
    assert report["metrics"]["best@1"]["correct"] == 1.0


def test_a_slow_program_that_never_ends_counts_with_the_limit(folder: Path) -> None:
    rows = [
        {"src_id": "a", "problem_id": "p1", "src_code": ENDLESS, "tgt_code": FAST, "tests": [0, 2]}
    ]
    generations = [{"src_id": "a", "generated_answers": [FAST]}]
    report = pie_eval(
        write(folder / "g.jsonl", generations),
        write(folder / "r.jsonl", rows),
        folder / "tests",
        QUICK,
    )
    (row,) = report["rows"]
    assert row["input_tle"]
    assert row["input_time_mean"] == 1.0
    assert 1 < row["speedup_best@1"] < 1e6
    assert report["metrics"]["stopped"] == 1


def test_wrong_files_are_told(folder: Path) -> None:
    right = reference(folder)
    assert load_pie(right)[0]["submission_id_v0"] == "s0"
    with pytest.raises(FileFormatError, match=r":1: the text 'src_id' is missing"):
        load_pie(right, "v2")
    with pytest.raises(ConfigError, match="v1 or v2"):
        load_pie(right, "v3")  # type: ignore[arg-type]
    with pytest.raises(MissingFileError, match=r"none\.jsonl"):
        load_pie(folder / "none.jsonl")
    for text, message in (("{\n", "no JSON"), ("[]\n", "object"), ("\n", "no rows")):
        (folder / "bad.jsonl").write_text(text)
        with pytest.raises(FileFormatError, match=message):
            load_pie(folder / "bad.jsonl")
    good = write(folder / "g.jsonl", [{"submission_id_v0": "s0", "generated_answers": FAST}])
    with pytest.raises(MissingFileError, match="has no tests"):
        pie_eval(good, right, folder / "nothing", QUICK)
    other = write(folder / "o.jsonl", [{"submission_id_v0": "zz", "generated_answers": FAST}])
    with pytest.raises(DataError, match="no generation for any"):
        pie_eval(other, right, folder / "tests", QUICK)
    lacks = write(folder / "l.jsonl", [{"submission_id_v0": "s0"}])
    with pytest.raises(FileFormatError, match="'generated_answers' must be"):
        pie_eval(lacks, right, folder / "tests", QUICK)
    for wrong in ({"language": "java"}, {"num_trials": 1}, {"k": (0,)}):
        with pytest.raises(ConfigError):
            PieConfig(**wrong)  # type: ignore[arg-type]
