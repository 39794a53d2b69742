"""``sharpen code run`` and ``sharpen doctor sandbox``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sharpen.core.sandbox import detect_tiers, tiers
from sharpen.core.sandbox.tiers import Tiers

Invoke = Callable[..., Any]
needs_sandbox = pytest.mark.skipif(
    detect_tiers().best < 1, reason=detect_tiers().missing.get(1, "")
)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text("def f(x, y=1):\n    print('called')\n    return [x / y]\n")
    return path


def written(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


@needs_sandbox
def test_a_program_is_run_on_inputs(invoke: Invoke, program: Path, tmp_path: Path) -> None:
    inputs = written(tmp_path / "in.json", [[1], [6, 3]])
    line = (
        "code",
        "run",
        program,
        "--entry",
        "f",
        "--inputs",
        inputs,
        "--limits",
        "cpu=2,mem=256M",
    )
    done = invoke(*line, "--json")
    assert done.code == 0
    document = json.loads(done.out)
    assert document["status"] == "ok"
    assert document["outputs"] == [[1.0], [2.0]]
    assert document["stdout"] == "called\ncalled\n"
    assert document["tier"] == detect_tiers().best
    shown = invoke(*line)
    assert "1: [2.0]" in shown.out
    expected = written(tmp_path / "out.json", [[1.0], [3.0]])
    wrong = invoke(*line, "--expected", expected, "--json")
    assert wrong.code == 1
    assert json.loads(wrong.out)["status"] == "wrong"


@needs_sandbox
def test_an_error_shows_the_line(invoke: Invoke, program: Path, tmp_path: Path) -> None:
    inputs = written(tmp_path / "in.json", [[1, 0]])
    done = invoke("code", "run", program, "--entry", "f", "--inputs", inputs)
    assert done.code == 1
    assert "line 3, in f" in done.out
    assert "ZeroDivisionError: division by zero" in done.out


@needs_sandbox
def test_a_script_and_tests(invoke: Invoke, program: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print(6 * 7)\n")
    assert "42" in invoke("code", "run", script).out
    tests = tmp_path / "tests.py"
    tests.write_text("assert f(1) == [1.0]\nassert f(4, 2) == [2.0]\n")
    done = invoke("code", "run", program, "--entry", "f", "--tests", tests, "--json")
    assert json.loads(done.out)["counts"]["calls"] == 2
    assert invoke("code", "run", program, "--entry", "f", "--json").code == 1  # no argument


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("none.py",), "none.py does not exist"),
        (("{program}", "--limits", "cpu=much"), "give a number"),
        (("{program}", "--entry", "f", "--inputs", "{program}"), "no JSON"),
        (("{program}", "--entry", "f()"), "give a function's name"),
        (("{program}", "--tier", "best"), "give 'auto'"),
    ],
)
def test_wrong_usage_is_told(
    invoke: Invoke, program: Path, words: tuple[str, ...], message: str
) -> None:
    done = invoke("code", "run", *(w.format(program=program) for w in words))
    assert done.code == 2
    assert message in done.err


def test_no_sandbox_ends_in_3(
    invoke: Invoke, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = {1: "this kernel is without Landlock", 2: "needs tier 1", 3: "needs tier 2"}
    monkeypatch.setattr(tiers, "detect_tiers", lambda: Tiers(best=0, missing=missing))
    done = invoke("code", "run", program)
    assert done.code == 3
    assert "without Landlock" in done.err
    assert "--unsafe-no-sandbox" in done.err
    assert invoke("code", "run", program, "--unsafe-no-sandbox").code == 0


def test_the_doctor_tells_the_tiers(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    done = invoke("doctor", "sandbox", "--json")
    document = json.loads(done.out)
    assert document["best"] == detect_tiers().best
    assert done.code == (0 if document["best"] else 3)
    assert "Landlock" in invoke("doctor", "sandbox").out
    missing = dict.fromkeys((1, 2, 3), "use Linux")
    monkeypatch.setattr("sharpen.core.sandbox.detect_tiers", lambda: Tiers(best=0, missing=missing))
    refused = invoke("doctor", "sandbox")
    assert refused.code == 3
    assert "use Linux" in refused.out
