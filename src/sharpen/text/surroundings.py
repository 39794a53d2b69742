"""What a function's text needs of the module it was written in, for running it elsewhere.

Names that the text uses are looked up in the function's closure and globals. Plain values cross as
they are; modules and what comes from them are imported there; functions and classes of the user's
own go along as their source, with what they need in turn. The rest stays behind, by name.
"""

from __future__ import annotations

import ast
import inspect
import sys
import sysconfig
import textwrap
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from sharpen.core.sandbox import CodecError, encode

__all__ = ["Surroundings", "surroundings"]


@dataclass(slots=True)
class Surroundings:
    """What goes before a text."""

    imports: list[str] = field(default_factory=list)
    """Lines that import."""

    sources: list[str] = field(default_factory=list)
    """Functions and classes, those that others need first."""

    values: dict[str, Any] = field(default_factory=dict)
    """Plain values by name."""

    packages: set[str] = field(default_factory=set)
    """Installed packages that are imported."""

    left_behind: dict[str, str] = field(default_factory=dict)
    """Names that the text uses and will not find, with what they are."""

    def preamble(self) -> str:
        """The lines before the text."""
        lines = ["from __future__ import annotations", *self.imports, *self.sources]
        return "\n".join(lines) + "\n"


def surroundings(text: str, function: Callable[..., Any]) -> Surroundings:
    """What a text for a function needs.

    Args:
        text: the source that is to run; it is parsed, not run.
        function: that it stands for.
    """
    found = Surroundings()
    closed = inspect.getclosurevars(function).nonlocals
    namespace = {**getattr(function, "__globals__", {}), **closed}
    _add(found, text, namespace, {function.__name__})
    return found


def _add(found: Surroundings, text: str, namespace: Mapping[str, Any], seen: set[str]) -> None:
    names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    for name in sorted(names - seen):
        if name not in namespace:
            continue
        seen.add(name)
        _place(found, name, namespace[name], seen)


def _place(found: Surroundings, name: str, value: Any, seen: set[str]) -> None:
    if isinstance(value, ModuleType):
        if _can_import(found, value.__name__):
            found.imports.append(f"import {value.__name__} as {name}")
            return
    elif (origin := _origin(name, value)) is not None and _can_import(found, origin[0]):
        found.imports.append(f"from {origin[0]} import {origin[1]} as {name}")
        return
    elif isinstance(value, (FunctionType, type)) and _source(found, name, value, seen):
        return
    else:
        try:
            encode(value, strict=True)
        except CodecError:
            pass
        else:
            found.values[name] = value
            return
    found.left_behind[name] = type(value).__name__


def _origin(name: str, value: Any) -> tuple[str, str] | None:
    """Module and name that give the same object; None where there is none."""
    module = getattr(value, "__module__", None)
    called = getattr(value, "__qualname__", None) or getattr(value, "_name", None) or name
    if not isinstance(module, str) or not isinstance(called, str) or "." in called:
        return ("typing", name) if getattr(typing, name, None) is value else None
    known = sys.modules.get(module)
    return (module, called) if getattr(known, called, None) is value else None


def _can_import(found: Surroundings, module: str) -> bool:
    """Whether a module is one of the standard library or of an installed package."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return True
    known = sys.modules.get(top)
    file = getattr(known, "__file__", None)
    folders = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    if file is None or not any(Path(file).is_relative_to(folder) for folder in folders):
        return False
    found.packages.add(top)
    return True


def _source(found: Surroundings, name: str, value: Any, seen: set[str]) -> bool:
    """Take a function or class along as its source."""
    if getattr(value, "__closure__", None):
        return False
    try:
        source = textwrap.dedent(inspect.getsource(value))
        ast.parse(source)
    except (OSError, TypeError, SyntaxError):
        return False
    module = sys.modules.get(value.__module__)
    namespace = getattr(value, "__globals__", None) or vars(module or typing)
    _add(found, source, namespace, seen | {value.__name__})
    found.sources.append(source.rstrip())
    if name != value.__name__:
        found.sources.append(f"{name} = {value.__name__}")
    return True
