"""A language model that proposes: what is asked, what is run where, what is believed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sharpen import LM, Scripted
from sharpen.code import improve
from sharpen.code.improver.config import ImproveConfig
from sharpen.code.improver.llm import pairs_like, spliced
from sharpen.code.improver.output import apply_result, write_results
from sharpen.code.improver.suspicion import complaint, suspicions
from sharpen.code.improver.target import locate
from sharpen.code.inputs import Input
from sharpen.core.errors import ConfigError

SLOW = """import math

LIMIT = 3


def f(xs):
    # a comment that stays
    found = []
    for x in xs:
        if not any(x == one for one in found):
            found.append(x)
    return found


def other():
    return LIMIT
"""
CALLS: list[Input] = [(([3, 1, 3, 2, 1],), {}), (([],), {})]
FAST = "Sure:\n```python\ndef f(xs):\n    return list(dict.fromkeys(xs))\n```\n"
WRONG = "```python\ndef f(xs):\n    return sorted(set(xs))\n```"
QUICK: dict[str, Any] = {
    "levels": 1,
    "top_s": 0.005,
    "propose": ("llm",),
    "rounds": 1,
    "samples": 1,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "module.py"
    path.write_text(SLOW)
    return path


@pytest.mark.slow
def test_the_fast_one_of_three_replies_is_kept(file: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def reply(request: Any) -> str:
        asked.append(request.prompt)
        return (WRONG, FAST)[min(len(asked) - 1, 1)]

    result = improve(file, "f", inputs=CALLS, lm=LM(Scripted(reply)), **QUICK)
    assert [one.verdict for one in result.attempts] == ["wrong", "kept"]
    assert result.improved, result.why
    assert result.origin == "llm"
    assert "dict.fromkeys" in result.patch
    assert "a comment that stays" not in result.text  # it was in the function
    assert "def other():\n    return LIMIT\n" in result.text
    # The first question holds the code and its profile, the second what was wrong with the reply.
    write_results(result, tmp_path / "out", ImproveConfig())
    line = [sys.executable, str(tmp_path / "out" / "reproduce.py")]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no difference" in done.stdout
    with pytest.raises(ConfigError, match="trust-llm"):
        apply_result(result, ImproveConfig())
    assert file.read_text() == SLOW
    assert "a comment that stays" in asked[0]
    assert "memory   line" in asked[0]
    assert asked[0].count("faster:\n```python") == 2
    assert "wrong: for" in asked[1]


def test_code_of_a_model_runs_in_the_sandbox(file: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    reply = (
        "```python\nimport pathlib\ndef f(xs):\n"
        f"    pathlib.Path({str(mark)!r}).touch()\n    return list(dict.fromkeys(xs))\n```"
    )
    settings = {**QUICK, "rounds": 0, "allow": ("pathlib",)}
    result = improve(file, "f", inputs=CALLS, lm=LM(Scripted([reply])), **settings)
    assert not result.improved
    assert [one.verdict for one in result.attempts] == ["wrong"]
    assert not mark.exists()


def test_a_model_that_gives_nothing_is_no_error(file: Path) -> None:
    said: list[str] = []
    lm = LM(Scripted(["I cannot help with that."]))
    result = improve(file, "f", inputs=CALLS, lm=lm, say=said.append, **QUICK)
    assert not result.improved
    assert result.attempts == []
    assert any("language model" in line for line in said)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def f(xs):\n    import sys\n    return sys", "imports sys"),
        ("def f(xs, more=1): return xs", "its arguments are"),
        ("def g(xs): return xs", "does not define 'f'"),
        ("async def f(xs): return xs", "async"),
        ("def f(xs) return", "no Python"),
    ],
)
def test_a_text_that_may_not_stand_for_the_module_is_refused(code: str, words: str) -> None:
    assert words in str(complaint("def f(xs): return xs\n", code, "f", ()))


@pytest.mark.parametrize(
    "code",
    [
        "def f(xs): return eval('xs')",
        "def f(xs): return open('test_module.py').read()",
        "def f(xs): return f.__globals__",
        "def f(xs):\n    global last\n    last = xs",
        "import gc\ndef f(xs): return gc.get_objects()",
        "_KEPT = {}\ndef f(xs): return _KEPT.setdefault(tuple(xs), xs)",
        f"def f(xs): return {list(range(30))!r}",
    ],
)
def test_what_could_deceive_a_test_is_seen(code: str) -> None:
    assert suspicions("def f(xs): return xs\n", code, [list(range(30))])


def test_what_the_module_does_already_is_no_suspicion() -> None:
    old = "_KEPT = {}\ndef f(xs): return eval(xs)\n"
    assert suspicions(old, old.replace("eval(xs)", "eval( xs )"), [1]) == []
    assert suspicions("def f(xs): return 1\n", "def f(xs): return 1 + 0\n", [1]) == []


def test_examples_are_of_functions_that_do_alike() -> None:
    letters = (
        "def letter(text: str) -> str:\n    best = ''\n    for one in text:\n"
        "        if best == '' or text.count(one) > text.count(best):\n            best = one\n"
        "    return best\n"
    )
    found = pairs_like(letters)
    assert len(found) == 2
    for pair in found:
        assert ".count(" in pair.slow
        assert ".count(" not in pair.fast
    # A model is not shown the answer where one of these is what it is asked for.
    assert found[1] not in pairs_like(found[1].slow)


def test_a_method_is_replaced_with_its_indentation_and_imports(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_bytes(
        b"class A:\r\n    @staticmethod\r\n    def f(x):\r\n        return x\r\n\r\nB = 1\r\n"
    )
    text = spliced(locate(path, "A.f"), "import math\n\ndef f(x):\n    return math.floor(x)\n")
    assert text == (
        "class A:\r\n    @staticmethod\r\n    def f(x):\r\n        import math\r\n"
        "        return math.floor(x)\r\n\r\nB = 1\r\n"
    )
