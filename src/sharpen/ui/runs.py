"""Run folders as the page shows them: what they measured, thinned, and what they made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sharpen.core.metrics import read_metrics

__all__ = ["find_runs", "find_stores", "read_run"]

_POINTS = 2000
_DEPTH = 3


def _folders(base: Path, depth: int = _DEPTH) -> list[Path]:
    """Folders below ``base``, without hidden ones."""
    if not base.is_dir() or depth == 0:
        return []
    found = []
    for path in sorted(base.iterdir()):
        if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
            found += [path, *_folders(path, depth - 1)]
    return found


def find_runs(base: Path) -> list[dict[str, Any]]:
    """Runs below a folder, the last changed first.

    Returns:
        ``id`` (the path below ``base``), ``changed_s`` and ``done`` of each.
    """
    rows = []
    for folder in _folders(base):
        metrics, summary = folder / "metrics.jsonl", folder / "summary.json"
        if not (metrics.exists() or summary.exists()):
            continue
        changed = max(path.stat().st_mtime for path in (metrics, summary) if path.exists())
        rows.append(
            {
                "id": folder.relative_to(base).as_posix(),
                "changed_s": changed,
                "done": summary.exists(),
            }
        )
    return sorted(rows, key=lambda row: -float(row["changed_s"]))


def find_stores(base: Path) -> list[Path]:
    """Files ``study.db`` in and below a folder."""
    return [p / "study.db" for p in [base, *_folders(base)] if (p / "study.db").is_file()]


def read_run(base: Path, run: str) -> dict[str, Any] | None:
    """A run's series and summary; None where there is no such run.

    Returns:
        ``series``: by ``stage/name``, ``step`` and ``value`` (at most 2,000 points each);
        ``summary``, ``environment`` and ``plan`` as the run wrote them; ``artifacts``: files of its
        folder with their bytes.
    """
    folder = (base / run).resolve()
    if base.resolve() not in folder.parents or not folder.is_dir():
        return None
    series: dict[str, dict[str, list[Any]]] = {}
    for row in read_metrics(folder / "metrics.jsonl"):
        kept = series.setdefault(f"{row.get('stage')}/{row['name']}", {"step": [], "value": []})
        kept["step"].append(len(kept["step"]) if row.get("step") is None else row["step"])
        kept["value"].append(row.get("value"))
    for kept in series.values():
        step = max(-(-len(kept["step"]) // _POINTS), 1)
        for key in kept:
            kept[key] = kept[key][::step]
    found: dict[str, Any] = {"id": run, "series": series}
    for name in ("summary", "environment", "plan"):
        found[name] = _json(folder / f"{name}.json")
    found["artifacts"] = [
        {"name": path.name, "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".")
    ]
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None  # not written yet
