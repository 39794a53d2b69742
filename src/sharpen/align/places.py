"""Rewards and worlds by where they are, ``module:attribute`` or ``path.py:attribute``; texts."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError, did_you_mean

__all__ = ["at_place", "file_of", "instructions_of", "placed"]


def at_place(ref: str, *, what: str, known: Iterable[str] = ()) -> Any:
    """What a place names.

    Args:
        ref: ``module:attribute`` or ``path.py:attribute``.
        what: it is, in messages.
        known: names that need no place, for messages.

    Raises:
        ConfigError: it is no place, or nothing is there.
        MissingFileError: there is no such file.
    """
    place, colon, attribute = ref.rpartition(":")
    if not colon or not place or not attribute:
        names = list(known)
        raise ConfigError(
            f"there is no {what} '{ref}'.{did_you_mean(ref, names)} Known: {', '.join(names)}; or "
            "write module:name or path.py:name."
        )
    file = file_of(ref)
    found: Any = _module(place, what) if file is None else _module_of(file, what)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"the {what} '{ref}' cannot be loaded: {place} has no '{part}'.")
        found = getattr(found, part)
    return found


def file_of(ref: str) -> Path | None:
    """The file of a place; None where it is in a module."""
    file, colon, _ = ref.rpartition(":")
    return Path(file) if colon and file.endswith(".py") else None


def placed(ref: str, resolve: Callable[[str], Path]) -> str:
    """A place whose path is as ``resolve`` finds it; other names as they are.

    Raises:
        MissingFileError: ``resolve`` does not find the file.
    """
    path, colon, name = ref.rpartition(":")
    if colon and path.endswith(".py"):
        return f"{resolve(path)}:{name}"
    return ref


def instructions_of(given: str, resolve: Callable[[str], Path]) -> str:
    """An agent's instructions: a text as it is given, or that of a file after an ``@``.

    Args:
        given: the text, or ``@path``.
        resolve: a path as it is given to one that exists.

    Raises:
        MissingFileError: ``resolve`` does not find the file.
        FileFormatError: it is no text.
    """
    if not given.startswith("@"):
        return given
    try:
        path = resolve(given[1:])
    except MissingFileError as error:
        raise MissingFileError(f"instructions: {error}") from None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (UnicodeDecodeError, IsADirectoryError):
        raise FileFormatError(f"instructions: {path} is no file of text (UTF-8).") from None


def _module(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the {what}'s module '{name}' cannot be imported: there is no '{error.name}'. For a"
            " file, write path.py:name."
        ) from None


def _module_of(file: Path, what: str) -> Any:
    file = file.resolve()
    if not file.is_file():
        raise MissingFileError(f"there is no file {file} with a {what}.")
    name = f"{what}_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"{file} cannot be loaded: {type(error).__name__}: {error}") from error
    return module
