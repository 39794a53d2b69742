"""Runs programs that search proposes in a sandbox, and says which examples they get right."""

from __future__ import annotations

import ast
from typing import Any

from sharpen.core.sandbox import Job, Limits, Raised, SandboxPool, Status

__all__ = ["Runner", "arguments_of"]

_LIMITS = Limits(cpu_s=0.5, wall_s=5.0, memory_bytes=1 << 30)
_TEST_LIMITS = Limits(cpu_s=4.0, wall_s=20.0, memory_bytes=1 << 30)


def arguments_of(call: str, entry: str) -> list[Any] | None:
    """The arguments of a call of ``entry`` with plain values; None where it is something else."""
    try:
        node = ast.parse(call, mode="eval").body
        if not isinstance(node, ast.Call) or node.keywords:
            return None
        if not isinstance(node.func, ast.Name) or node.func.id != entry:
            return None
        return [ast.literal_eval(argument) for argument in node.args]
    except (SyntaxError, ValueError):
        return None


class Runner:
    """One sandbox.

    Attributes:
        jobs: how many programs were run.
        tier: of the sandbox.
    """

    def __init__(self) -> None:
        self.pool = SandboxPool(1)
        self.jobs = 0
        self.tier = self.pool.plan.tier

    def examples(
        self, source: str, entry: str, examples: list[tuple[list[Any], Any]]
    ) -> list[dict[str, Any]]:
        """What each call gives: ``{"right": bool}``, with ``error`` and ``line`` where it raised.

        Args:
            source: of the program.
            entry: the function that is called.
            examples: pairs of arguments and the value they should give.
        """
        inputs = [given for given, _ in examples]
        job = Job(source=source, entry=entry, inputs=inputs, catch=True, limits=_LIMITS)
        result = self.pool.run(job)
        self.jobs += 1
        told: list[dict[str, Any]] = []
        for (given, want), output in zip(examples, result.outputs, strict=False):
            if isinstance(output, Raised):
                told.append({"right": False, **self._raised(source, entry, given)})
            else:
                told.append({"right": equal(output, want)})
        if len(told) < len(examples):
            error = str(result.error or result.status)
            frames = result.error.frames if result.error is not None else ()
            found = {"right": False, "error": error, "line": frames[-1][0] if frames else None}
            told += [found] * (len(examples) - len(told))
        return told

    def _raised(self, source: str, entry: str, given: list[Any]) -> dict[str, Any]:
        """The error of one call, and its line."""
        self.jobs += 1
        result = self.pool.run(Job(source=source, entry=entry, inputs=[given], limits=_LIMITS))
        frames = result.error.frames if result.error is not None else ()
        return {"error": str(result.error), "line": frames[-1][0] if frames else None}

    def passes(self, source: str, test: str, entry: str) -> bool:
        """Whether a program passes tests."""
        self.jobs += 1
        job = Job(source=source, entry=entry, tests=test, limits=_TEST_LIMITS)
        return self.pool.run(job).status is Status.OK

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.close()


def equal(given: Any, want: Any) -> bool:
    """Whether a value is the one wanted; numbers to a millionth."""
    is_truth = isinstance(given, bool), isinstance(want, bool)
    if isinstance(given, float) or isinstance(want, float):
        numbers = all(isinstance(v, int | float) for v in (given, want)) and not any(is_truth)
        return numbers and abs(given - want) <= 1e-6 * max(1.0, abs(want))
    return bool(given == want) and is_truth[0] == is_truth[1]
