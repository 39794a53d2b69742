"""Arguments for which two texts differ, looked for by solving for them.

Examples that are made up meet ``a == 1234 and b == 77`` by luck alone. CrossHair executes both
functions with symbols in the place of arguments, collects what each branch demands of them, and
asks an SMT solver (Z3: de Moura and Bjorner, TACAS 2008) for arguments that take each path
(King, *Symbolic Execution and Program Testing*, CACM 1976). Where all paths were gone through, no
difference means none for the hinted types; most often time ends first.

It runs the code, in a process of its own with limits of time and memory, and stops it where it
would touch files or the network; that is no sandbox, so it is for code that is trusted. What it
finds is tried on the functions themselves before it is believed.
"""

from __future__ import annotations

import ast
import importlib.util
import math
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sharpen.code.improver.target import Target
from sharpen.code.inputs import Input

__all__ = ["Symbolic", "difference_by_solving", "has_solver"]

_MEMORY_BYTES = 4 << 30
_START_S = 30.0  # of wall time, beside what the search may take
_BEFORE, _AFTER = "sharpen_before", "sharpen_after"
_GIVEN = re.compile(r"^Given: (\(.*\)),$", re.MULTILINE)

_MAKERS: dict[str, Any] = {
    "float": float,
    "set": set,
    "frozenset": frozenset,
    "bytearray": bytearray,
    "nan": math.nan,
    "inf": math.inf,
}

Outcome = Literal["no difference found", "difference", "not applicable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbolic:
    """What came of the search.

    Args:
        outcome: of it.
        seconds: it might take, of processor time.
        exhausted: whether all paths were gone through.
        reason: why it is not applicable, or what differs.
        calls: arguments for which the two are said to differ.
    """

    outcome: Outcome
    seconds: float
    exhausted: bool = False
    reason: str = ""
    calls: list[Input] = field(default_factory=list)

    def summary(self) -> str:
        """Part of a report."""
        if self.outcome == "not applicable":
            return f"not applicable: {self.reason}"
        if self.outcome == "difference":
            return f"a difference: {self.reason}"
        paths = "on any path" if self.exhausted else f"within {self.seconds:g} s; paths are left"
        doubt = f" ({self.reason})" if self.reason else ""
        return f"no difference found {paths}{doubt}"


def has_solver() -> bool:
    """Whether CrossHair is installed."""
    return importlib.util.find_spec("crosshair") is not None


def difference_by_solving(target: Target, text: str, *, seconds: float) -> Symbolic:
    """Look for arguments for which another text of a function differs.

    Args:
        target: the function.
        text: the other text of its file, which is trusted.
        seconds: of processor time that the search may take.
    """
    reason = _not_applicable(target)
    if reason:
        return Symbolic(outcome="not applicable", seconds=seconds, reason=reason)
    with tempfile.TemporaryDirectory(prefix="sharpen-symbolic-") as made:
        folder = Path(made)
        for name, one in ((_BEFORE, target.text), (_AFTER, text)):
            (folder / f"{name}.py").write_bytes(one.encode("utf-8", "surrogatepass"))
        code, printed, failed = _run(target, folder, seconds)
    if code is None:
        words = "it did not end in time"
        return Symbolic(outcome="not applicable", seconds=seconds, reason=words)
    if code == 0:
        exhausted = "All paths exhausted" in printed
        return Symbolic(outcome="no difference found", seconds=seconds, exhausted=exhausted)
    found = [_call(words, target) for words in _GIVEN.findall(printed)]
    calls = [call for call in found if call is not None]
    if code != 1 or not _GIVEN.search(printed):
        lines = [line for line in f"{printed}\n{failed}".splitlines() if line.strip()]
        words = f"crosshair: {lines[-1][:200] if lines else f'it left with the code {code}'}"
        return Symbolic(outcome="not applicable", seconds=seconds, reason=words)
    first = " ".join(printed.split())[:300]
    return Symbolic(outcome="difference", seconds=seconds, reason=first, calls=calls)


def _not_applicable(target: Target) -> str:
    """Why a function cannot be searched; empty where it can."""
    if target.kind not in ("function", "staticmethod"):
        return "it is a method"
    given = target.node.args
    if isinstance(target.node, ast.AsyncFunctionDef):
        return "it is a coroutine"
    if any(isinstance(one, (ast.Yield, ast.YieldFrom)) for one in ast.walk(target.node)):
        return "it is a generator"
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    bare = [one.arg for one in arguments if one.annotation is None]
    if bare:
        return f"it has no type hint for {', '.join(bare)}"
    if given.vararg or given.kwarg:
        return "it takes any number of arguments"
    tree = ast.parse(target.text)
    relative = any(isinstance(one, ast.ImportFrom) and one.level for one in ast.walk(tree))
    return "its module imports relatively" if relative else ""


def _run(target: Target, folder: Path, seconds: float) -> tuple[int | None, str, str]:
    """The code with which it ended, None where it did not; what it printed, and to stderr."""
    line = [
        *(sys.executable, "-m", "crosshair", "diffbehavior"),
        *(f"{_BEFORE}.{target.entry}", f"{_AFTER}.{target.entry}"),
        *("--per_condition_timeout", f"{seconds:g}", "--exception_equivalence", "SAME_TYPE"),
    ]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [str(folder), *target.program().path, *filter(None, given)]
    process = subprocess.Popen(
        line,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0"},
        preexec_fn=_limit_memory,
    )
    try:
        printed, failed = process.communicate(timeout=3 * seconds + _START_S)
    except subprocess.TimeoutExpired:
        return None, "", ""
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    return process.returncode, printed, failed


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))


def _call(words: str, target: Target) -> Input | None:
    """The arguments of ``(a=1, b=[2])``; None where one is no plain value."""
    try:
        node = ast.parse(f"f{words}", mode="eval").body
        assert isinstance(node, ast.Call)
        named = {one.arg: _value(one.value) for one in node.keywords if one.arg is not None}
    except (SyntaxError, ValueError, TypeError, NameError):
        return None
    only = {one.arg for one in target.node.args.kwonlyargs}
    args = tuple(named[name] for name in target.signature.parameters if name not in only)
    return args, {name: value for name, value in named.items() if name in only}


def _value(node: ast.expr) -> Any:
    """A value from its ``repr``, such as ``{1: float('nan')}``."""
    calls = [one.func for one in ast.walk(node) if isinstance(one, ast.Call)]
    if not all(isinstance(one, ast.Name) and one.id in _MAKERS for one in calls):
        raise ValueError("it is made by a call")
    if any(isinstance(one, (ast.Attribute, ast.Lambda)) for one in ast.walk(node)):
        raise ValueError("it is no value")
    whole = ast.fix_missing_locations(ast.Expression(node))
    return eval(compile(whole, "<arguments>", "eval"), {"__builtins__": {}, **_MAKERS})
