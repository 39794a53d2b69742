"""What a model wrote while it was trained: ``samples-<stage>.jsonl`` of a run, one sample a line.

::

    {"step": 3, "prompt": "1+1=", "completion": "2", "reward": 1.0, "version": 4}

Rows are appended whole; one that a kill has torn is left out. Files may be large, so that what is
read is an index of steps first, and then the rows of one step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sharpen.core.errors import storage_errors
from sharpen.core.files import atomic_write_bytes

__all__ = ["SampleLog", "samples_path", "spread_steps"]

_STEP = re.compile(rb'\{"step": (\d{1,15}), ')


def samples_path(run: Path, stage: str) -> Path:
    """Where the samples of a stage are."""
    return run / f"samples-{stage}.jsonl"


class SampleLog:
    """The samples of one stage; a file that is not there has none.

    Args:
        path: see :func:`samples_path`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a sample.

        Raises:
            StorageError: the disk is full, or the file cannot be written.
        """
        line = json.dumps(row, ensure_ascii=False) + "\n"
        with storage_errors(self.path), self.path.open("ab") as file:
            file.write(line.encode("utf-8", "backslashreplace"))  # half a pair is an escape of JSON

    def rewind(self, step: int) -> None:
        """Drop samples of ``step`` and later, which will be made again, and torn rows."""
        if not self.path.exists():
            return
        kept = [line for made, line in self._lines() if made < step]
        with storage_errors(self.path):
            if kept:
                atomic_write_bytes(self.path, b"".join(line + b"\n" for line in kept))
            else:
                self.path.unlink()

    def steps(self) -> list[int]:
        """Steps of which there are samples, in order."""
        return sorted({step for step, _ in self._lines()})

    def at(self, step: int) -> list[dict[str, Any]]:
        """Samples of a step."""
        rows = [_row(line) for made, line in self._lines() if made == step]
        return [row for row in rows if row is not None]

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Step and line of every row that looks whole; most need not be read for that."""
        if not self.path.is_file():
            return
        with storage_errors(self.path, doing="read"), self.path.open("rb") as file:
            for line in file:
                begun = _STEP.match(line)
                if begun and line.endswith(b"}\n"):
                    yield int(begun[1]), line.rstrip()
                elif (row := _row(line)) is not None and type(row.get("step")) is int:
                    yield row["step"], line.rstrip()


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line, parse_constant=lambda name: None)  # NaN is no number in a browser
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def spread_steps(steps: list[int], count: int) -> list[int]:
    """The first, the last, and others between them, ``count`` in all."""
    if len(steps) <= count:
        return steps
    places = [round(i * (len(steps) - 1) / (count - 1)) for i in range(count)]
    return [steps[place] for place in places]
