"""The whole loop: what is improved, what is left alone, and what is refused before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sharpen import LM, Scripted
from sharpen.code import ImproveResult, improve
from sharpen.code.improver.annotations import annotation
from sharpen.code.improver.config import ImproveConfig
from sharpen.code.improver.output import apply_result, write_results
from sharpen.code.improver.patch import unified
from sharpen.code.improver.result import Evidence, Proof
from sharpen.code.improver.target import locate
from sharpen.code.inputs import Input
from sharpen.code.measure.instructions import has_counter
from sharpen.core.errors import BusyError, ExecutionError

SLOW = '''
def unique(words):
    """Words without repetitions."""
    found = []
    for word in words:
        if word not in found:
            found.append(word)
    return found


def total(numbers: list[int]) -> int:
    return sum(numbers)
'''


QUICK: dict[str, Any] = {"levels": 1, "top_s": 0.005}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "module.py"
    path.write_text(SLOW)
    (tmp_path / "test_module.py").write_text(
        "from module import unique\n\n"
        "def test_unique():\n"
        "    assert unique(['b', 'a', 'b']) == ['b', 'a']\n"
        "    assert unique([]) == []\n"
    )
    return path


@pytest.mark.slow
def test_a_slow_function_is_improved_and_the_claim_can_be_checked_again(
    file: Path, tmp_path: Path
) -> None:
    result = improve(file, "unique", out=tmp_path / "out", levels=2, top_s=0.005)
    assert result.improved, result.why
    low, high = result.interval
    assert 1.1 < low <= result.speedup <= high
    assert result.evidence.inputs["tests"] == 2
    assert result.evidence.tests == "passed"
    assert result.evidence.kinds["words"] == "list of str"
    assert result.evidence.compared > 400
    assert file.read_text() == SLOW

    out = tmp_path / "out"
    write_results(result, out, ImproveConfig())
    subprocess.run(["git", "apply", out / "patch.diff"], cwd=tmp_path, check=True)
    assert file.read_text() == result.text != SLOW
    for line in (
        [sys.executable, str(out / "reproduce.py")],
        [sys.executable, "-m", "pytest", "-q", str(out / "test_improved_unique.py")],
    ):
        done = subprocess.run(line, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "<svg" in (out / "report.html").read_text()
    assert "No difference was found" in (out / "report.md").read_text()


@pytest.mark.slow
def test_a_second_run_goes_on_where_the_first_was_and_gives_the_same_patch(
    file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    calls: list[Input] = [((["a", "b", "a"],), {})]
    first = improve(file, "unique", tests="none", inputs=calls, out=out, **QUICK)
    lines = (out / "attempts.jsonl").read_text().splitlines()
    # As if it had been killed while the last line was written.
    (out / "attempts.jsonl").write_text("\n".join(lines)[:-40])
    second = improve(file, "unique", tests="none", inputs=calls, out=out, **QUICK)
    assert first.patch == second.patch != ""
    assert improve(file, "unique", tests="none", inputs=calls, **QUICK).patch == first.patch
    assert (out / "attempts.jsonl").read_text().splitlines()[:-1] == lines[:-1]


def test_what_is_as_fast_as_it_can_be_stays(file: Path) -> None:
    result = improve(file, "total", tests="none", **QUICK)
    assert not result.improved
    assert result.patch == ""
    assert result.speedup == 1.0
    assert result.text == SLOW
    assert "nothing better was found" in result.summary()


def accepted(file: Path, text: str, command: list[str] | None) -> ImproveResult:
    """A result as if a text had been accepted."""
    evidence = Evidence(
        inputs={},
        compared=1,
        equality="exact",
        largest_ulp=0.0,
        seeds=(0, 1),
        tests="passed",
        kinds={},
        dropped={},
        not_checked=(),
    )
    target = locate(file, "total")
    return ImproveResult(
        target="module.py:total",
        improved=True,
        speedup=2.0,
        interval=(1.9, 2.1),
        evidence=evidence,
        patch=unified(target, text),
        text=text,
        origin="rewrite",
        proof=Proof(location=target, inputs=[], expected=[], timed=[], command=command),
    )


def test_a_change_is_written_where_its_tests_pass_and_taken_back_where_not(file: Path) -> None:
    (file.parent / "test_module.py").write_text(
        "from module import total\n\ndef test():\n    assert total([1, 2]) == 3\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", str(file.parent)]
    wrong = SLOW.replace("sum(numbers)", "max(numbers)")
    file.chmod(0o640)
    with pytest.raises(ExecutionError, match="as it was"):
        apply_result(accepted(file, wrong, command), ImproveConfig())
    assert file.read_text() == SLOW
    right = SLOW.replace("sum(numbers)", "sum(list(numbers))")
    assert "its tests pass" in apply_result(accepted(file, right, command), ImproveConfig())
    assert file.read_text() == right
    assert file.stat().st_mode & 0o777 == 0o640
    late = accepted(file, SLOW, None)
    file.write_text(right + "# changed\n")
    with pytest.raises(BusyError, match="changed since"):
        apply_result(late, ImproveConfig())


def test_a_patch_applies_to_texts_without_a_last_line_end(file: Path, tmp_path: Path) -> None:
    for old, new in (("x = 1\ny = 2", "x = 1\ny = 3"), ("a = 1\r\n", "a = 2\r\n")):
        text = (
            f"{old}\n\n\ndef total(x):\n    return x"
            if "\r" not in old
            else (old + "def total(x):\r\n    return x\r\n")
        )
        file.write_bytes(text.encode())
        target = locate(file, "total")
        changed = text.replace(old, new).replace("return x", "return +x")
        (tmp_path / "patch.diff").write_bytes(unified(target, changed).encode())
        subprocess.run(["git", "apply", "patch.diff"], cwd=tmp_path, check=True)
        assert file.read_bytes() == changed.encode()


def test_an_annotation_is_one_line(file: Path) -> None:
    text = annotation(accepted(file, SLOW, None))
    assert "\n" not in text
    assert text.startswith("::warning file=")
    assert ",line=11," in text


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["opcodes", "memory", "instructions"])
def test_other_things_than_time_can_be_made_less(tmp_path: Path, objective: str) -> None:
    if objective == "instructions" and not has_counter():
        pytest.skip("no valgrind")
    path = tmp_path / "module.py"
    path.write_text(
        "def f(xs: list[int]) -> int:\n    kept = [[x] * 40 for x in xs]\n"
        "    return sum(one[0] for one in kept)\n"
    )
    reply = "```python\ndef f(xs):\n    return sum(xs)\n```"
    lm = LM(Scripted([reply]))
    settings = {**QUICK, "rounds": 0, "samples": 1, "objective": objective, "trust_llm": True}
    result = improve(
        path, "f", inputs=[((list(range(2000)),), {})], lm=lm, tests="none", **settings
    )
    assert result.improved, result.why
    gain = result.gain
    assert gain is not None
    assert gain.objective == objective
    assert gain.before / gain.after == gain.ratio > 3
    assert gain.low <= gain.ratio <= gain.high
    assert gain.summary() in result.summary()
    if objective == "memory":
        assert result.memory_mib == (gain.before, gain.after)
        out = tmp_path / "out"
        write_results(result, out, ImproveConfig(**settings))
        line = [sys.executable, str(out / "reproduce.py"), "--trust-llm"]
        done = subprocess.run(line, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "MiB at its peak" in done.stdout


@pytest.mark.slow
def test_less_memory_is_no_gain_where_time_grows_more_than_it_may(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "def f(xs: list[int]) -> int:\n    kept = [x * x for x in xs] * 4\n    return max(kept)\n"
    )
    reply = "```python\ndef f(xs):\n    return max(x * x for x in xs for _ in range(4))\n```"
    settings = {**QUICK, "rounds": 0, "samples": 1, "objective": "memory", "trust_llm": True}
    calls: list[Input] = [((list(range(5000)),), {})]
    result = improve(path, "f", inputs=calls, lm=LM(Scripted([reply])), tests="none", **settings)
    assert not result.improved
    assert "slower" in result.why
