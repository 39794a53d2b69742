"""What a benchmark asks of another package's optimizer, and how it tells it the space.

Part of ``peers.py``, which runs in another interpreter: nothing here needs Sharpen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Parameter", "Player", "Start", "is_real"]


@dataclass(frozen=True)
class Parameter:
    """One of a space, of kind ``float``, ``int`` or ``choice``."""

    name: str
    kind: str
    low: float = 0.0
    high: float = 1.0
    choices: tuple[Any, ...] = ()
    log: bool = False
    parent: str | None = None
    """Whose value says whether it is there; None where it always is."""

    values: tuple[Any, ...] = ()
    """Of the parent, with which it is."""

    @classmethod
    def read(cls, number: int, entry: list[Any]) -> Parameter:
        """From an entry of a space; see ``peers.py``."""
        kind, *rest = entry
        options = rest.pop() if rest and isinstance(rest[-1], dict) else {}
        given: dict[str, Any] = {"log": options.get("log", False)}
        if "if" in options:
            parent, values = options["if"]
            given |= {"parent": f"x{parent}", "values": tuple(values)}
        if kind in ("bool", "choice"):
            choices = (False, True) if kind == "bool" else tuple(rest[0])
            return cls(name=f"x{number}", kind="choice", choices=choices, **given)
        return cls(name=f"x{number}", kind=kind, low=rest[0], high=rest[1], **given)

    def unit(self, value: float) -> float:
        """The place of a number within its range, from 0 to 1."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def at(self, unit: float) -> float:
        """The number at a place from 0 to 1."""
        if self.log:
            return float(self.low * (self.high / self.low) ** unit)
        return float(self.low + unit * (self.high - self.low))

    def is_active(self, found: dict[str, Any]) -> bool:
        """Whether it is there beside the values of the parameters before it."""
        return self.parent is None or found.get(self.parent) in self.values


@dataclass(frozen=True)
class Start:
    """What a method is told at first."""

    method: str
    space: list[Parameter]
    constraints: int
    seed: int
    budget: int
    default: list[Any] | None
    """The configuration to begin with; None leaves the beginning to the method."""

    def named_default(self) -> dict[str, Any]:
        """The default by name, without what is not active."""
        values = self.default or []
        pairs = zip(self.space, values, strict=True)
        return {p.name: value for p, value in pairs if value is not None}

    def full_default(self) -> list[Any]:
        """The default with a value in place of each one that is not active."""
        found = []
        for p, value in zip(self.space, self.default or [], strict=True):
            if value is None:
                middle = p.choices[0] if p.kind == "choice" else p.at(0.5)
                value = round(middle) if p.kind == "int" else middle
            found.append(value)
        return found


def is_real(start: Start) -> bool:
    """Whether a space has real numbers alone, without constraints."""
    return not start.constraints and all(p.kind == "float" for p in start.space)


class Player(Protocol):
    """What the benchmark asks of a method; a space it cannot take is a ValueError."""

    def ask(self) -> list[Any]:
        """Values to evaluate, None where a parameter is not active."""

    def tell(self, value: float, constraints: list[float]) -> None:
        """What came of them: the loss, and constraints that hold up to 0."""

    def recommend(self) -> list[Any] | None:
        """What it would use now, where it says."""
        return None
