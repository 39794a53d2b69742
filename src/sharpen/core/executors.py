"""Executors by name, as study files give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.core.executor import Executor, Local
from sharpen.core.ray_executor import Ray
from sharpen.core.threads import Threads

__all__ = ["make_executor"]

_NAMES = ("local", "ray", "threads")


def make_executor(
    given: str | Mapping[str, Any],
    *,
    workers: int,
    timeout_s: float | None = None,
    memory_bytes: int | None = None,
) -> Executor:
    """An executor.

    Args:
        given: ``"local"``, ``"threads"`` or ``"ray"``; or a mapping of ``name`` and further
            options: of Ray ``address`` and ``resources``.
        workers: trials at once.
        timeout_s: seconds a trial may take; threads have no such limit.
        memory_bytes: address space a trial may use; a limit of local processes alone.

    Raises:
        ConfigError: there is none, or it has no such option.
        DependencyNotInstalled: its package is missing.
    """
    options: dict[str, Any] = {"name": given} if isinstance(given, str) else dict(given)
    name = options.pop("name", None)
    if name not in _NAMES:
        raise ConfigError(
            f"executor must be one of {', '.join(_NAMES)}, got {name!r}."
            f"{did_you_mean(str(name), _NAMES)}"
        )
    limits = {"timeout_s": timeout_s, "memory_bytes": memory_bytes}
    kept = {"local": limits, "ray": {"timeout_s": timeout_s}, "threads": {}}[name]
    for key, value in limits.items():
        if value is not None and key not in kept:
            raise ConfigError(f"the executor '{name}' keeps no {key}; local processes do.")
    known = ("address", "resources") if name == "ray" else ()
    for key in options:
        if key not in known:
            has = ", ".join(known) or "none"
            raise ConfigError(f"the executor '{name}' has no option '{key}'. It has: {has}.")
    made: Any = {"local": Local, "ray": Ray, "threads": Threads}[name]
    executor: Executor = made(workers, **kept, **options)
    return executor
