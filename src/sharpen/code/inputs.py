"""Programs and inputs as users name them: ``FILE:FUNCTION``, a JSON file, or a generator."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sharpen.code.measure.program import Program
from sharpen.core.errors import ConfigError, ExecutionError, FileFormatError, MissingFileError

__all__ = ["Input", "read_inputs", "read_program"]

Input = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments of a call, by position and by name."""

_MOST = 10_000


def read_program(text: str, *, root: Path | None = None) -> Program:
    """The function that ``FILE:FUNCTION`` names.

    Args:
        text: such as ``pack/module.py:f`` or ``module.py:Class.method``.
        root: the folder that imports start from; the file's own without it.

    Raises:
        ConfigError: another form.
        MissingFileError: there is no such file.
        FileFormatError: it is no text in UTF-8.
    """
    file, colon, entry = text.rpartition(":")
    if not colon or not file.endswith(".py") or not entry:
        raise ConfigError(f"{text!r} must be FILE.py:FUNCTION, such as slow.py:pairs_with_sum.")
    try:
        return Program.from_file(file, entry, root=root)
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {file}.") from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise FileFormatError(f"{file} is no text in UTF-8: {error}.") from None
    except ValueError:
        raise ConfigError(f"{file} does not lie below {root}.") from None


def read_inputs(text: str) -> list[Input]:
    """The inputs of a file.

    Args:
        text: a JSON file: a list of calls, each a list of arguments, or an object of arguments by
            name; or ``FILE.py:NAME``, a list or a function that gives one, of tuples of arguments
            (anything else is a single argument).

    Raises:
        MissingFileError: there is no such file.
        FileFormatError: it holds something else, or nothing.
        ExecutionError: the generator raised.
    """
    file, colon, name = text.rpartition(":")
    if colon and file.endswith(".py"):
        found: list[Input] = [
            (tuple(one) if isinstance(one, tuple) else (one,), {})
            for one in _generated(Path(file), name)
        ]
    else:
        found = [_call(one, text) for one in _read(Path(text))]
    if not found:
        raise FileFormatError(f"{text} gives no inputs.")
    return found


def _read(path: Path) -> list[Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {path}.") from None
    except json.JSONDecodeError as error:
        raise FileFormatError(f"{path}:{error.lineno}: no JSON: {error.msg}.") from None
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise FileFormatError(f"{path} cannot be read: {error}.") from None
    if not isinstance(value, list):
        raise FileFormatError(f"{path}: a list of calls is needed, not {type(value).__name__}.")
    return value


def _call(value: Any, where: str) -> Input:
    if isinstance(value, list):
        return tuple(value), {}
    if isinstance(value, dict):
        return (), value
    raise FileFormatError(
        f"{where}: a call is a list of arguments or an object of them by name, got {value!r:.60}."
    )


def _generated(file: Path, name: str) -> list[Any]:
    if not file.is_file():
        raise MissingFileError(f"there is no file {file}.")
    try:
        names = runpy.run_path(str(file))
        found = names[name]
        found = found() if callable(found) else found
        some: list[Any] = []
        for one in found if isinstance(found, Iterable) else ():
            some.append(one)
            if len(some) > _MOST:
                raise FileFormatError(f"{file}:{name} gives more than {_MOST:,} inputs.")
    except KeyError as error:
        if error.args != (name,):
            raise ExecutionError(f"{file} raised KeyError: {error}") from None
        raise FileFormatError(f"{file} defines no {name!r}.") from None
    except FileFormatError:
        raise
    except Exception as error:
        raise ExecutionError(f"{file}:{name} raised {type(error).__name__}: {error}") from None
    return some
