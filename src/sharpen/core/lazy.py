"""Packages whose public names load their modules on first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["exports"]


def exports(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package.

    Args:
        package: its full name.
        modules: the full name of the module that holds each public name.

    Examples:
        >>> load = exports("sharpen.core", {"ConfigError": "sharpen.core.errors"})
        >>> load("ConfigError").__name__
        'ConfigError'
    """

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return load
