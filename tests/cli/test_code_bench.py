"""``sharpen code bench``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Invoke = Callable[..., Any]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "unique.py"
    path.write_text(
        "def slow(xs):\n    found = []\n    for x in xs:\n        if x not in found:\n"
        "            found.append(x)\n    return found\n\n"
        "def fast(xs):\n    return list(dict.fromkeys(xs))\n\n"
        "def cases():\n    return [([k * 7919 % n for k in range(n)],) for n in (50, 100, 400)]\n"
    )
    return path


def test_two_functions_are_compared(invoke: Invoke, file: Path) -> None:
    call = ("code", "bench", f"{file}:slow", f"{file}:fast", "--inputs", f"{file}:cases")
    done = invoke(*call, "--budget", 1, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["decision"] == "faster"
    assert found["low"] > 5
    assert len(found["per_input"]) == 3
    done = invoke(*call, "--budget", 1)
    assert "fast is faster:" in done.out.replace("\n", " ")


def test_one_function_is_timed(invoke: Invoke, file: Path) -> None:
    done = invoke("code", "bench", f"{file}:slow", "--inputs", f"{file}:cases", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert len(found["seconds"]) == len(found["opcodes"]) == 3
    assert found["growth"]["exponent"] > 1.3
    done = invoke("code", "bench", f"{file}:slow", "--inputs", f"{file}:cases")
    assert "time grows with n^" in done.out


def test_wrong_input_is_told(invoke: Invoke, file: Path) -> None:
    for call, message in (
        (("code", "bench", f"{file}:slow"), "--inputs"),
        (("code", "bench", f"{file}:none", "--inputs", f"{file}:cases"), "defines no 'none'"),
        (("code", "bench", file, "--inputs", f"{file}:cases"), "FUNCTION"),
        (("code", "bench", f"{file}:slow", "--inputs", "none.json"), "none.json"),
    ):
        done = invoke(*call)
        assert done.code == 2
        assert message in done.err.replace("\n", " ")


@pytest.mark.slow
def test_machine_instructions_are_counted(invoke: Invoke, file: Path) -> None:
    call = ("code", "bench", f"{file}:slow", f"{file}:fast", "--inputs", f"{file}:cases")
    done = invoke(*call, "--budget", 1, "--instructions", "--json")
    if shutil.which("valgrind") is None:
        assert done.code == 3
        assert "apt install valgrind" in done.err
        return
    assert done.code == 0, done.err
    before, after = json.loads(done.out)["instructions"]
    assert before > 3 * after > 0
