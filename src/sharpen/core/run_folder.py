"""A run folder read back: what was made, and what was measured.

The folder's parts are listed in :mod:`sharpen.core.run`, which writes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sharpen.core.config import read_json
from sharpen.core.errors import MissingFileError
from sharpen.core.metrics import read_metrics

__all__ = ["Run", "Summary", "load_run"]


class Summary(dict[str, Any]):
    """Nested results by stage; ``summary["eval.loss_after"]`` works as well."""

    def __missing__(self, key: str) -> Any:
        """Follow a dotted path."""
        node: Any = dict(self)
        for part in key.split("."):
            if not isinstance(node, Mapping) or part not in node:
                known = ", ".join(sorted(self.flat()))
                raise KeyError(f"no {key!r} in the summary; it has: {known}")
            node = node[part]
        return node

    def flat(self) -> dict[str, Any]:
        """All leaves by dotted path."""
        return dict(_leaves(self))


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@dataclass(slots=True)
class Run:
    """A run folder: what was made, and what was measured."""

    folder: Path
    summary: Summary = field(default_factory=Summary)
    reused: list[str] = field(default_factory=list)
    """Stages whose output was already there."""

    @property
    def report(self) -> Path:
        """The HTML report's path (written by a ``report`` stage)."""
        return self.folder / "report.html"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Rows of ``metrics.jsonl``."""
        return read_metrics(self.folder / "metrics.jsonl")

    def artifact(self, stage: str) -> Path:
        """Folder of a stage's output.

        Raises:
            MissingFileError: the stage has none here.
        """
        link = self.folder / stage
        if not link.exists():
            raise MissingFileError(f"{self.folder} has no output of a stage '{stage}'.")
        return link


def load_run(folder: str | Path) -> Run:
    """Open a run folder for reading.

    Raises:
        MissingFileError: it has no ``summary.json``.
    """
    folder = Path(folder)
    summary = read_json(folder / "summary.json", "run summary")
    return Run(folder=folder, summary=Summary(summary))
