"""The whole loop: what is improved, what is left alone, and what is refused before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sharpen.code import improve
from sharpen.code.improver.config import ImproveConfig
from sharpen.code.improver.output import write_results

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


QUICK = {"levels": 1, "top_s": 0.005}


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
    result = improve(file, "unique", out=tmp_path / "out", levels=2)
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
    out, calls = tmp_path / "out", [((["a", "b", "a"],), {})]
    first = improve(file, "unique", tests="none", inputs=calls, out=out, **QUICK)
    lines = (out / "attempts.jsonl").read_text().splitlines()
    # As if it had been killed while the last line was written.
    (out / "attempts.jsonl").write_text("\n".join(lines)[:-40])
    second = improve(file, "unique", tests="none", inputs=calls, out=out, **QUICK)
    assert first.patch == second.patch != ""
    assert (out / "attempts.jsonl").read_text().splitlines()[:-1] == lines[:-1]


def test_what_is_as_fast_as_it_can_be_stays(file: Path) -> None:
    result = improve(file, "total", tests="none", **QUICK)
    assert not result.improved
    assert result.patch == ""
    assert result.speedup == 1.0
    assert result.text == SLOW
    assert "nothing better was found" in result.summary()
