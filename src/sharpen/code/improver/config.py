"""What ``sharpen improve`` can be told."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sharpen.code.improver.objective import OBJECTIVES
from sharpen.core.errors import ConfigError

__all__ = ["PROPOSERS", "ImproveConfig"]

PROPOSERS = ("rewrite", "llm")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImproveConfig:
    """How a function is improved; the same settings and seed give the same patch.

    Raises:
        ConfigError: a value is out of range.
    """

    tests: str | None = None
    """A folder or file for pytest, or a command; ``none`` for no tests; without one the file of
    tests that has the module's name, where there is one."""

    inputs: str | None = None
    """A JSON file of calls, or ``FILE.py:NAME``."""

    objective: str = "cpu"
    """What is made less: ``cpu`` time, ``wall`` time, peak ``memory``, ``tmu`` (memory over time),
    ``opcodes`` of the interpreter (the same in every run; they see no work in C), or
    ``instructions`` of the machine (by valgrind). Whatever it is, time may grow by no more than
    ``max_regress``."""

    equal: str = "exact"
    """When two results are the same, see :mod:`sharpen.code.improver.equality`."""

    propose: tuple[str, ...] = PROPOSERS
    """Who proposes: ``rewrite`` (rules), ``llm`` (a language model, where one is named)."""

    allow: tuple[str, ...] = ()
    """Packages that a proposal may import beside those that the module imports."""

    budget_s: float = 30.0
    """Seconds for the search; the measurement at the end comes on top."""

    tries: int = 200
    """Most proposals that are tried."""

    min_gain: float = 1.10
    """Least gain: the lower end of the interval at the largest inputs."""

    max_regress: float = 1.02
    """Most slowdown at any size of inputs."""

    max_memory: float = 2.0
    """Most growth of peak memory, beyond 16 MiB."""

    symbolic_s: float = 0.0
    """Processor time in which CrossHair looks for arguments that tell a winner from the original;
    none with 0."""

    levels: int = 3
    """Sizes of inputs that are timed."""

    top_s: float = 0.05
    """Seconds that the function should take at the largest size; at most 0.01 where instructions
    are counted, since that takes long."""

    seed: int = 0
    """Of all that is made up."""

    trust_llm: bool = False
    """Whether a language model's code may run outside of the sandbox: with your tests, and with
    ``apply``."""

    samples: int = 4
    """Replies that a language model is asked for at a time."""

    rounds: int = 3
    """How often it is shown its best so far, with a profile, and asked for a better one."""

    root: str | None = None
    """The folder that imports start from."""

    tests_limit_s: float = 600.0
    """Wall time that tests may take."""

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ConfigError(f"objective={self.objective!r}: give one of {', '.join(OBJECTIVES)}.")
        unknown = [name for name in self.propose if name not in PROPOSERS]
        if unknown or not self.propose:
            raise ConfigError(
                f"propose={self.propose!r}: give one or more of {', '.join(PROPOSERS)}."
            )
        for name, low in _LOWEST.items():
            value = getattr(self, name)
            if not value >= low:
                raise ConfigError(f"{name}={value!r} (ImproveConfig): give {low:g} or more.")

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


_LOWEST = {
    "budget_s": 0.1,
    "tries": 0,
    "min_gain": 1.0,
    "max_regress": 1.0,
    "max_memory": 1.0,
    "symbolic_s": 0.0,
    "levels": 1,
    "top_s": 1e-4,
    "samples": 1,
    "rounds": 0,
    "seed": 0,
    "tests_limit_s": 0.1,
}
