"""Inference of types: what the variables of a function may be, from its arguments on.

A variable has one type in the whole function, the union over all that is ever bound to it; the
functions inside, and functions of the module that it calls, are read with what it passes to them.
What is stored into a container is added to the type of its items where the container is a local
that was made in the function, and to those of all containers otherwise, for two names may mean one
object. The statements are read again until nothing changes: an abstract interpretation (Cousot and
Cousot, POPL 1977) that leaves out the order of statements.
"""

from __future__ import annotations

import ast
import types

from sharpen.code.rewrite.expressions import Expressions, is_natural
from sharpen.code.rewrite.facts import Facts
from sharpen.code.rewrite.names import Names, binds
from sharpen.code.rewrite.scopes import Scope
from sharpen.code.rewrite.source import Function
from sharpen.code.rewrite.types import (
    ANY,
    CONTAINERS,
    NOTHING,
    Type,
    binary,
    from_kind,
    items_of,
    of,
)

__all__ = ["Kinds"]

_ROUNDS = 12


class Kinds(Expressions):
    """Types of all expressions of a function."""

    def __init__(self, names: Names, facts: Facts) -> None:
        super().__init__(names)
        self.facts = facts
        function = names.function
        self._top = self._enter(function, None)
        self._decorated = not all(self._is_harmless(d) for d in function.decorator_list)
        for name in names.arguments:
            kind = from_kind(facts.of(name))
            if self._decorated or (name == names.arguments[0] and "." in names.source.entry):
                kind = ANY
            self._top.vars[name] = kind
        a = function.args
        if a.vararg:
            self._top.vars[a.vararg.arg] = of(tuple, items=self._top.vars[a.vararg.arg])
        if a.kwarg:
            kind = self._top.vars[a.kwarg.arg]
            self._top.vars[a.kwarg.arg] = of(dict, items=of(str), values=kind)
        for step in range(_ROUNDS):
            before = self._state()
            self._changed = False
            self._round()
            if not self._changed and before == self._state():
                break
            if step >= _ROUNDS - 3:
                self._widen(before)
        else:
            self._give_up()
        self._final = True
        self._round()

    def of(self, node: ast.expr) -> Type:
        """The type of an expression of the function, also of one in a function inside."""
        return self._types.get(id(node), ANY)

    def items(self, node: ast.expr) -> Type:
        """What iterating over the value of an expression gives."""
        return self._items(self.of(node))

    def items_of(self, name: str) -> Type:
        """What iterating over a variable gives."""
        return self._items(self.variable(name))

    def values_of(self, name: str) -> Type:
        """What the values of a mapping are."""
        return (self.variable(name).values or NOTHING) | self._heap

    def constant(self, name: str) -> Type:
        """The type of a constant of the module; anything where it could be changed."""
        return self._global(name)

    def parameter(self, function: Function, name: str) -> Type:
        """The type of a parameter of a function whose code is known."""
        scope = self._scopes.get(id(function))
        return ANY if scope is None else scope.vars.get(name, ANY)

    def is_empty(self, items: Type) -> bool:
        """Whether a container of such items has none."""
        return items == NOTHING

    def function_called(self, name: str) -> Function | None:
        """The function that a name means in the function, where it is one whose code is known."""
        return self._function(name, self._top)

    def variable(self, name: str) -> Type:
        """The type of a parameter or local of the function."""
        return self._top.vars.get(name, ANY)

    def _state(self) -> list[tuple[dict[str, Type], Type]]:
        return [(dict(s.vars), s.returns) for s in self._scopes.values()] + [({}, self._heap)]

    def _widen(self, before: list[tuple[dict[str, Type], Type]]) -> None:
        for scope, (old, returns) in zip(self._scopes.values(), before, strict=False):
            for name, kind in scope.vars.items():
                if old.get(name) != kind:
                    scope.vars[name] = ANY
            if returns != scope.returns:
                scope.returns = ANY

    def _give_up(self) -> None:
        self._heap = ANY
        for scope in self._scopes.values():
            scope.vars = dict.fromkeys(scope.vars, ANY)
            scope.returns = ANY

    def _round(self) -> None:
        for scope in list(self._scopes.values()):
            if scope.function is not None:
                self._block(scope.function.body, scope)

    def _block(self, block: list[ast.stmt], scope: Scope) -> None:
        for statement in block:
            self._statement(statement, scope)

    def _statement(self, node: ast.stmt, scope: Scope) -> None:
        if isinstance(node, ast.Assign):
            value = self._expr(node.value, scope)
            pairs = [(t, node.value) for t in node.targets]
            for target, source in pairs:
                self._assign(target, source, value, scope)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self._bind(node.target, self._expr(node.value, scope), scope)
        elif isinstance(node, ast.AugAssign):
            self._augmented(node, scope)
        elif isinstance(node, (ast.For, ast.AsyncFor)):
            self._loop(node.target, node.iter, scope, isinstance(node, ast.AsyncFor))
            self._block(node.body, scope)
            self._block(node.orelse, scope)
        elif isinstance(node, ast.Return):
            value = self._expr(node.value, scope) if node.value else of(type(None))
            scope_of = scope
            joined = scope_of.returns | value
            if joined != scope_of.returns:
                scope_of.returns = joined
                self._changed = True
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self._define(node, scope)
        elif isinstance(node, ast.ClassDef):
            self._join(node.name, ANY, scope)
            self._dirty(ANY)
            for name in {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}:
                function = self._function(name, scope)
                if function is not None:
                    self._open(function)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for name in binds([node]):
                self._join(name, ANY, scope)
        else:
            self._other(node, scope)

    def _assign(self, target: ast.expr, source: ast.expr, value: Type, scope: Scope) -> None:
        """Bind; tuple to tuple part by part."""
        if (
            isinstance(target, (ast.Tuple, ast.List))
            and isinstance(source, (ast.Tuple, ast.List))
            and len(target.elts) == len(source.elts)
            and not any(isinstance(e, ast.Starred) for e in (*target.elts, *source.elts))
        ):
            for part, one in zip(target.elts, source.elts, strict=True):
                self._assign(part, one, self._expr(one, scope), scope)
        else:
            self._bind(target, value, scope)

    def _augmented(self, node: ast.AugAssign, scope: Scope) -> None:
        value = self._expr(node.value, scope)
        old = self._read(node.target, scope)
        whole = isinstance(node.op, ast.Pow) and is_natural(node.value)
        if old.may_be(CONTAINERS):
            added = items_of(value)
            self._store(node.target, old, added, added if not value.anything else ANY, scope)
        new = binary(node.op, old, value, whole)
        if old.names & {list, set, dict} and isinstance(node.op, (ast.Add, ast.BitOr)):
            new |= Type(
                old.names & {list, set, dict}, (old.items or NOTHING) | items_of(value), old.values
            )
        self._bind(node.target, new, scope)

    def _read(self, target: ast.expr, scope: Scope) -> Type:
        if isinstance(target, ast.Name):
            return self._name(target.id, scope)
        if isinstance(target, ast.Subscript):
            return self._subscript(target, scope)
        return ANY

    def _define(self, node: Function, scope: Scope) -> None:
        inner = self._enter(node, scope)
        self._join(node.name, of(types.FunctionType), scope)
        for d in node.decorator_list:
            self._expr(d, scope)
        if node.decorator_list and not all(self._is_harmless(d) for d in node.decorator_list):
            self._open(node)
        self._defaults(node, scope, inner)

    def _other(self, node: ast.stmt, scope: Scope) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._expr(child, scope)
            elif isinstance(child, ast.stmt):
                self._statement(child, scope)
            elif isinstance(child, ast.ExceptHandler):
                if child.type is not None:
                    self._expr(child.type, scope)
                if child.name:
                    self._join(child.name, ANY, scope)
                self._block(child.body, scope)
            elif isinstance(child, ast.withitem):
                self._expr(child.context_expr, scope)
                self._dirty(ANY)
                for name in binds([child]):
                    self._join(name, ANY, scope)
            elif isinstance(child, ast.match_case):
                for name in binds([child.pattern]):
                    self._join(name, ANY, scope)
                if child.guard is not None:
                    self._expr(child.guard, scope)
                self._block(child.body, scope)
