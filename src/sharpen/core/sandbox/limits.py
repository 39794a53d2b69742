"""What a job may use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from sharpen.core.errors import ConfigError, did_you_mean

__all__ = ["Limits"]

_MIB = 1 << 20
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SHORT = {"cpu": "cpu_s", "wall": "wall_s", "mem": "memory_bytes", "procs": "processes"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of a job.

    A program that is slow because others use the machine has done nothing wrong, so its time is
    processor time; wall time is a backstop.
    """

    cpu_s: float = 10.0
    """Processor time of all its processes, seconds."""

    wall_s: float | None = None
    """Wall time, seconds; without one the larger of three times ``cpu_s`` and ``cpu_s + 10``."""

    memory_bytes: int = 1 << 30
    """Memory: of all processes where there is a cgroup, else address space of each."""

    file_bytes: int = 16 * _MIB
    """Size of a file."""

    scratch_bytes: int = 64 * _MIB
    """Size of all files together."""

    open_files: int = 64
    """Open files of a process."""

    processes: int = 16
    """Processes and threads, its first one included."""

    output_bytes: int = _MIB
    """What it may print, standard output and error together."""

    result_bytes: int = 64 * _MIB
    """What its outputs may take as bytes."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name == "wall_s":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise ConfigError(f"{field.name}={value!r} (Limits): give a number above 0.")
            if not field.name.endswith("_s") and not isinstance(value, int):
                raise ConfigError(f"{field.name}={value!r} (Limits): give a whole number.")

    @property
    def wall_limit_s(self) -> float:
        """Wall time, seconds."""
        return self.wall_s if self.wall_s is not None else max(3 * self.cpu_s, self.cpu_s + 10)

    @classmethod
    def parse(cls, text: str) -> Limits:
        """Limits from a line of words such as ``cpu=2,mem=256M,processes=4``.

        Args:
            text: names of fields, or ``cpu``, ``wall``, ``mem`` and ``procs``; sizes may end in
                ``K``, ``M`` or ``G``, powers of 1024.

        Raises:
            ConfigError: a name or a value is none.

        Examples:
            >>> Limits.parse("cpu=2,mem=256M").memory_bytes
            268435456
        """
        given: dict[str, Any] = {}
        names = [field.name for field in fields(cls)]
        for part in filter(None, (p.strip() for p in text.split(","))):
            name, equals, value = (p.strip() for p in part.partition("="))
            name = _SHORT.get(name, name)
            if not equals or name not in names:
                near = did_you_mean(name, [*names, *_SHORT])
                allowed = ", ".join([*_SHORT, *names])
                raise ConfigError(f"limit {part!r}: write name=value.{near} Names: {allowed}.")
            given[name] = _number(name, value)
        return cls(**given)

    def updated(self, **changes: Any) -> Limits:
        """The same with some changed."""
        return replace(self, **changes)

    def inside(self, *, has_cgroup: bool) -> Mapping[str, Any]:
        """As the process inside a sandbox gets them.

        Args:
            has_cgroup: whether the memory is limited by one, so that address space, which is more
                than memory, need not stand for it.
        """
        return {
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "wall_s": self.wall_limit_s,
            "address_bytes": self.memory_bytes * (4 if has_cgroup else 1),
        }


def _number(name: str, text: str) -> float | int:
    matched = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)(?:i?b)?", text.lower())
    if matched is None or (name.endswith("_s") and matched[2]):
        raise ConfigError(f"limit {name}={text!r}: give a number, as in cpu=2 or mem=256M.")
    number = float(matched[1]) * _UNITS[matched[2]]
    return number if name.endswith("_s") else int(number)
