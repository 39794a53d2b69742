"""``sharpen improve``."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from e2e.command import sharpen, start

Invoke = Callable[..., Any]

SLOW = """def unique(words: list[str]) -> list[str]:
    found = []
    for word in words:
        if word not in found:
            found.append(word)
    return found


def total(numbers: list[int]) -> int:
    return sum(numbers)
"""
QUICK = ("--levels", 1, "--budget", "20s")


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pytest runs a small file as a process, loading plugins takes most of the time."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "module.py"
    path.write_text(SLOW)
    (tmp_path / "test_module.py").write_text(
        "from module import unique\ndef test(): assert unique(['b', 'a', 'b']) == ['b', 'a']\n"
    )
    return path


@pytest.mark.slow
def test_the_example_becomes_ten_times_as_fast(
    invoke: Invoke, repository: Path, tmp_path: Path
) -> None:
    target = f"{repository}/examples/code/slow.py:pairs_with_sum"
    done = invoke("improve", target, "--levels", 1, "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["improved"]
    assert found["speedup"] >= 10
    assert found["interval"][0] >= 10
    assert found["patch"].startswith("--- a/examples/code/slow.py")
    assert found["evidence"]["compared"] > 500
    assert found["evidence"]["tests"] == "passed"
    rows = [json.loads(x) for x in (tmp_path / "out/attempts.jsonl").read_text().splitlines()]
    assert any(row.get("verdict") == "kept" for row in rows)


@pytest.mark.slow
def test_check_writes_nothing_and_apply_changes_the_file(
    invoke: Invoke, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("improve", f"{file}:unique", "--out", out, *QUICK)
    done = invoke(*words, "--check", "--annotations", "github")
    assert done.code == 1, done.err
    assert "::warning file=" in done.out
    assert not out.exists()
    assert file.read_text() == SLOW
    done = invoke(*words, "--apply")
    assert done.code == 0, done.err
    assert "its tests pass" in done.out
    assert file.read_text() != SLOW
    assert (out / "report.html").exists()


def test_nothing_better_is_no_failure_unless_asked(
    invoke: Invoke, file: Path, tmp_path: Path
) -> None:
    words = ("improve", f"{file}:total", "--tests", "none", "--out", tmp_path / "out", *QUICK)
    done = invoke(*words, "--json", "--fail-on-no-gain")
    assert done.code == 1
    assert json.loads(done.out)["improved"] is False
    assert json.loads(done.out)["patch"] == ""
    done = invoke(*words)
    assert done.code == 0
    assert "nothing better was found" in done.out
    assert "no language model is named" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("{file}:uniqe",), "Did you mean 'unique'"),
        (("{file}",), "FILE.py:FUNCTION"),
        (("none.py:f",), "there is no file"),
        (("{file}:unique", "--equal", "about"), "--equal"),
        (("{file}:unique", "--objective", "joy"), "objective"),
        (("{file}:unique", "--budget", "soon"), "--budget"),
        (("{file}:unique", "--tests", "no/such/tests"), "no/such/tests"),
        (("{file}:unique", "--tests", "no-such-command -x"), "cannot be run"),
        (("{file}:unique", "--inputs", "none.json"), "none.json"),
        (("{file}:unique", "--apply", "--check"), "one of them"),
        (("{file}:unique", "--llm", "elsewhere:x"), "no address"),
        (("{file}:unique", "--propose", "magic"), "propose"),
    ],
)
def test_wrong_usage_is_told(
    invoke: Invoke, file: Path, words: tuple[str, ...], message: str
) -> None:
    done = invoke("improve", *[word.format(file=file) for word in words])
    assert done.code == 2, done.err
    assert message in done.err.replace("\n", " ")


def test_a_folder_that_cannot_be_written_is_told(invoke: Invoke, file: Path) -> None:
    words = ("improve", f"{file}:total", "--tests", "none", "--out", f"{file}/out")
    done = invoke(*words, *QUICK)
    assert done.code == 1
    assert "cannot write" in done.err


def test_failing_tests_end_with_1(invoke: Invoke, file: Path) -> None:
    (file.parent / "test_module.py").write_text("def test(): assert False\n")
    done = invoke("improve", f"{file}:unique")
    assert done.code == 1
    assert "before anything is changed" in done.err


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_the_file_and_can_be_run_again(
    file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    call = ("improve", f"{file}:unique", "--out", out, "--tests", "none", *QUICK, "--json")
    for wait in (0.5, 2.5, 5.0):
        with start(*call, cwd=tmp_path) as process, suppress(subprocess.TimeoutExpired):
            process.wait(wait)
        assert file.read_text() == SLOW
    assert sharpen(*call, cwd=tmp_path).returncode == 0
    assert json.loads((out / "report.json").read_text())["improved"]


@pytest.mark.slow
def test_an_interrupt_ends_with_130(file: Path, tmp_path: Path) -> None:
    call = ("improve", f"{file}:unique", "--out", tmp_path / "out", "--tests", "none", *QUICK)
    with start(*call, cwd=tmp_path) as process:
        assert process.stderr is not None
        while "inputs:" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "run the same command again" in said


@pytest.mark.slow
def test_the_slowest_function_of_a_program_is_improved(invoke: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "work.py").write_text(
        SLOW + "\n\nif __name__ == '__main__':\n"
        "    print(len(unique([str(i % 900) for i in range(3000)])), total([1, 2]))\n"
    )
    words = ("improve", folder, "--command", f"python {folder}/work.py", "--top", 1)
    done = invoke(*words, "--out", tmp_path / "out", *QUICK, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["improved"] == 1
    (row,) = found["functions"]
    assert row["target"].endswith("work.py:unique")
    assert row["share"] > 0.5
    assert row["evidence"]["inputs"]["tests"] == 1
    assert (tmp_path / "out" / "work.unique" / "patch.diff").exists()
    done = invoke("improve", folder)
    assert done.code == 2
    assert "--tests or --command" in done.err
