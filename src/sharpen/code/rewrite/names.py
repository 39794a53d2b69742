"""Names: which a function binds, which are builtins, which are still free."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator
from functools import cached_property

from sharpen.code.rewrite.source import Function, Source

__all__ = ["Names", "binds", "bound_here", "loads", "parameters", "same_scope"]

_DYNAMIC = frozenset(
    {"locals", "globals", "vars", "exec", "eval", "dir", "_getframe", "currentframe"}
)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def same_scope(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All nodes below some, those of functions, lambdas and classes inside left out.

    Comprehensions count as part of the scope around them.
    """
    stack = list(nodes)[::-1]
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, _SCOPES):
            stack.extend(reversed(list(ast.iter_child_nodes(node))))


def loads(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that are read below some nodes, in functions inside too."""
    return set().union(*(_loads(node) for node in nodes))


def _loads(node: ast.AST) -> frozenset[str]:
    """The same for one node; kept in it, for a tree that is looked at does not change."""
    found = node.__dict__.get("_loads")
    if found is None:
        found = frozenset().union(*(_loads(child) for child in ast.iter_child_nodes(node)))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found = frozenset({node.id})
        node.__dict__["_loads"] = found
    return found


def binds(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that are bound, rebound or deleted below some nodes; in comprehensions too."""
    return set().union(*(_binds(node) for node in nodes))


def _binds(node: ast.AST) -> frozenset[str]:
    """The same for one node; kept in it."""
    found = node.__dict__.get("_binds")
    if found is None:
        found = frozenset(bound_here(node))
        if not isinstance(node, _SCOPES):
            found = found.union(*(_binds(child) for child in ast.iter_child_nodes(node)))
        node.__dict__["_binds"] = found
    return found


def bound_here(node: ast.AST) -> set[str]:
    """Names that a node itself binds."""
    if isinstance(node, ast.Name):
        return set() if isinstance(node.ctx, ast.Load) else {node.id}
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name} | _nonlocals(node)
    if isinstance(node, ast.Lambda):
        return _nonlocals(node)
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(a.asname or a.name).split(".")[0] for a in node.names}
    if isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
        return {node.name} if node.name else set()
    if isinstance(node, ast.MatchMapping):
        return {node.rest} if node.rest else set()
    return set()


def _nonlocals(node: ast.AST) -> set[str]:
    """What functions inside may bind outside of themselves."""
    return {name for n in ast.walk(node) if isinstance(n, ast.Nonlocal) for name in n.names}


