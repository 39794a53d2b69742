"""What came of an attempt to make a function faster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sharpen.code.improver.journal import Attempt
from sharpen.code.improver.objective import TIMES, Gain
from sharpen.code.improver.profile import Profile
from sharpen.code.improver.starting import FirstCall
from sharpen.code.improver.target import Target
from sharpen.code.improver.tradeoffs import Version
from sharpen.code.improver.verdict import LevelTimes
from sharpen.code.inputs import Input

__all__ = ["FORMAT", "Evidence", "ImproveResult", "Proof"]

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the claim rests on, and what it does not."""

    inputs: Mapping[str, int]
    """How many inputs came from where."""

    compared: int
    """Inputs for which no difference was found: known, made up, new at the end, and timed."""

    equality: str
    largest_ulp: float
    """Most representable numbers between two results that count as the same."""

    seeds: tuple[int, int]
    """Of what was made up for the search, and at the end."""

    tests: str
    """What became of the user's tests with the new text."""

    kinds: Mapping[str, str]
    """Classes of each argument in the inputs."""

    dropped: Mapping[str, int]
    """Inputs that tell nothing, by why."""

    not_checked: tuple[str, ...]
    """What was not looked at."""

    symbolic: str = "not asked for"
    """What came of solving for arguments for which the new text differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a claim can be checked with again."""

    location: Target
    inputs: list[Input]
    """All that were compared in the search."""

    expected: list[Mapping[str, Any]]
    """[inputs] what the original did."""

    timed: list[tuple[str, list[Input]]]
    """Names of sizes, and the inputs that were timed."""

    command: list[str] | None
    """The user's tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImproveResult:
    """What came of it.

    Example:
        >>> from sharpen.code import improve
        >>> result = improve("slow.py", "f")  # doctest: +SKIP
        >>> result.improved, result.speedup  # doctest: +SKIP
    """

    target: str
    """``file:function``."""

    improved: bool
    speedup: float
    """Times as fast at the largest inputs, whatever the objective; 1 where nothing better was
    found."""

    interval: tuple[float, float]
    """Of the speed-up, at 99 %."""

    evidence: Evidence
    patch: str
    """For ``git apply``; empty where nothing better was found."""

    text: str
    """The whole file after the change."""

    explain: str = ""
    """What was done, in words."""

    risk: str = ""
    origin: str = ""
    """``rewrite``, ``llm`` or ``user``."""

    why: str = ""
    """Why nothing was found, or what stopped the search."""

    gain: Gain | None = None
    """What the objective was before and is now; of time, the same as ``speedup``."""

    first_call: FirstCall | None = None
    """What the first call in a process costs, where that takes back the gain of some calls."""

    levels: list[LevelTimes] = field(default_factory=list)
    exponents: tuple[float, float] | None = None
    """How time grows with the size of the inputs, before and after."""

    memory_mib: tuple[float, float] = (0.0, 0.0)
    versions: list[Version] = field(default_factory=list)
    """Texts of which none is better than another in time, memory and length; the original too."""

    profile: Profile | None = None
    attempts: list[Attempt] = field(default_factory=list)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    proof: Proof | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the document of ``--json``, without the texts of attempts."""
        verdicts: dict[str, int] = {}
        for one in self.attempts:
            verdicts[one.verdict] = verdicts.get(one.verdict, 0) + 1
        return {
            "format": FORMAT,
            "target": self.target,
            "improved": self.improved,
            "speedup": self.speedup,
            "interval": list(self.interval),
            "evidence": asdict(self.evidence),
            "patch": self.patch,
            "explain": self.explain,
            "risk": self.risk,
            "origin": self.origin,
            "why": self.why,
            "gain": None if self.gain is None else asdict(self.gain),
            "first_call": None if self.first_call is None else asdict(self.first_call),
            "levels": [asdict(one) for one in self.levels],
            "exponents": None if self.exponents is None else list(self.exponents),
            "memory_mib": list(self.memory_mib),
            "versions": [
                {k: v for k, v in asdict(one).items() if k != "text"} for one in self.versions
            ],
            "profile": None if self.profile is None else self.profile.to_dict(),
            "attempts": verdicts,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }

    def summary(self) -> str:
        """One line, with no more said than was found."""
        if not self.improved:
            return f"nothing better was found for {self.target}: {self.why}"
        low, high = self.interval
        told = f"is {self.speedup:.3g} x as fast [{low:.3g}, {high:.3g}]"
        if self.gain is not None and self.gain.objective not in TIMES:
            told = f"{self.gain.summary()}; it {told}"
        compared = self.evidence.compared
        return f"{self.target} {told}; no difference was found on {compared:,} inputs"
