"""Functions whose source is a parameter: optimizers rewrite it, calls run what it says now.

The text must stay one function of the same name and arguments. It is compiled once a version, in a
copy of the function's own globals with its closure's values, and its own name stands for the plain
function, so recursion works. A text that no longer compiles, or that raises, gives feedback as any
error of an operation does.

The text as the user wrote it runs in this process. Any other text was proposed, by a model or by
search, and runs in a sandbox (:mod:`sharpen.core.sandbox`): what it is given and gives crosses as
plain values. ``trust`` says otherwise: ``inline`` runs all of it in this process, which is no
boundary of any kind; ``sandbox`` runs all of it in a sandbox.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import textwrap
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.core.sandbox import SandboxFailed
from sharpen.text.nodes import Node, Operation
from sharpen.text.parameter import Parameter
from sharpen.text.record import Op
from sharpen.text.sandboxed import CannotCrossError, SandboxedFunction

__all__ = ["CodeOp", "code_complaint"]


def source_of(function: Callable[..., Any]) -> str:
    """The source of a function without its decorators.

    Raises:
        ConfigError: there is none, or it is no plain ``def``.
    """
    try:
        source = textwrap.dedent(inspect.getsource(function))
        node = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError) as error:
        raise ConfigError(
            f"the source of {function!r} cannot be read ({error}), so it cannot be trainable."
            " Write it with `def` in a file."
        ) from None
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        raise ConfigError(f"{function!r} is no `def`, so it cannot be trainable.")
    return "".join(source.splitlines(keepends=True)[node.lineno - 1 :]).rstrip() + "\n"


def header_of(source: str) -> str:
    """The first line of a function: its name and arguments, as they must stay."""
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    kept = type(node)(
        name=node.name,
        args=node.args,
        body=[ast.Pass()],
        decorator_list=[],
        returns=node.returns,
        lineno=1,
        col_offset=0,
    )
    return ast.unparse(ast.fix_missing_locations(kept)).splitlines()[0]


def code_complaint(text: str, name: str, header: str) -> str | None:
    """Why a text may not stand for a function; None where it may.

    Args:
        text: the source.
        name: of the function.
        header: its first line.
    """
    try:
        body = ast.parse(text).body
    except SyntaxError as error:
        return f"the code cannot be parsed: {error.msg} (line {error.lineno})"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"the code cannot be parsed: {error}"
    functions = [n for n in body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    if len(functions) != 1 or len(body) != 1:
        return f"the code must be the function '{name}' and nothing beside it"
    (function,) = functions
    if function.decorator_list:
        return "the function may have no decorators"
    if _arguments(header_of(text)) != _arguments(header):
        return f"the function must begin with: {header}"
    return None


def _arguments(header: str) -> str:
    """Name and arguments without annotations, which a rewrite may leave out."""
    node = ast.parse(f"{header}\n    pass").body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for argument in ast.walk(node.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    node.returns = None
    return ast.unparse(node)


class CodeOp(Op):
    """An operation whose source is a parameter; made by ``op(trainable=True)``.

    Attributes:
        parameter: the source, named ``<name>_code``.
    """

    def __init__(self, function: Callable[..., Any], operation: Operation, **options: Any) -> None:
        super().__init__(function, operation, **options)
        source = source_of(function)
        header = header_of(source)
        called = function.__name__
        self.parameter = Parameter(
            source,
            f"{operation.name}_code",
            role=f"the source of the function {called}",
            constraint=f"must begin with: {header}",
            check=lambda text: code_complaint(text, called, header),
            kind="code",
        )
        self._compiled: dict[str, Callable[..., Any]] = {}
        if self.trust != "sandbox":  # the user wrote it
            self._compiled[self._digest(source)] = function

    @property
    def trust(self) -> str:
        """Where the text runs: ``auto``, ``inline`` or ``sandbox``."""
        return str(self.operation.meta.get("trust", "auto"))

    def _what_runs(self) -> tuple[Callable[..., Any], Mapping[str, Node]]:
        text = self.parameter._value
        key = self._digest(text)
        if key not in self._compiled:
            inline = self.trust == "inline"
            self._compiled[key] = (self._compile if inline else self._sandboxed)(text, key)
        return self._compiled[key], {"code": self.parameter}

    def _failure(self, error: Exception, *rest: Any) -> Exception:
        if isinstance(error, (CannotCrossError, SandboxFailed)):
            return error  # no other text would mend it
        return super()._failure(error, *rest)

    def _digest(self, text: str) -> str:
        return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _filename(self, key: str) -> str:
        return f"<code of {self.function.__name__} {key[:12]}>"

    def _sandboxed(self, text: str, key: str) -> Callable[..., Any]:
        return SandboxedFunction(text, self.function, self._filename(key), is_async=self.is_async)

    def _compile(self, text: str, key: str) -> Callable[..., Any]:
        name, filename = self.function.__name__, self._filename(key)
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
        closed = inspect.getclosurevars(self.function).nonlocals
        namespace = {
            "__builtins__": builtins,
            **self.function.__globals__,
            **closed,
            "__name__": self.function.__module__,
        }
        exec(compile(text, filename, "exec"), namespace)
        made: Callable[..., Any] = namespace[name]
        return made