class Names:
    """The names of a module, seen from one function in it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.function = source.function
        self._fresh: set[str] = set()

    @cached_property
    def used(self) -> set[str]:
        """All identifiers of the module."""
        found: set[str] = set()
        for node in ast.walk(self.source.tree):
            for field in ("id", "arg", "attr", "name", "asname"):
                value = getattr(node, field, None)
                if isinstance(value, str):
                    found.update(value.split("."))
            if isinstance(node, (ast.Global, ast.Nonlocal)):
                found.update(node.names)
        return found

    def fresh(self, wanted: str) -> str:
        """A name that nothing in the module has: the wanted one, or with a number behind."""
        name, i = wanted, 2
        while name in self.used or hasattr(builtins, name):
            name, i = f"{wanted}{i}", i + 1
        return name

    @cached_property
    def is_dynamic(self) -> bool:
        """Whether the function, or one in it, looks at names while it runs."""
        return any(
            (isinstance(n, ast.Name) and n.id in _DYNAMIC)
            or (isinstance(n, ast.Attribute) and n.attr in _DYNAMIC)
            for n in ast.walk(self.function)
        )

    @cached_property
    def arguments(self) -> list[str]:
        """The parameters in order, those with stars too."""
        return parameters(self.function)

    @cached_property
    def local(self) -> set[str]:
        """What the function binds itself."""
        found = binds(self.function.body) | set(self.arguments)
        return found - self.declared

    @cached_property
    def declared(self) -> set[str]:
        """Names of ``global`` and ``nonlocal`` statements of the function."""
        return {
            name
            for n in same_scope(self.function.body)
            if isinstance(n, (ast.Global, ast.Nonlocal))
            for name in n.names
        }

    @cached_property
    def captured(self) -> set[str]:
        """Locals that functions, lambdas and classes inside use."""
        found: set[str] = set()
        for node in same_scope(self.function.body):
            if isinstance(node, _SCOPES):
                for n in ast.walk(node):
                    if isinstance(n, ast.Name):
                        found.add(n.id)
                    elif isinstance(n, ast.Nonlocal):
                        found.update(n.names)
        return found & self.local

    @cached_property
    def module(self) -> dict[str, list[ast.AST]]:
        """What binds each name of the module, also by ``global`` in functions."""
        found: dict[str, list[ast.AST]] = {}
        for statement in self.source.tree.body:
            for name in binds([statement]):
                found.setdefault(name, []).append(statement)
        for node in ast.walk(self.source.tree):
            if isinstance(node, ast.Global):
                for name in node.names:
                    found.setdefault(name, []).append(node)
        return found

    @cached_property
    def imported(self) -> dict[str, str]:
        """Names that only an import at the top of the module binds, with what they stand for."""
        found: dict[str, str] = {}
        for statement in self.source.tree.body:
            if isinstance(statement, ast.Import):
                for alias in statement.names:
                    if alias.asname:
                        found[alias.asname] = alias.name
                    else:
                        found[alias.name.split(".")[0]] = alias.name.split(".")[0]
            elif isinstance(statement, ast.ImportFrom) and not statement.level:
                for alias in statement.names:
                    found[alias.asname or alias.name] = f"{statement.module}.{alias.name}"
        return {
            name: what
            for name, what in found.items()
            if len(self.module.get(name, ())) == 1 and name not in self._around
        }

    @cached_property
    def _around(self) -> set[str]:
        """Names bound by the function, by those around it, and by functions inside."""
        found = set(self.local)
        for node in ast.walk(self.function):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found |= set(parameters(node)) | binds(node.body)
            elif isinstance(node, ast.Lambda):
                found |= {a.arg for a in node.args.args}
        body: ast.AST = self.source.tree
        for part in self.source.entry.split(".")[:-1]:
            body = next(n for n in getattr(body, "body", ()) if getattr(n, "name", None) == part)
            if isinstance(body, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found |= set(parameters(body)) | binds(body.body)
        return found

    @cached_property
    def has_star(self) -> bool:
        """Whether the module takes names from others without saying which."""
        return any(
            isinstance(n, ast.ImportFrom) and any(a.name == "*" for a in n.names)
            for n in ast.walk(self.source.tree)
        )

    def builtin(self, name: str) -> bool:
        """Whether a name is the builtin's in the whole function."""
        return (
            hasattr(builtins, name)
            and not self.has_star
            and name not in self._around
            and name not in self.module
            and name not in self.declared
        )

    def stands_for(self, node: ast.expr) -> str | None:
        """The dotted name of a builtin or of what is imported, such as ``math.sqrt``."""
        if isinstance(node, ast.Name):
            if node.id in self.imported:
                return self.imported[node.id]
            return node.id if self.builtin(node.id) else None
        if isinstance(node, ast.Attribute):
            head = (
                self.stands_for(node.value)
                if isinstance(node.value, (ast.Name, ast.Attribute))
                else None
            )
            if head is not None and not hasattr(builtins, head):
                return f"{head}.{node.attr}"
        return None


def parameters(function: Function) -> list[str]:
    """Names of a function's parameters."""
    a = function.args
    found = [p.arg for p in (*a.posonlyargs, *a.args)]
    if a.vararg:
        found.append(a.vararg.arg)
    found += [p.arg for p in a.kwonlyargs]
    if a.kwarg:
        found.append(a.kwarg.arg)
    return found
