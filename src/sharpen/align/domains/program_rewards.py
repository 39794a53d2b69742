"""Rewards of small programs, exact and quick: they run here, or in the sandbox as any program.

::

    kind       no program   fails   some wrong            all right
    outcome      -1          -0.6      -0.3                   1
    share         0            0       share of the tests     1
    speed        -1          -0.6      -0.3        0.5 + 0.5 clip(log(c_ref / c) / log 4, -1, 1)

``outcome`` is that of B-Coder (Yu et al., ICLR 2024, arXiv 2310.03173); c is the cost of the
program, c_ref that of the row's solution, in instructions of the interpreter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from sharpen.align.domains.programs import cost, is_program, python_source, run_tests
from sharpen.align.rewards.code import CodeReward
from sharpen.align.rewards.registry import Meta
from sharpen.core.errors import ConfigError, DataError

__all__ = ["ProgramReward"]

Kind = Literal["outcome", "share", "speed"]
_S_MAX = 4.0
_STEPS = {"compile": -1.0, "error": -0.6, "wrong": -0.3}


@dataclass(frozen=True, kw_only=True)
class ProgramReward:
    """Runs programs on the row's ``tests``; see the module."""

    kind: Kind = "outcome"

    isolated: bool = False
    """Run them in a sandbox, as programs of unknown languages must be; ``outcome`` and ``speed``
    alone."""

    _code: list[CodeReward] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(
                f"kind={self.kind!r} of the reward 'programs': outcome, share, speed."
            )
        if self.isolated and self.kind == "share":
            raise ConfigError("isolated=True of the reward 'programs' needs outcome or speed.")

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Meta]
    ) -> list[float | None]:
        """The reward of each completion."""
        one = self._isolated if self.isolated else self._here
        return [one(text.strip(), about) for text, about in zip(completions, meta, strict=True)]

    def close(self) -> None:
        """End the sandboxes of this process."""
        for code in self._code:
            code.close()

    def _here(self, program: str, about: Meta) -> float:
        tests = _tests(about)
        found = run_tests(program, tests)
        if self.kind == "share":
            return 0.0 if found.ending == "error" else found.passed
        if found.ending != "correct":
            return _STEPS[found.ending]
        if self.kind == "outcome":
            return 1.0
        inputs = tuple(given for given, _ in tests)
        speed = math.log(cost(_solution(about), inputs) / cost(program, inputs)) / math.log(_S_MAX)
        return 0.5 + 0.5 * min(max(speed, -1.0), 1.0)

    def _isolated(self, program: str, about: Meta) -> float | None:
        if not is_program(program):
            return _STEPS["compile"]
        if not self._code:
            clock: Literal["opcodes", "none"] = "opcodes" if self.kind == "speed" else "none"
            self._code.append(CodeReward(clock=clock, s_max=_S_MAX, dead_zone=0.0))
        tests = _tests(about)
        judged = {
            "entry": "f",
            "inputs": [[given] for given, _ in tests],
            "expected": [expected for _, expected in tests],
            "reference": python_source(_solution(about)),
        }
        return self._code[0]([""], [python_source(program)], [judged])[0]


def _tests(about: Meta) -> Sequence[Sequence[str]]:
    tests = about.get("tests")
    if not isinstance(tests, (list, tuple)) or not tests:
        raise DataError("the reward 'programs' needs the key 'tests' in every row.")
    return tests


def _solution(about: Meta) -> str:
    if not is_program(str(about.get("solution"))):
        raise DataError("the reward 'programs' needs the key 'solution', a program, in every row.")
    return str(about["solution"])
