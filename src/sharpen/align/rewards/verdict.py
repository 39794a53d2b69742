"""What is said of a program that was judged, how programs are run, and what of a reply is one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["Clock", "JudgeConfig", "Outcome", "Verdict", "code_in", "compiles"]

_FENCE = re.compile(r"```\w*\+*[ \t]*\n(.*?)```", re.DOTALL)

Clock = Literal["cpu", "opcodes", "none"]
Outcome = Literal["compile", "violation", "timeout", "memory", "error", "wrong", "correct", "infra"]


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeConfig:
    """How programs are run; see the fields of the rewards."""

    clock: Clock
    repeats: int
    dead_zone: float
    cpu_s: float
    memory_bytes: int
    tier: int | str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What came of a program."""

    outcome: Outcome
    log_ratio: float | None = None
    """log(t_reference / t), above 0 where it is faster; None where no time was taken."""

    passed: float = 0.0
    """Share of the inputs with the right output."""

    why: str = ""


def compiles(program: str) -> bool:
    """Whether Python takes a text as a program; nothing is run."""
    try:
        compile(program, "<program>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return False
    return True


def code_in(reply: str) -> str:
    """The code of a reply: the last block between fences, else what stands before a fence.

    A prompt that ends in an open fence is answered by code and the closing one.
    """
    blocks: list[str] = _FENCE.findall(reply)
    return blocks[-1] if blocks else reply.partition("```")[0]
