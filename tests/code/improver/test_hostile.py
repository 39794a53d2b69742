"""Functions, tests and texts that do not behave."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sharpen.code.improver.config import ImproveConfig
from sharpen.code.improver.equality import Equality
from sharpen.code.improver.improve import prepare
from sharpen.code.improver.observer import Watcher
from sharpen.code.improver.reference import BaselineError, Refuted, record_baseline
from sharpen.code.improver.target import locate
from sharpen.code.inputs import Input
from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError, UserError


def prepared(path: Path, entry: str = "f", **settings: Any) -> Any:
    with ExitStack() as stack:
        return prepare(path, entry, ImproveConfig(**settings), stack, say=lambda text: None)


def written(folder: Path, text: str, name: str = "module.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refuted(folder: Path, old: str, new: str, inputs: list[Input]) -> Refuted | None:
    """The first difference between two texts of a function ``f``."""
    target = locate(written(folder, old), "f")
    equality = Equality()
    with Watcher(target.program(), 0) as one, Watcher(target.program(), 1) as two:
        baseline = record_baseline(inputs, one, two, equality, judged=False)
    with Watcher(target.program(new)) as other:
        return baseline.refute(other, equality)


CALLS: list[Input] = [(([3, 1, 2],), {}), (([],), {}), (([5, 5],), {})]

DIFFERENT = {
    "another value": ("def f(x): return len(x)", "def f(x): return len(x) or 1"),
    "another class": ("def f(x): return len(x)", "def f(x): return float(len(x))"),
    "bool is not int": ("def f(x): return len(x) > 0", "def f(x): return int(len(x) > 0)"),
    "tuple is not list": ("def f(x): return [*x]", "def f(x): return (*x,)"),
    "minus zero": ("def f(x): return 0.0", "def f(x): return -0.0"),
    "last bit": ("def f(x): return 0.1 + 0.2", "def f(x): return 0.3"),
    "order of a dict": (
        "def f(x): return dict.fromkeys(['a', 'b'], 1)",
        "def f(x): return dict.fromkeys(['b', 'a'], 1)",
    ),
    "a key of another class": ("def f(x): return {1: 0}", "def f(x): return {True: 0}"),
    "mutation": ("def f(x):\n x.sort()\n return 1", "def f(x):\n sorted(x)\n return 1"),
    "no mutation": ("def f(x): return sorted(x)", "def f(x):\n x.sort()\n return [*x]"),
    "a copy is not the argument": ("def f(x): return x", "def f(x): return [*x]"),
    "rows that are one object": (
        "def f(x): return [[0] for _ in range(2)]",
        "def f(x): return [[0]] * 2",
    ),
    "another exception": ("def f(x): return x[7]", "def f(x): raise KeyError('x')"),
    "another message": ("def f(x): raise ValueError('a')", "def f(x): raise ValueError('b')"),
    "no exception": ("def f(x): return x[0]", "def f(x): return x[0] if x else None"),
    "printing": ("def f(x):\n print(len(x))", "def f(x): return None"),
    "printing to stderr": (
        "import sys\ndef f(x): print(1, file=sys.stderr)",
        "import sys\ndef f(x): print(2, file=sys.stderr)",
    ),
    "a variable of the module": (
        "last = None\ndef f(x):\n global last\n last = 1\n return 1",
        "last = None\ndef f(x): return 1",
    ),
    "a list for an iterator": ("def f(x): yield from x", "def f(x): return list(x)"),
    "an iterator that gives more": (
        "def f(x): yield from x",
        "def f(x):\n yield from x\n yield 1",
    ),
    "an iterator that raises at its end": (
        "def f(x): yield from x",
        "def f(x):\n yield from x\n raise ValueError",
    ),
    "an endless loop": ("def f(x): return len(x)", "def f(x):\n while True: pass"),
    "an end of the process": (
        "import os\ndef f(x): return len(x)",
        "import os\ndef f(x): os._exit(0)",
    ),
    "an exit": ("def f(x): return len(x)", "import sys\ndef f(x): sys.exit(0)"),
    "an object equal to all": (
        "def f(x): return len(x)",
        "class A(int):\n def __eq__(self, o): return True\ndef f(x): return A()",
    ),
    "recursion without end": ("def f(x): return len(x)", "def f(x): return f(x)"),
    "a coroutine for a value": ("def f(x): return f", "async def f(x): return 1"),
}

SAME = {
    "NaN": ("def f(x): return float('nan')", "def f(x): return float('inf') - float('inf')"),
    "iterators": ("def f(x): yield from x", "def f(x): return iter([*x])"),
    "coroutines": (
        "import asyncio\nasync def f(x):\n await asyncio.sleep(0)\n return len(x)",
        "async def f(x): return len(x)",
    ),
    "exceptions": (
        "def f(x): return x[7]",
        "def f(x): raise IndexError('list index out of range')",
    ),
    "a helper that is new": ("def f(x): return len(x)", "N = 1\ndef g(x): return len(x)\nf = g"),
    "objects": (
        "class A:\n def __init__(self, n): self.n = n\ndef f(x): return A(len(x))",
        "class A:\n def __init__(self, n): self.n = n\ndef f(x): return A(sum(1 for _ in x))",
    ),
    "sets": ("def f(x): return set(x)", "def f(x): return {one for one in x[::-1]}"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_difference_is_found(tmp_path: Path, name: str) -> None:
    assert refuted(tmp_path, *DIFFERENT[name], CALLS) is not None


@pytest.mark.parametrize("name", SAME)
def test_what_is_the_same_is_the_same(tmp_path: Path, name: str) -> None:
    assert refuted(tmp_path, *SAME[name], CALLS) is None


UNSTEADY = {
    "randomness": "import random\ndef f(x): return random.random()",
    "time": "import time\ndef f(x): return time.perf_counter_ns()",
    "the order of a set": "def f(x): return list({str(i) for i in range(20)})",
    "earlier calls": "count = 0\ndef f(x):\n global count\n count += 1\n return count",
    "a default that is kept": "def f(x, seen=[]):\n seen.append(len(x))\n return len(seen)",
    "the address of an object": "def f(x): return id(x)",
}


@pytest.mark.parametrize("name", UNSTEADY)
def test_a_function_that_does_not_do_the_same_twice_is_refused(tmp_path: Path, name: str) -> None:
    target = locate(written(tmp_path, UNSTEADY[name]), "f")
    with (
        Watcher(target.program(), 0) as one,
        Watcher(target.program(), 1) as two,
        pytest.raises(BaselineError, match="the same twice"),
    ):
        record_baseline(CALLS, one, two, Equality(), judged=False)


def test_a_result_that_cannot_be_compared_is_told(tmp_path: Path) -> None:
    target = locate(written(tmp_path, "def f(x): return object()"), "f")
    with (
        Watcher(target.program(), 0) as one,
        Watcher(target.program(), 1) as two,
        pytest.raises(BaselineError, match="cannot be compared"),
    ):
        record_baseline(CALLS, one, two, Equality(), judged=False)


def test_inputs_that_are_late_or_too_deep_are_left_out(tmp_path: Path) -> None:
    text = "def f(n):\n while n == 7: pass\n return 0 if n < 1 else 1 + f(n - 1)"
    target = locate(written(tmp_path, text), "f")
    calls: list[Input] = [((n,), {}) for n in (1, 7, 5, 100_000)]
    with Watcher(target.program(), 0) as one, Watcher(target.program(), 1) as two:
        # 7 is on the way from 100,000 down: both are late or too deep.
        baseline = record_baseline(calls, one, two, Equality(), judged=False)
    assert [call[0][0] for call in baseline.inputs] == [1, 5]
    assert sum(baseline.dropped.values()) == 2


REFUSED = {
    "def f(x):\n    exec('x = 1')\n": "exec",
    "def f(x):\n    return eval(x)\n": "eval",
    "import sys\ndef f(x):\n    return sys._getframe(1)\n": "frames",
    "async def f(x):\n    yield x\n": "asynchronous generator",
    "import functools\n@functools.lru_cache\ndef f(x):\n    return x\n": "remembers",
    "# @generated by a tool\ndef f(x):\n    return x\n": "generated",
    "def g():\n    def f(x):\n        return x\n    return f\n": "inside of another function",
    "def ff(x):\n    return x\n": "Did you mean 'ff'",
    "class f:\n    def g(self): pass\n": "f.g",
    "x = 1\n": "defines no functions",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_improved_is_refused_with_a_reason(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[text]):
        locate(written(tmp_path, text), "f")


def test_files_that_are_no_python_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        locate(tmp_path / "none.py", "f")
    for name, data, words in (
        ("empty.py", b"", "defines no functions"),
        ("wrong.py", b"def f(:\n", "wrong.py:1"),
        ("bytes.py", b"\xff\xfe\x00", "UTF-8"),
        ("null.py", b"x = 1\0", "null"),
        ("module.so", b"\x7fELF", "compiled"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=words):
            locate(tmp_path / name, "f")
    with pytest.raises(FileFormatError, match="folder"):
        locate(tmp_path, "f")


def test_a_module_that_does_not_load_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, "import no_such_package\ndef f(x: int): return x\n")
    with pytest.raises(Exception, match="no_such_package"):
        prepared(path, tests="none")


def test_tests_that_fail_or_are_flaky_stop_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "def f(x: int) -> int:\n    return x + 1\n")
    written(tmp_path, "from module import f\ndef test(): assert f(1) == 3\n", "test_module.py")
    with pytest.raises(BaselineError, match="fail before anything is changed"):
        prepared(path)
    written(
        tmp_path,
        "import os\ndef test(): assert os.environ['PYTHONHASHSEED'] == '0'\n",
        "test_module.py",
    )
    with pytest.raises(BaselineError, match="flaky"):
        prepared(path)


def test_without_inputs_there_is_a_template(tmp_path: Path) -> None:
    path = written(tmp_path, "def f(a, b):\n    return a.frobnicate(b)\n")
    with pytest.raises(ConfigError, match=r"--inputs cases\.py:cases") as caught:
        prepared(path)
    assert "(a, b)," in str(caught.value)
