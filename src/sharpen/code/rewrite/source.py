"""A module's text, one function in it, and changes that leave all other text as it is."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from sharpen.core.errors import ConfigError, FileFormatError

__all__ = ["IMPOSSIBLE", "Edit", "Function", "Source", "edited"]

Function = ast.FunctionDef | ast.AsyncFunctionDef

_LINE_ENDS = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Edit:
    """New text for a part of a module.

    Args:
        start: of the part, in bytes of UTF-8.
        end: after its last byte; ``start`` where text is only added.
        text: what stands there afterwards.
    """

    start: int
    end: int
    text: str


IMPOSSIBLE = Edit(-1, -1, "")
"""Stands for a change that cannot be made."""


@dataclass(frozen=True)
class Source:
    """A module and the function that is looked at.

    Args:
        text: of the module.
        tree: the same, parsed.
        function: its node in the tree.
        entry: its dotted path, such as ``f`` or ``Class.method``.
    """

    text: str
    tree: ast.Module
    function: Function
    entry: str

    @classmethod
    def parse(cls, text: str, entry: str) -> Source:
        """Read a module.

        Raises:
            FileFormatError: it is no Python.
            ConfigError: it has no such function.
        """
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            raise FileFormatError(f"line {error.lineno}: no Python: {error.msg}.") from None
        except ValueError as error:
            raise FileFormatError(f"the program is no Python: {error}.") from None
        except (RecursionError, MemoryError):
            raise FileFormatError("the program is nested too deep to be read.") from None
        body: ast.AST = tree
        for name in entry.split("."):
            found = _definition(body, name)
            if found is None:
                raise ConfigError(f"there is no function '{entry}'.")
            body = found
        if not isinstance(body, Function):
            raise ConfigError(f"'{entry}' is a class; name a method, such as '{entry}.method'.")
        return cls(text, tree, body, entry)

    @cached_property
    def raw(self) -> bytes:
        """The text in UTF-8, in which positions are counted."""
        return self.text.encode("utf-8", "surrogatepass")

    @cached_property
    def line_starts(self) -> list[int]:
        """Where each line begins."""
        return [0, *(found.end() for found in _LINE_ENDS.finditer(self.raw))]

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Where an expression or a statement (with its decorators) begins and ends."""
        first: ast.AST = node
        decorators = getattr(node, "decorator_list", None)
        start = self.line_starts[first.lineno - 1] + first.col_offset  # type: ignore[attr-defined]
        if decorators:
            start = self.raw.rindex(b"@", 0, self._start(decorators[0]))
        end = self.line_starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
        return start, end

    def _start(self, node: ast.expr) -> int:
        return self.line_starts[node.lineno - 1] + node.col_offset

    def code(self, node: ast.AST) -> str:
        """The text of a node; of expressions of many lines, in one line."""
        start, end = self.span(node)
        text = self.raw[start:end].decode("utf-8", "surrogatepass")
        if isinstance(node, ast.expr) and len(text.splitlines()) > 1:
            return ast.unparse(node)
        return text

    def indent(self, statement: ast.stmt) -> str:
        """The white space before a statement."""
        start, _ = self.span(statement)
        line = self._line_start(start)
        return self.raw[line:start].decode()

    def on_own_lines(self, statements: Sequence[ast.stmt]) -> bool:
        """Whether nothing but comments shares their lines, and none is an ``elif``."""
        start, _ = self.span(statements[0])
        _, end = self.span(statements[-1])
        if isinstance(statements[0], ast.If) and self.raw.startswith(b"elif", start):
            return False
        before = self.raw[self._line_start(start) : start]
        after = _LINE_ENDS.split(self.raw[end:], maxsplit=1)[0].strip()
        return not before.strip() and (not after or after.startswith(b"#"))

    def _line_start(self, position: int) -> int:
        found = 0
        for start in self.line_starts:
            if start > position:
                break
            found = start
        return found

    def block(self, statements: Sequence[ast.stmt], shift: str = "") -> list[str] | None:
        """The lines of statements, without their common indent.

        Comments before the first, and after the last on its line, are kept.

        Returns:
            None where the lines cannot be moved: others stand on them, or a string goes over lines.
        """
        if not self.on_own_lines(statements):
            return None
        indent = self.indent(statements[0])
        start, end = self.whole_lines(statements)
        lines = self.raw[start:end].decode("utf-8", "surrogatepass").splitlines()
        for node in (n for s in statements for n in ast.walk(s)):
            if isinstance(node, (ast.Constant, ast.JoinedStr)) and node.lineno != node.end_lineno:
                return None
        if any(line.strip() and not line.startswith(indent) for line in lines):
            return None
        return [shift + line[len(indent) :] if line.strip() else "" for line in lines]

    def whole_lines(self, statements: Sequence[ast.stmt]) -> tuple[int, int]:
        """From the first comment line above to the end of the last line."""
        start, _ = self.span(statements[0])
        _, end = self.span(statements[-1])
        start = self._line_start(start)
        indent = self.indent(statements[0]).encode()
        while start > 0:
            before = self._line_start(start - 1)
            line = self.raw[before:start]
            if not (line.startswith(indent + b"#")):
                break
            start = before
        rest = _LINE_ENDS.search(self.raw, end)
        return start, rest.start() if rest else len(self.raw)

    def comments(self, start: int, end: int) -> list[str]:
        """The comments of a part, in order."""
        text = self.raw[start:end].decode("utf-8", "surrogatepass")
        found = []
        try:
            for token in tokenize.generate_tokens(io.StringIO(text.strip()).readline):
                if token.type == tokenize.COMMENT:
                    found.append(token.string)
        except (tokenize.TokenError, IndentationError):
            pass  # what was found up to there stays
        return found

    def apply(self, edits: Iterable[Edit]) -> str:
        """The module's text after changes that do not overlap."""
        return edited(self.raw, edits)


def edited(raw: bytes, edits: Iterable[Edit]) -> str:
    """A text after changes that do not overlap; those of one place in their order."""
    line_end = "\r\n" if b"\r\n" in raw else "\n"
    for edit in sorted(edits, key=lambda e: (e.start, e.end))[::-1]:
        new = edit.text.replace("\n", line_end).encode("utf-8", "surrogatepass")
        raw = raw[: edit.start] + new + raw[edit.end :]
    return raw.decode("utf-8", "surrogatepass")


def _definition(body: ast.AST, name: str) -> ast.AST | None:
    """The last definition of a name among the statements of a module, class or function."""
    found: ast.AST | None = None
    for statement in getattr(body, "body", ()):
        if isinstance(statement, (Function, ast.ClassDef)) and statement.name == name:
            found = statement
    return found
