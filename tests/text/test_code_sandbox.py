"""Proposed source runs in a sandbox: what crosses, what goes wrong, and where that is said."""

from __future__ import annotations

import asyncio
import collections  # noqa: F401 - proposed code uses it
import math  # noqa: F401 - proposed code uses it
import os
import textwrap
from dataclasses import dataclass
from math import sqrt  # noqa: F401 - proposed code uses it
from typing import Any

import numpy as np
import pytest

import sharpen.text as st
from sharpen.core.errors import ConfigError
from sharpen.core.sandbox import SandboxUnavailable, detect_tiers, tiers
from sharpen.core.sandbox.tiers import Tiers
from sharpen.text.code import CodeOp
from sharpen.text.surroundings import surroundings

needs_sandbox = pytest.mark.skipif(
    detect_tiers().best < 1, reason=detect_tiers().missing.get(1, "")
)
pytestmark = needs_sandbox

FACTOR = 10
TABLE = {"a": [1, 2], "b": (3,)}
LOADED = open
THING = object()


def twice(x: float) -> float:
    return deeper(x) * 2


def deeper(x: float) -> float:
    return x + FACTOR


@dataclass
class Pair:
    left: int
    right: int

    def total(self) -> int:
        return self.left + self.right


@st.op
def recorded(x: int) -> int:
    return x


def made(trust: str = "auto") -> CodeOp:
    offset = 5

    @st.op(trainable=True, trust=trust)  # type: ignore[arg-type]
    def step(x: Any, *, times: int = 1) -> Any:
        """Steps."""
        return x + offset

    assert isinstance(step, CodeOp)
    return step


def proposed(body: str, trust: str = "auto") -> CodeOp:
    step = made(trust)
    lines = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    step.parameter.value = f"def step(x, *, times=1):\n{lines}\n"
    return step


def test_what_the_user_wrote_runs_here_and_what_was_proposed_elsewhere() -> None:
    import inspect

    process = "import os\nreturn os.getpid()"
    assert proposed(process, "inline")(0).value == os.getpid()
    assert proposed(process)(0).value != os.getpid()
    mine = made()
    assert mine(THING_OR_ONE()).value == 6  # arguments of any type
    assert made("sandbox")(1).value == 6
    with pytest.raises(ConfigError, match="cannot go into a sandbox"):
        made("sandbox")(THING)
    with pytest.raises(ConfigError, match="auto, inline or sandbox"):
        made("never")
    assert inspect.getdoc(mine) == "Steps."


class THING_OR_ONE:
    def __add__(self, other: int) -> int:
        return 1 + other


def test_it_finds_what_is_around_it() -> None:
    body = """
        assert math.pi > 3 and sqrt(4) == 2 and collections.Counter('aa')['a'] == 2
        pair = Pair(left=1, right=x)
        return [FACTOR * times, TABLE, twice(x), offset, pair.total(), np.arange(2).sum()]
    """
    out = proposed(body)(4, times=3)
    assert out.value == [30, TABLE, 28, 5, 5, 1]
    assert TABLE == {"a": [1, 2], "b": (3,)}
    assert out.inputs[-1].name == "step_code"


def test_a_change_of_a_global_stays_there() -> None:
    step = proposed("TABLE['a'].append(x)\nreturn len(TABLE['a'])")
    assert step(1).value == 3
    assert step(1).value == 3
    assert TABLE["a"] == [1, 2]


def test_what_stays_behind_is_told_when_it_is_used() -> None:
    with pytest.raises(st.ExecutionError) as caught:
        proposed("y = 1\nreturn THING, recorded")(1)
    report = caught.value.node.value
    assert "name 'THING' is not defined: it is a object outside" in report
    assert "> 3     return THING, recorded" in report
    found = surroundings("def f(): return THING, recorded, LOADED, FACTOR, math", twice)
    assert set(found.left_behind) == {"THING", "recorded"}
    assert found.values == {"FACTOR": 10}
    assert "import math as math" in found.imports


