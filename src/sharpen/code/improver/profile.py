"""Where a function spends its time, for people and for language models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sharpen.code.improver.levels import Level
from sharpen.code.improver.observer import Watcher
from sharpen.code.improver.target import Target
from sharpen.code.measure.process import encode_inputs
from sharpen.code.measure.single import growth
from sharpen.core.errors import ExecutionError

__all__ = ["Line", "Profile", "take_profile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the file."""

    number: int
    text: str
    share: float
    """Of all instructions of the interpreter."""

    bytes: int
    """Of memory that it has allocated and that is alive at the end of the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Instructions and memory by line, and how time grows."""

    lines: list[Line]
    exponent: float | None
    """Time is about ``n ** exponent``; None with too few sizes."""

    seconds: float
    """Of a call at the largest size."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def table(self) -> str:
        """The lines that take 1 % or more."""
        rows = [one for one in self.lines if one.share >= 0.01 or one.bytes >= 1024]
        text = [
            f"{one.share:>6.1%} {one.bytes / 1024:>8.1f} KiB  {one.number:>5}  {one.text}"
            for one in rows
        ]
        return "\n".join([" share    memory   line", *text])


def take_profile(target: Target, levels: Sequence[Level]) -> Profile | None:
    """Count instructions at a small size, where tracing is quick; None where that fails.

    Args:
        target: the function.
        levels: inputs by size.
    """
    chosen = next((one for one in levels if one.seconds >= 1e-3), levels[-1])
    try:
        with Watcher(target.program()) as watcher:
            found = watcher.lines(encode_inputs(chosen.inputs[:1]), limit_s=30.0)
    except ExecutionError:
        return None
    memory = dict(found["bytes"])
    total = sum(count for _, count in found["opcodes"]) or 1
    text = target.text.splitlines()
    lines = [
        Line(
            number=number,
            text=text[number - 1].rstrip() if 0 < number <= len(text) else "",
            share=count / total,
            bytes=memory.get(number, 0),
        )
        for number, count in found["opcodes"]
        if 0 < number <= len(text)
    ]
    sized = [one for one in levels if one.name != "as known" and one.size > 0 and one.seconds > 0]
    exponent = None
    if len({one.size for one in sized}) >= 2:
        exponent = growth([one.size for one in sized], [one.seconds for one in sized]).exponent
    return Profile(lines=lines, exponent=exponent, seconds=levels[-1].seconds)
