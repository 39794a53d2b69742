"""Settings of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from sharpen.code.problems.base import SEED
from sharpen.core.errors import ConfigError
from sharpen.core.sandbox import Limits
from sharpen.core.sandbox.job import Clock

__all__ = ["EvalConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """Settings of an evaluation; the defaults are those of ENAMEL, but for the clock."""

    clock: Clock = "cpu"
    """``cpu`` (processor time), ``wall`` (as in the paper) or ``opcodes``."""

    k: tuple[int, ...] = (1,)
    """Of pass@k and eff@k."""

    jobs: int = 1
    """Problems at a time."""

    repeats: int = 6
    """How often each input of a level that counts is timed; instructions are counted once."""

    alpha: float = 2.0
    """A program may take so many times what the reference takes at most."""

    tolerance_s: float = 0.01
    """And so much more before it is stopped, seconds; nothing where instructions are counted."""

    memory_bytes: int = 4 << 30
    """What a program may use."""

    reference_s: float = 60.0
    """Processor time that a reference, a slow solution or a generator may take; ten times as much
    where instructions are counted."""

    seed: int = SEED
    """Of the inputs."""

    def __post_init__(self) -> None:
        if self.clock not in ("cpu", "wall", "opcodes"):
            raise ConfigError(f"clock='{self.clock}' must be cpu, wall or opcodes.")
        if not self.k or any(k < 1 for k in self.k):
            raise ConfigError(f"k={self.k} must be numbers from 1.")
        for name in ("jobs", "repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        if not self.alpha > 1 or not self.tolerance_s >= 0:
            raise ConfigError(
                f"alpha={self.alpha} must be above 1 and tolerance_s={self.tolerance_s} not below 0"
            )

    @property
    def tolerance(self) -> float:
        """By the clock."""
        return 0.0 if self.clock == "opcodes" else self.tolerance_s

    @property
    def trusted_s(self) -> float:
        """Processor time of a job with a solution that is right."""
        return self.reference_s * (10 if self.clock == "opcodes" else 1)

    def limits(self, cpu_s: float) -> Limits:
        """Limits of a job."""
        return Limits(cpu_s=cpu_s, memory_bytes=self.memory_bytes, result_bytes=256 << 20)
