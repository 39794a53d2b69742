"""How problems are found by name: installed ones, and those of a module on the Python path."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from sharpen.core.errors import ConfigError, DependencyNotInstalled, did_you_mean
from sharpen.core.problem import Problem

__all__ = ["describe_problems", "find_problem", "problem_names"]

_GROUP = "sharpen.problems"


def problem_names() -> list[str]:
    """Names of every installed problem, sorted."""
    return sorted({point.name for point in metadata.entry_points(group=_GROUP)})


def describe_problems() -> list[dict[str, Any]]:
    """Every installed problem: ``name``, ``about`` it in a line, and its ``arguments``.

    Of one whose packages are missing, ``about`` says which.
    """
    rows = []
    for name in problem_names():
        try:
            made = _installed(name)
        except DependencyNotInstalled as error:
            rows.append({"name": name, "about": str(error), "arguments": []})
            continue
        about = (inspect.getdoc(made) or "").partition("\n")[0]
        arguments = list(inspect.signature(made).parameters) if callable(made) else []
        rows.append({"name": name, "about": about, "arguments": arguments})
    return rows


def find_problem(
    name: str, arguments: Mapping[str, Any] | None = None, *, folder: str | Path | None = None
) -> Problem:
    """The problem called ``name``.

    Args:
        name: of an installed problem, or ``module:attribute``.
        arguments: for what makes the problem, a class or a function; None takes what is found.
        folder: where modules are looked for beside the Python path.

    Raises:
        ConfigError: there is none, it is no problem, or it takes no such arguments.
        DependencyNotInstalled: it needs a package that is not installed.
    """
    found = _attribute(name, folder) if ":" in name else _installed(name)
    if not isinstance(found, Problem) or isinstance(found, type):
        if not callable(found):
            raise ConfigError(f"'{name}' is {found!r}, which is no problem.")
        try:
            found = found(**(arguments or {}))
        except TypeError as error:
            raise ConfigError(f"the problem '{name}' cannot be made: {error}.") from None
    elif arguments:
        raise ConfigError(f"the problem '{name}' is made already and takes no arguments.")
    if not isinstance(found, Problem):
        raise ConfigError(
            f"'{name}' gives {found!r}, which is no problem. Decorate the function: "
            "@sharpen.problem(space, minimize='loss')."
        )
    return found


def _installed(name: str) -> Any:
    for point in metadata.entry_points(group=_GROUP):
        if point.name == name:
            try:
                return point.load()
            except ModuleNotFoundError as error:
                raise DependencyNotInstalled(
                    f"the problem '{name}' needs the package '{error.name}'. Install it."
                ) from error
    names = problem_names()
    raise ConfigError(
        f"there is no problem '{name}'.{did_you_mean(name, names)} Known: "
        f"{', '.join(names) or 'none'}; write module:attribute for one of your own."
    )


def _attribute(name: str, folder: str | Path | None) -> Any:
    module, _, attribute = name.partition(":")
    if folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))  # workers get the same path
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            raise ConfigError(
                f"the problem '{name}' cannot be loaded: there is no module '{error.name}' in "
                f"{folder or 'the Python path'}."
            ) from None
        raise DependencyNotInstalled(
            f"the problem '{name}' needs the package '{error.name}'. Install it."
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"the problem '{name}' cannot be loaded: {module} has no '{part}'.")
        found = getattr(found, part)
    return found
