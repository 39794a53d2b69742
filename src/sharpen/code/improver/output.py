"""The folder of results: patch, reports, a test, and what checks the claim again."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharpen.code.improver.config import ImproveConfig
from sharpen.code.improver.observer import error_name
from sharpen.code.improver.patch import apply_text, write_text
from sharpen.code.improver.report import write_markdown, write_page
from sharpen.code.improver.result import ImproveResult, Proof
from sharpen.code.improver.testing import run_tests
from sharpen.code.inputs import Input
from sharpen.core.errors import ConfigError, ExecutionError, storage_errors
from sharpen.core.files import atomic_write_bytes, atomic_write_json, atomic_write_text
from sharpen.core.sandbox import encode

__all__ = ["apply_result", "regression_test", "write_results"]

_MOST_CASES = 40
_LONGEST = 600  # characters of a case in the test
_REPRODUCE = '''"""Compare the improved text with the original again, and time both.

What a language model wrote runs in a sandbox, unless --trust-llm is given.
"""

import sys
from pathlib import Path

from sharpen.code.improver.reproducing import reproduce

sys.exit(reproduce(Path(__file__).parent, trust_llm="--trust-llm" in sys.argv))
'''


def write_results(result: ImproveResult, out: Path, config: ImproveConfig) -> None:
    """Write all files of a result to a folder.

    Raises:
        StorageError: they cannot be written.
    """
    proof = result.proof
    assert proof is not None
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    atomic_write_json(out / "report.json", _finite(result.to_dict()))
    write_markdown(result, out / "report.md")
    write_page(result, out / "report.html")
    if not result.improved:
        for name in ("patch.diff", "reproduce.py", "reproduce.json", "inputs.bin"):
            with storage_errors(out / name, doing="remove"):
                (out / name).unlink(missing_ok=True)
        return
    location = proof.location
    atomic_write_bytes(out / "patch.diff", result.patch.encode("utf-8"))
    atomic_write_bytes(out / "original.py.txt", location.text.encode("utf-8"))
    atomic_write_bytes(out / "improved.py.txt", result.text.encode("utf-8"))
    atomic_write_bytes(out / "inputs.bin", encode((_plain(proof.inputs), proof.timed)))
    atomic_write_json(
        out / "reproduce.json",
        {
            "format": 1,
            "file": str(location.file),
            "root": str(location.root),
            "entry": location.entry,
            "equal": config.equal,
            "min_gain": config.min_gain,
            "objective": config.objective,
            "origin": result.origin,
            "packages": sorted({"numpy", *config.allow}),
        },
    )
    atomic_write_text(out / "reproduce.py", _REPRODUCE)
    test = regression_test(proof)
    if test:
        atomic_write_text(out / f"test_improved_{location.name.strip('_')}.py", test)


def _finite(value: Any) -> Any:
    """Plain data without infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(inputs: list[Input]) -> list[Any]:
    return [(tuple(args), dict(kwargs)) for args, kwargs in inputs]


def apply_result(result: ImproveResult, config: ImproveConfig) -> str:
    """Write the change to the file, run the tests, and take it back where they fail.

    Returns:
        What was done.

    Raises:
        ConfigError: a language model wrote it, and that is not trusted.
        BusyError: the file has changed since it was read.
        ExecutionError: the tests fail; the file is as it was.
    """
    proof = result.proof
    assert proof is not None
    if result.origin == "llm" and not config.trust_llm:
        raise ConfigError(
            "a language model wrote this change, and it has run in the sandbox alone: read it, then"
            " apply it with git apply, or give --trust-llm with --apply."
        )
    location = proof.location
    apply_text(location, result.text)
    if proof.command is None:
        return f"{location.file} is changed; there are no tests"
    run = run_tests(proof.command, location, limit_s=config.tests_limit_s)
    if not run.passed:
        write_text(location.file, location.text)
        raise ExecutionError(
            f"the tests fail with the change, so that {location.file} is as it was.\n{run.output}"
        )
    return f"{location.file} is changed, and its tests pass"


def regression_test(proof: Proof) -> str:
    """A test of the function with what the original gave; empty where no value can be written."""
    location = proof.location
    if location.kind in ("method", "classmethod") or location.is_async:
        return ""
    cases = []
    for (args, kwargs), seen in zip(proof.inputs, proof.expected, strict=True):
        case = _case(args, kwargs, seen)
        if case is not None and len(case) <= _LONGEST:
            cases.append(f"    {case},\n")
        if len(cases) >= _MOST_CASES:
            break
    if not cases:
        return ""
    return _TEST.format(
        name=location.name,
        entry=location.entry,
        function=location.entry.replace(".", "_").strip("_"),
        root=str(location.root),
        module=location.module,
        cases="".join(cases),
    )


def _case(args: Any, kwargs: Any, seen: Mapping[str, Any]) -> str | None:
    """A call and what it gives as Python writes them; None where that cannot be."""
    error = seen["error"]
    if error is not None:
        name = error_name(seen).rpartition(".")[2]
        outcome = name if name.isidentifier() else None
        expected = None
    else:
        outcome, expected = "", seen["value"]
    call = (tuple(args), dict(kwargs), expected)
    text = repr(call)
    try:
        same = repr(ast.literal_eval(text)) == text
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if outcome is None or not same:
        return None
    return f"({call[0]!r}, {call[1]!r}, {expected!r}, {outcome!r})"


_TEST = '''"""What {entry} gave before it was made faster."""

import importlib
import sys

import pytest

sys.path.insert(0, {root!r})
{name} = importlib.import_module({module!r}).{entry}

CASES = [
    # arguments, arguments by name, result, class of the exception
{cases}]


@pytest.mark.parametrize(("args", "kwargs", "expected", "error"), CASES)
def test_{function}(args, kwargs, expected, error):
    if error:
        with pytest.raises(Exception) as caught:
            {name}(*args, **kwargs)
        assert type(caught.value).__name__ == error
    else:
        assert repr({name}(*args, **kwargs)) == repr(expected)
'''
