"""Rewards of programs: right first, then fast.

``code``, after Yang et al., *ACECode: a reinforcement learning framework for aligning code
efficiency and correctness in code language models*, 2024 (arXiv 2412.17264), which describes steps
and no numbers that we could check; the numbers are ours::

    does not parse, or lacks the function            -1.0
    breaks out of the sandbox, tampers with clocks   -1.0
    time or memory runs out                          -0.6
    raises                                           -0.6
    wrong output                                     -0.3
    correct       0.5 + 0.5 clip(log(t_ref / t) / log(s_max), -1, 1)

``code:perf``, after Duan et al., *PerfRL: a small language model framework for efficient code
optimization*, 2023 (arXiv 2312.05657)::

    does not parse    0        runs, and fails or is wrong    1
    correct         1.3        correct and faster             2

Differs from the papers: programs run in a sandbox and are timed in turns with the reference; a
difference of less than 5 % is none; a failure of the sandbox gives no reward at all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from sharpen.align.rewards.cases import case_key
from sharpen.align.rewards.judging import Judge
from sharpen.align.rewards.registry import Meta
from sharpen.align.rewards.scripts import ScriptJudge
from sharpen.align.rewards.verdict import Clock, JudgeConfig, Outcome, Verdict
from sharpen.core.config import digest
from sharpen.core.errors import ConfigError

__all__ = ["CodeReward", "PerfReward"]


@dataclass(frozen=True, kw_only=True)
class _Judged(ABC):
    """What both rewards share."""

    clock: Clock = "cpu"
    """``cpu``: processor time, in turns with the reference. ``opcodes``: instructions of the
    interpreter, the same in every run, but blind to work in C. ``none``: only whether it is
    right. Machine instructions are not offered: valgrind does not run in the sandbox."""

    repeats: int = 5
    """Pairs of timed runs."""

    dead_zone: float = 0.05
    """``|log(t_ref / t)|`` below this counts as 0."""

    cpu_s: float = 5.0
    """Processor time that a program may take, seconds."""

    memory_bytes: int = 1 << 30
    """Memory that it may take."""

    tier: int | str = "auto"
    """Of the sandbox."""

    _judges: dict[str, Judge | ScriptJudge] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.clock not in get_args(Clock):
            raise ConfigError(f"clock={self.clock!r} of a code reward: cpu, opcodes or none.")
        if self.repeats < 1 or not self.cpu_s > 0 or not self.dead_zone >= 0:
            raise ConfigError(
                f"repeats={self.repeats} must be at least 1, cpu_s={self.cpu_s} above 0 and"
                f" dead_zone={self.dead_zone} not below 0."
            )

    def verdict(self, completion: str, meta: Meta) -> Verdict:
        """How a reply's program ends and how fast it is; raises as :meth:`Judge.judge`."""
        kind = "scripts" if "stdin" in meta else "functions"
        if kind not in self._judges:
            names = ("clock", "repeats", "dead_zone", "cpu_s", "memory_bytes", "tier")
            config = JudgeConfig(**{name: getattr(self, name) for name in names})
            self._judges[kind] = Judge(config) if kind == "functions" else ScriptJudge(config)
        return self._judges[kind].judge(completion, meta)

    def cache_key(self, prompt: Any, completion: str, meta: Meta) -> str:
        """A digest of the reply, of how it is judged, and of the settings."""
        return digest([completion, case_key(meta), self.clock, repr(self)])

    def close(self) -> None:
        """End the sandboxes of this process."""
        for judge in self._judges.values():
            judge.close()

    @abstractmethod
    def value(self, verdict: Verdict) -> float | None:
        """The reward of a verdict; None where the sandbox failed."""

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Meta]
    ) -> list[float | None]:
        """The reward of each completion."""
        return [
            self.value(self.verdict(text, about))
            for text, about in zip(completions, meta, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class CodeReward(_Judged):
    """Steps by outcome, and the speed of what is correct; see the module."""

    compile: float = -1.0
    """No code that parses and defines the function."""

    violation: float = -1.0
    """It broke out of the sandbox or tampered with what measures it."""

    timeout: float = -0.6
    memory: float = -0.6
    error: float = -0.6
    """It raised, or a signal ended it."""

    wrong: float = -0.3
    middle: float = 0.5
    """Correct and as fast as the reference."""

    half: float = 0.5
    """What speed adds or takes at most."""

    s_max: float = 4.0
    """Times as fast as the reference that earn all of ``half``."""

    untimed: float = 1.0
    """Correct, where no time is taken."""

    partial: float = 0.0
    """Times the share of right outputs, is added to a wrong program's; at most 0.2. It invites
    programs that know some outputs by heart."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.s_max > 1 or not self.half >= 0:
            raise ConfigError(f"s_max={self.s_max} must be above 1 and half={self.half} above 0.")
        if not 0 <= self.partial <= 0.2:
            raise ConfigError(f"partial={self.partial} must be from 0 to 0.2.")
        least = min(self.middle - self.half, self.untimed)
        most = max(self.compile, self.violation, self.timeout, self.memory, self.error)
        most = max(most, self.wrong + self.partial)
        if not least > most:
            raise ConfigError(
                f"a correct program gets {least:g} at least and another {most:g} at most: every"
                " correct one must get more than any other."
            )

    def value(self, verdict: Verdict) -> float | None:
        """See the module's table."""
        if verdict.outcome == "infra":
            return None
        if verdict.outcome == "correct":
            if verdict.log_ratio is None:
                return self.untimed
            speed = verdict.log_ratio / math.log(self.s_max)
            return self.middle + self.half * min(max(speed, -1.0), 1.0)
        steps: Mapping[Outcome, float] = {
            "compile": self.compile,
            "violation": self.violation,
            "timeout": self.timeout,
            "memory": self.memory,
            "error": self.error,
            "wrong": self.wrong + self.partial * verdict.passed,
        }
        return steps[verdict.outcome]


@dataclass(frozen=True, kw_only=True)
class PerfReward(_Judged):
    """PerfRL's classes; see the module."""

    compile: float = 0.0
    """No code that parses and defines the function; also tampering."""

    fails: float = 1.0
    """It runs, and is wrong, raises or takes too long."""

    correct: float = 1.3
    faster: float = 2.0
    """Correct, and faster by more than the dead zone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.compile <= self.fails < self.correct <= self.faster:
            raise ConfigError("scores must rise: compile <= fails < correct <= faster.")

    def value(self, verdict: Verdict) -> float | None:
        """See the module's table."""
        if verdict.outcome == "infra":
            return None
        if verdict.outcome in ("compile", "violation"):
            return self.compile
        if verdict.outcome != "correct":
            return self.fails
        return self.faster if (verdict.log_ratio or 0.0) > 0 else self.correct
