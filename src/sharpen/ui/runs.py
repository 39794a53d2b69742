"""Run folders as the page shows them: what they measured, thinned, and what they made."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sharpen.core.config import load_yaml
from sharpen.core.errors import SharpenError
from sharpen.core.metrics import read_metrics
from sharpen.core.report import shorten, visible
from sharpen.core.samples import SampleLog, samples_path
from sharpen.core.signals import curves_of, logged
from sharpen.core.stage import StageType, find_stage_type

__all__ = ["find_runs", "find_stores", "read_run", "read_samples"]

_POINTS = 2000
_LONGEST_SAMPLE = 20_000  # characters
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
                "done": _is_done(folder),
            }
        )
    return sorted(rows, key=lambda row: -float(row["changed_s"]))


def find_stores(base: Path) -> list[Path]:
    """Files ``study.db`` in and below a folder."""
    return [p / "study.db" for p in [base, *_folders(base)] if (p / "study.db").is_file()]


def read_run(base: Path, run: str) -> dict[str, Any] | None:
    """A run's series and summary; None where there is no such run.

    Returns:
        ``done``: whether nothing writes it any more; ``series``: by ``stage/name``, ``step`` and
        ``value`` (at most 2,000 points each); ``stages``: by name, those with panels: which series
        are drawn together, with units, and ``remarks`` on what is out of bounds; ``samples``: by
        stage, the steps of which there are samples; ``summary``, ``environment`` and ``plan`` as
        the run wrote them; ``artifacts``: files of its folder with their bytes.
    """
    folder = _folder(base, run)
    if folder is None:
        return None
    rows = read_metrics(folder / "metrics.jsonl")
    series: dict[str, dict[str, list[Any]]] = {}
    for row in rows:
        kept = series.setdefault(f"{row.get('stage')}/{row['name']}", {"step": [], "value": []})
        kept["step"].append(len(kept["step"]) if row.get("step") is None else row["step"])
        kept["value"].append(row.get("value"))
    for kept in series.values():
        step = max(-(-len(kept["step"]) // _POINTS), 1)
        for key in kept:
            kept[key] = kept[key][::step]
    types = _stage_types(folder)
    stages = {name: _health(one, rows, name) for name, one in types.items() if one.panels}
    samples = {name: SampleLog(samples_path(folder, name)).steps() for name in types}
    found: dict[str, Any] = {
        "id": run,
        "done": _is_done(folder),
        "series": series,
        "stages": stages,
        "samples": {name: steps for name, steps in samples.items() if steps},
    }
    for name in ("summary", "environment", "plan"):
        found[name] = _json(folder / f"{name}.json")
    found["artifacts"] = [
        {"name": path.name, "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".")
    ]
    return found


def read_samples(base: Path, run: str, stage: str, step: int) -> list[dict[str, Any]] | None:
    """What a stage of a run wrote at a step; None where there is no such run.

    Returns:
        ``prompt`` and ``completion`` (control characters made visible, long texts shortened),
        ``reward`` and ``version``.
    """
    folder = _folder(base, run)
    if folder is None or stage not in _stage_types(folder):
        return None
    found = []
    for row in SampleLog(samples_path(folder, stage)).at(step):
        texts = {
            name: visible(shorten(str(row.get(name, "")), _LONGEST_SAMPLE))
            for name in ("prompt", "completion")
        }
        found.append({**texts, "reward": row.get("reward"), "version": row.get("version")})
    return found


def _folder(base: Path, run: str) -> Path | None:
    """A run's folder; None outside of ``base``."""
    folder = (base / run).resolve()
    return folder if base.resolve() in folder.parents and folder.is_dir() else None


def _is_done(folder: Path) -> bool:
    """Whether there is a summary, which each stage adds to, and no process holds the folder."""
    try:
        held = Path("/proc/locks").read_text().split()
        inode = (folder / ".lock").stat().st_ino
    except OSError:
        held, inode = [], 0
    return (folder / "summary.json").exists() and not any(
        place.endswith(f":{inode}") for place in held
    )


def _stage_types(folder: Path) -> dict[str, StageType]:
    """Types of a run's stages by name, as far as they are known here."""
    found: dict[str, StageType] = {}
    try:
        recipe = load_yaml(folder / "resolved.yaml").data
    except SharpenError:
        return found  # not written yet
    for name, given in recipe.items() if isinstance(recipe, dict) else ():
        if isinstance(given, dict):
            with suppress(SharpenError):  # of a room that is not installed
                found[name] = find_stage_type(str(given.get("uses", name)))
    return found


def _health(kind: StageType, rows: list[dict[str, Any]], stage: str) -> dict[str, Any]:
    curves = curves_of(rows, stage)
    remarks = kind.check(curves) if kind.check is not None else []
    return {
        "panels": [asdict(panel) for panel in logged(kind.panels, curves)],
        "remarks": [asdict(remark) for remark in remarks],
    }


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None  # not written yet
