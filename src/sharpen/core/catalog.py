"""The catalog of systems: which paper, what it gives, where it lives, and how far it is.

The rows are data (``systems.yaml``); ``docs/papers.md`` is generated from them by
``python -m sharpen.core.catalog``, and ``sharpen systems`` prints them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sharpen.core.config import from_dict, load_yaml
from sharpen.core.errors import ConfigError

__all__ = ["System", "list_systems", "markdown"]


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """One row of the catalog."""

    number: int
    """1 to 60."""

    system: str
    """The name the field uses."""

    paper: str
    """Title of the paper."""

    year: int
    """Year it first appeared."""

    room: str
    """The room of the package that holds it."""

    gives: str
    """What a user gets."""

    status: Literal["planned", "partial", "working"]
    """``working`` needs a public API, a page, a run example, an oracle test and a benchmark."""

    module: str | None = None
    """Where it is implemented."""

    example: str | None = None
    """An example that a test runs."""

    page: str | None = None
    """Its page, relative to ``docs/``."""

    benchmark: str | None = None
    """The benchmark of its claim."""

    note: str | None = None
    """What is missing, for a partial row."""

    def __post_init__(self) -> None:
        """A row that claims something must name its evidence."""
        evidence = (self.module, self.example, self.page, self.benchmark)
        if self.status != "planned" and not all(evidence):
            raise ConfigError(
                f"status of system {self.number} is '{self.status}', so module, example, page "
                "and benchmark must be named."
            )
        if self.status == "partial" and not self.note:
            raise ConfigError(f"note of system {self.number} must say what is missing.")


@functools.cache
def list_systems() -> tuple[System, ...]:
    """All systems, by number."""
    document = load_yaml(Path(__file__).with_name("systems.yaml"))
    return tuple(
        from_dict(System, row, path=(i,), marks=document.marks)
        for i, row in enumerate(document.data)
    )


def markdown() -> str:
    """The page ``docs/papers.md``."""
    lines = [
        "# Papers",
        "",
        "Every system of the catalog, the paper it comes from, and how far it is. `planned` rows",
        "have no code yet; `partial` rows say what is missing.",
        "",
        "| # | System | Paper | Room | Status | Evidence |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in list_systems():
        evidence = ""
        if row.status != "planned":
            evidence = f"[page]({row.page}), `{row.example}`, `{row.benchmark}`"
        status = row.status + (f": {row.note}" if row.note else "")
        lines.append(
            f"| {row.number} | {row.system} | {row.paper} ({row.year}) | {row.room} | {status} "
            f"| {evidence} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