@pytest.mark.parametrize(
    ("body", "line", "says"),
    [
        ("y = 1\nreturn x / 0", 3, "ZeroDivisionError in 'step': division by zero"),
        ("return {}['key']", 2, "KeyError in 'step': 'key'"),
        ("def inner(y):\n    return y.nothing\nreturn inner(x)", 3, "has no attribute 'nothing'"),
        ("return deeper('a')", 2, "TypeError in 'step': can only concatenate str"),
        ("import os\nos.listdir('/root')\nreturn 1", 3, "PermissionError in 'step'"),
        ("import socket\nreturn socket.socket()", 3, "PermissionError in 'step'"),
        ("import sys\nsys.exit(0)", 3, "exited early"),
        ("while True: x = x", None, "TimeoutError in 'step': it used its 10 s of processor"),
        ("return 'x' * (1 << 40)", None, "MemoryError in 'step'"),
        ("import os\nos._exit(0)", None, "exited early"),
        ("import os\nos.kill(os.getpid(), 11)", None, "killed: the signal SIGSEGV"),
        ("while True: print('x' * 1000)", None, "output_limit: it printed more"),
        ("return (i for i in range(3))", None, "a value of the type generator, which cannot leave"),
    ],
)
def test_what_goes_wrong_takes_feedback_and_marks_the_line(
    body: str, line: int | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "10 s" in says:
        pytest.importorskip("resource")
        from sharpen.core.sandbox import Limits, SandboxPool
        from sharpen.text import sandboxed

        says = says.replace("10 s", "0.3 s")
        with SandboxPool(1, limits=Limits(cpu_s=0.3)) as pool:
            monkeypatch.setattr(sandboxed, "_pool", lambda packages: pool)
            _check(body, line, says)
    else:
        _check(body, line, says)


def _check(body: str, line: int | None, says: str) -> None:
    step = proposed(body)
    with pytest.raises(st.ExecutionError) as caught:
        step(1)
    report = caught.value.node.value
    assert says in report
    marked = [text for text in report.splitlines() if text.startswith(">")]
    assert [int(text.split()[1]) for text in marked] == ([] if line is None else [line])
    caught.value.node.backward(report)
    assert step.parameter.pending


def test_a_wrong_call_is_the_callers_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'more'"):
        proposed("return x")(1, more=2)


def test_a_method_sees_the_plain_attributes_of_its_object() -> None:
    class Policy:
        def __init__(self) -> None:
            self.weight = 3
            self.other = THING

        @st.op(trainable=True)
        def act(self, x: int) -> int:
            return self.weight * x

    policy = Policy()
    assert policy.act(2).value == 6
    Policy.__dict__["act"].parameter.value = "def act(self, x):\n    return self.weight - x\n"
    assert policy.act(2).value == 1
    Policy.__dict__["act"].parameter.value = "def act(self, x):\n    return self.other\n"
    with pytest.raises(st.ExecutionError, match="has no field 'other'"):
        policy.act(2)


def test_a_coroutine_is_awaited() -> None:
    @st.op(trainable=True)
    async def step(x: int) -> int:
        return x

    assert isinstance(step, CodeOp)
    step.parameter.value = (
        "async def step(x):\n    import asyncio\n    await asyncio.sleep(0)\n    return x + 1\n"
    )

    async def both() -> list[Any]:
        return [node.value for node in await asyncio.gather(step(1), step(2))]

    assert asyncio.run(both()) == [2, 3]
    step.parameter.value = "async def step(x):\n    return x / 0\n"
    with pytest.raises(st.ExecutionError, match="> 2     return x / 0"):
        asyncio.run(step(1))


def test_arrays_and_records_cross() -> None:
    out = proposed("return x.T @ x, Pair(1, 2)")(np.eye(2))
    assert np.array_equal(out.value[0], np.eye(2))
    assert out.value[1].left == 1


def test_nothing_of_this_process_is_in_reach() -> None:
    os.environ["TEXT_SECRET"] = "secret"
    body = """
        import gc, os, sys
        seen = [k for k in os.environ if 'SECRET' in k]
        seen += [m for m in sys.modules if m.startswith(('sharpen', 'pytest'))]
        return seen
    """
    assert proposed(body)(1).value == []


def test_without_a_sandbox_proposed_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = dict.fromkeys((1, 2, 3), "this kernel is without Landlock")
    monkeypatch.setattr(tiers, "detect_tiers", lambda: Tiers(best=0, missing=missing))
    monkeypatch.setattr("sharpen.text.sandboxed._POOLS", {})
    with pytest.raises(SandboxUnavailable, match="without Landlock"):
        proposed("return x")(1)
    assert proposed("return x", "inline")(1).value == 1


def test_search_over_code_runs_what_it_tries_in_a_sandbox() -> None:
    tried: set[str] = set()

    @st.op(trainable=True)
    def guess(x: int) -> Any:
        return [x + 1, 0]

    assert isinstance(guess, CodeOp)
    optimizer = st.SearchProposer([guess.parameter], seed=0)
    for _ in range(30):
        try:
            out = guess(4)
        except st.ExecutionError as error:
            error.node.backward(error.node.value)
        else:
            right = isinstance(out.value, list) and out.value[:1] == [7]
            out.backward(st.Feedback(score=float(right)))
        tried.add(guess.parameter.value)
        optimizer.step()
        optimizer.zero_feedback()
    assert len(tried) > 3
