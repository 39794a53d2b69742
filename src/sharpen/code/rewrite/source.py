"""A module's text and one function in it, parsed so that all of its format is kept."""

from __future__ import annotations

from dataclasses import dataclass

import libcst as cst

from sharpen.core.errors import ConfigError, FileFormatError

__all__ = ["Source"]


@dataclass(frozen=True, slots=True)
class Source:
    """A module and the function that is looked at.

    Args:
        module: the whole.
        function: the node in it; rewriters replace it, or parts of it.
        entry: its dotted path, such as ``f`` or ``Class.method``.
    """

    module: cst.Module
    function: cst.FunctionDef
    entry: str

    @classmethod
    def parse(cls, text: str, entry: str) -> Source:
        """Read a module.

        Raises:
            FileFormatError: it is no Python.
            ConfigError: it has no such function.
        """
        try:
            module = cst.parse_module(text)
        except cst.ParserSyntaxError as error:
            raise FileFormatError(f"line {error.raw_line}: no Python: {error.message}") from None
        except RecursionError:
            raise FileFormatError("the program is nested too deep to be read.") from None
        body: cst.CSTNode = module
        for name in entry.split("."):
            found = _definition(body, name)
            if found is None:
                raise ConfigError(f"there is no function '{entry}'.")
            body = found
        if not isinstance(body, cst.FunctionDef):
            raise ConfigError(f"'{entry}' is a class; name a method, such as '{entry}.method'.")
        return cls(module, body, entry)

    def replaced(self, old: cst.CSTNode, new: cst.CSTNode) -> str:
        """The module's text with another node in the place of one."""
        tree = self.module.deep_replace(old, new)
        assert isinstance(tree, cst.Module)
        return tree.code


def _definition(body: cst.CSTNode, name: str) -> cst.CSTNode | None:
    """The last definition of a name among the statements of a module, class or function."""
    block = body if isinstance(body, cst.Module) else getattr(body, "body", None)
    found: cst.CSTNode | None = None
    for statement in getattr(block, "body", ()):
        if isinstance(statement, (cst.FunctionDef, cst.ClassDef)) and statement.name.value == name:
            found = statement
    return found
