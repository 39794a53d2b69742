"""Operators of code of your own, which runs with all your rights: only with ``allow_code``."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sharpen.core.errors import ConfigError, DataError, MissingFileError
from sharpen.core.files import sha256_file
from sharpen.data.batch import Batch, Mask
from sharpen.data.ops.base import Filter, Mapper, Miss, Statistics, operator
from sharpen.data.ops.mappers.editing import edit_each

__all__ = ["PythonFile", "PythonFilter", "PythonLambda", "check_allowed", "load_function"]


def check_allowed(name: str, allow_code: bool) -> None:
    """Refuse code unless it is allowed.

    Raises:
        ConfigError: it is not.
    """
    if not allow_code:
        raise ConfigError(
            f"{name} runs code of the recipe. If you trust it, allow it: allow_code: true."
        )


@functools.lru_cache(maxsize=64)
def _lambda(code: str) -> Callable[[Any], Any]:
    """A function of one argument.

    Raises:
        ConfigError: anything else than one lambda.
    """
    try:
        tree = ast.parse(code.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{code!r:.200} is no lambda: {error}.") from None
    if not isinstance(tree.body, ast.Lambda) or len(tree.body.args.args) != 1:
        raise ConfigError(
            f"{code!r:.200} must be a lambda of one argument, such as: lambda text: text.strip()."
        )
    function: Callable[[Any], Any] = eval(compile(tree, "<recipe>", "eval"), {})
    return function


@functools.lru_cache(maxsize=64)
def _function(path: str, name: str, sha256: str) -> Callable[..., Any]:
    spec = importlib.util.spec_from_file_location(f"sharpen_recipe_{sha256[:16]}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no file of Python; its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"{path} has no function '{name}'.")
    return function  # type: ignore[no-any-return]


def load_function(path: str, name: str) -> Callable[..., Any]:
    """A function of a file.

    Raises:
        MissingFileError: there is no such file.
        ConfigError: it has no such function.
    """
    if not Path(path).is_file():
        raise MissingFileError(f"no such file: {path}")
    return _function(path, name, sha256_file(Path(path)))


def _text(made: Any) -> str:
    if not isinstance(made, str):
        raise DataError(f"the code returned {type(made).__name__}, not a text.")
    return made


@operator("python_lambda")
@dataclass(frozen=True, kw_only=True)
class PythonLambda(Mapper):
    """Edits each text by a lambda."""

    code: str
    """Such as ``lambda text: text.strip()``."""

    allow_code: bool = False
    """That you trust it."""

    def __post_init__(self) -> None:
        """Check the code."""
        check_allowed(self.name, self.allow_code)
        _lambda(self.code)

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        function = _lambda(self.code)
        return edit_each(batch.texts.column, lambda text: _text(function(text)))


@operator("python_file")
@dataclass(frozen=True, kw_only=True)
class PythonFile(Mapper):
    """Edits each text by a function of a file."""

    path: str
    """The file."""

    function: str = "process"
    """Its function: of a text, to a text."""

    allow_code: bool = False
    """That you trust it."""

    def __post_init__(self) -> None:
        """Check that there is the function."""
        check_allowed(self.name, self.allow_code)
        load_function(self.path, self.function)

    def describe(self) -> dict[str, Any]:
        """See :class:`Operator`; a changed file is another operator."""
        return {**super().describe(), "sha256": sha256_file(Path(self.path))}

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        function = load_function(self.path, self.function)
        return edit_each(batch.texts.column, lambda text: _text(function(text)))


@operator("python_filter")
@dataclass(frozen=True, kw_only=True)
class PythonFilter(Filter):
    """Keeps rows of which a lambda is true."""

    code: str
    """Such as ``lambda row: row['stars'] > 3``; the text is ``row['text']``."""

    allow_code: bool = False
    """That you trust it."""

    def __post_init__(self) -> None:
        """Check the code."""
        check_allowed(self.name, self.allow_code)
        _lambda(self.code)

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        function = _lambda(self.code)
        rows = zip(batch.fields, batch.texts.strings, strict=True)
        held = [bool(function({**fields, "text": text})) for fields, text in rows]
        return {self.name: np.array(held, np.float64)}

    def keep(self, statistics: Statistics) -> Mask:
        """See :class:`Filter`."""
        return np.equal(statistics[self.name], 1.0)

    def miss(self, statistics: Statistics, row: int) -> Miss:
        """See :class:`Filter`."""
        return Miss(self.name, reason=f"not: {self.code}")
