"""The workloads by name, and their targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sharpen.core.config import read_json
from sharpen.core.errors import ConfigError, FileFormatError, SharpenError, did_you_mean
from sharpen.optim.bench.workload import Target, Workload
from sharpen.optim.bench.workloads import digits, movielens, structures, text

__all__ = ["TARGETS_FORMAT", "find_workload", "left_out", "load_targets", "read_targets", "suite"]

TARGETS_FORMAT = 2
"""Of a file of targets."""

_TARGETS = Path(__file__).parent / "targets.json"
_KINDS: dict[str, type[Workload]] = {
    kind.name: kind for module in (digits, text, structures, movielens) for kind in module.WORKLOADS
}


def suite(*, variants: bool = False, missing: bool = False) -> list[str]:
    """Names of the workloads.

    Args:
        variants: also those of their variants.
        missing: also those whose data are not at hand.
    """
    names = []
    for name, kind in _KINDS.items():
        if not (missing or kind.available()):
            continue
        names.append(name)
        if variants:
            names += [f"{name}/{variant}" for variant in kind.variants]
    return names


def left_out() -> dict[str, str]:
    """Workloads whose data are not at hand, with what to do."""
    out = {}
    for name, kind in _KINDS.items():
        try:
            kind.require()
        except SharpenError as error:
            out[name] = str(error)
    return out


def find_workload(name: str) -> Workload:
    """A workload by name.

    Raises:
        ConfigError: there is none.
        NotInstalledError: its data are not at hand.
        MissingFileError: nor where they were said to be.
    """
    base, _, variant = name.partition("/")
    if base not in _KINDS:
        raise ConfigError(
            f"there is no workload {base!r}.{did_you_mean(base, _KINDS)} "
            f"Known: {', '.join(_KINDS)}."
        )
    made = _KINDS[base](variant or None)
    made.require()
    return made


def read_targets(path: Path) -> dict[str, dict[str, Any]]:
    """What a file of targets says of each workload: its target, and by which rule it was set.

    Raises:
        MissingFileError: there is no such file.
        FileFormatError: it is not of this format.
    """
    document = read_json(path, "targets")
    try:
        if document["format"] != TARGETS_FORMAT:
            raise ValueError(document["format"])
        found: dict[str, dict[str, Any]] = document["targets"]
        for entry in found.values():
            _target(entry)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileFormatError(
            f"{path} is no file of targets of format {TARGETS_FORMAT} ({type(error).__name__}: "
            f"{error}). Write it anew: sharpen bench optim set-targets."
        ) from None
    return found


def load_targets(path: Path | None = None) -> dict[str, Target]:
    """Targets by workload: the package's, or those of a file that ``set-targets`` wrote."""
    return {name: _target(entry) for name, entry in read_targets(path or _TARGETS).items()}


def _target(entry: dict[str, Any]) -> Target:
    return Target(**{key: entry[key] for key in Target.__slots__})
