"""Times from the result folders of AlgoPerf itself, so that real logs can be scored.

A submission's folder has ``study_<k>/<workload>_<framework>/trial_<j>/eval_measurements.csv``
files, with the columns ``accumulated_submission_time`` and ``validation/<metric>``. A trial's time
is that of the first evaluation that reached the validation target.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sharpen.core.errors import DataError, FileFormatError, MissingFileError
from sharpen.optim.bench.scoring import workload_time

__all__ = ["OFFICIAL", "OfficialTarget", "read_results", "read_submission"]


@dataclass(frozen=True, slots=True)
class OfficialTarget:
    """A workload of the published benchmark."""

    metric: str
    """Column of the validation metric, without ``validation/``."""

    target: float
    """To be reached."""

    higher_is_better: bool
    """Which way."""

    max_s: float
    """Budget of external tuning, seconds."""


OFFICIAL: dict[str, OfficialTarget] = {
    "criteo1tb": OfficialTarget("loss", 0.123735, False, 7_703),
    "fastmri": OfficialTarget("ssim", 0.723653, True, 4_430),
    "imagenet_resnet": OfficialTarget("accuracy", 1 - 0.22569, True, 66_159),
    "imagenet_vit": OfficialTarget("accuracy", 1 - 0.22691, True, 69_768),
    "librispeech_conformer": OfficialTarget("wer", 0.085884, False, 58_015),
    "librispeech_deepspeech": OfficialTarget("wer", 0.119936, False, 44_405),
    "ogbg": OfficialTarget("mean_average_precision", 0.28098, True, 12_011),
    "wmt": OfficialTarget("bleu", 30.8491, True, 43_336),
}
"""Targets and budgets of the rules' version 0.6."""

_STUDY, _TRIAL = re.compile(r"study_\d+$"), re.compile(r"trial_\d+$")


def read_results(
    folder: Path, targets: Mapping[str, OfficialTarget] = OFFICIAL
) -> dict[str, dict[str, float]]:
    """Times of all submissions, a folder each.

    Raises:
        MissingFileError: the folder does not exist.
        DataError: there is no submission in it.
        FileFormatError: a file lacks a column or holds no number; names file and line.
    """
    if not folder.is_dir():
        raise MissingFileError(f"there is no folder {folder}.")
    found = {
        path.name: read_submission(path, targets)
        for path in sorted(folder.iterdir())
        if path.is_dir() and any(_STUDY.search(p.name) for p in path.iterdir())
    }
    if not found:
        raise DataError(f"{folder} has no folder of a submission with study_<k> folders in it.")
    return found


def read_submission(
    folder: Path, targets: Mapping[str, OfficialTarget] = OFFICIAL
) -> dict[str, float]:
    """A submission's time on each workload; infinite where it missed or has no log."""
    studies: dict[str, list[list[float]]] = {name: [] for name in targets}
    for study in sorted(p for p in folder.iterdir() if _STUDY.search(p.name)):
        for name, target in targets.items():
            trials = [
                _time(trial / "eval_measurements.csv", target)
                for path in sorted(study.glob(f"{name}_*"))
                for trial in sorted(path.iterdir())
                if _TRIAL.search(trial.name)
            ]
            studies[name].append(trials or [math.inf])
    return {name: workload_time(found) for name, found in studies.items()}


def _time(path: Path, target: OfficialTarget) -> float:
    """When the target was first reached."""
    if not path.is_file():
        return math.inf
    column, clock = f"validation/{target.metric}", "accumulated_submission_time"
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        missing = {column, clock} - set(reader.fieldnames or ())
        if missing:
            raise FileFormatError(f"{path}: no column {', '.join(sorted(missing))}.")
        for row in reader:
            try:
                value, seconds = float(row[column] or "nan"), float(row[clock] or "nan")
            except ValueError:
                raise FileFormatError(
                    f"{path}:{reader.line_num}: {row[column]!r} or {row[clock]!r} is no number."
                ) from None
            reached = value >= target.target if target.higher_is_better else value <= target.target
            if reached and seconds <= target.max_s:
                return seconds
    return math.inf
