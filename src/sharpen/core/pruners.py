"""Pruners by name, as studies and study files give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sharpen.core.config import from_dict
from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.core.halving_pruners import ASHA, Hyperband
from sharpen.core.pruner import Median, Patience, Percentile, PlateauNoise, Pruner, Threshold

__all__ = ["PRUNERS", "make_pruner"]

PRUNERS: dict[str, type[Any]] = {
    "asha": ASHA,
    "hyperband": Hyperband,
    "median": Median,
    "patience": Patience,
    "percentile": Percentile,
    "plateau-noise": PlateauNoise,
    "threshold": Threshold,
}
"""Classes by name."""


def make_pruner(given: str | Mapping[str, Any] | Pruner | None) -> Pruner | None:
    """A pruner; None where none is wanted.

    Args:
        given: a name; a mapping with ``name`` and options, such as ``{"name": "asha", "eta": 4}``;
            a pruner; or None or ``"none"``.

    Raises:
        ConfigError: there is no such pruner, or an option is wrong or missing.

    Examples:
        >>> make_pruner({"name": "asha", "eta": 4})
        ASHA(min_steps=1, eta=4)
    """
    if given is None or given == "none":
        return None
    if not isinstance(given, (str, Mapping)):
        if hasattr(given, "should_stop"):
            return given
        raise ConfigError(f"pruner must be a name or a pruner, got {given!r}.")
    options = {"name": given} if isinstance(given, str) else dict(given)
    name = options.pop("name", None)
    if name not in PRUNERS:
        raise ConfigError(
            f"pruner must be one of {', '.join(PRUNERS)} or none, got {name!r}."
            f"{did_you_mean(str(name), [*PRUNERS, 'none'])}"
        )
    made: Pruner = from_dict(PRUNERS[name], options, path=("pruner",))
    return made
