"""The workloads by name, and their targets."""

from __future__ import annotations

import json
from pathlib import Path

from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.optim.bench.workload import Target, Workload
from sharpen.optim.bench.workloads import digits, structures, text

__all__ = ["find_workload", "load_targets", "suite"]

_TARGETS = Path(__file__).parent / "targets.json"
_KINDS: dict[str, type[Workload]] = {
    kind.name: kind for kind in (*digits.WORKLOADS, *text.WORKLOADS, *structures.WORKLOADS)
}


def suite(*, variants: bool = False) -> list[str]:
    """Names of the workloads.

    Args:
        variants: also those of their variants.
    """
    names = []
    for name, kind in _KINDS.items():
        names.append(name)
        if variants:
            names += [f"{name}/{variant}" for variant in kind.variants]
    return names


def find_workload(name: str) -> Workload:
    """A workload by name.

    Raises:
        ConfigError: there is none.
    """
    base, _, variant = name.partition("/")
    if base not in _KINDS:
        raise ConfigError(
            f"there is no workload {base!r}.{did_you_mean(base, _KINDS)} "
            f"Known: {', '.join(_KINDS)}."
        )
    return _KINDS[base](variant or None)


def load_targets(path: Path | None = None) -> dict[str, Target]:
    """Targets by workload: the package's, or those of a file that ``set-targets`` wrote."""
    document = json.loads((path or _TARGETS).read_text())
    return {name: Target(**values) for name, values in document["targets"].items()}
