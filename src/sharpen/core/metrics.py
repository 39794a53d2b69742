"""A run's measurements over time: one JSON row a line, ``{stage, step, time_s, name, value}``.

Rows are appended whole; a row torn by a kill is dropped when the file is opened again.
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from sharpen.core.errors import storage_errors
from sharpen.core.files import atomic_write_bytes

__all__ = ["MetricsLog", "peak_rss_bytes", "read_metrics"]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every whole row of a ``metrics.jsonl``; an absent file has none."""
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError):
            continue
        if isinstance(row, dict) and "name" in row:
            rows.append(row)
    return rows


class MetricsLog:
    """Appends rows to a run's ``metrics.jsonl``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, stage: str, name: str, value: float, step: int | None = None) -> None:
        """Add a row; NaN and infinities are written as null."""
        finite = value if math.isfinite(value) else None
        row = {
            "stage": stage,
            "step": step,
            "time_s": round(time.time(), 3),
            "name": name,
            "value": finite,
        }
        with storage_errors(self.path):
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                os.write(handle, (json.dumps(row) + "\n").encode())
            finally:
                os.close(handle)

    def rewind(self, stage: str, step: float | None = None) -> None:
        """Drop rows of ``stage`` past ``step`` or without one (default: all), and torn rows."""
        if not self.path.exists():
            return
        kept = []
        for row in read_metrics(self.path):
            mine = row.get("stage") == stage
            past = step is None or row.get("step") is None or int(row["step"]) > step
            if not (mine and past):
                kept.append(json.dumps(row))
        atomic_write_bytes(self.path, "".join(f"{line}\n" for line in kept).encode())


def peak_rss_bytes() -> int:
    """Highest resident memory of this process so far, in bytes (Linux's VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM line")
