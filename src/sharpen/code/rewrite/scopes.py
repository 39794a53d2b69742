"""The variables of functions and what their containers hold, while types are inferred."""

from __future__ import annotations

import ast
import types

from sharpen.code.rewrite.calls import constructed
from sharpen.code.rewrite.names import Names, binds, parameters, same_scope
from sharpen.code.rewrite.source import Function
from sharpen.code.rewrite.types import ANY, CONTAINERS, MAPPINGS, NOTHING, Type, items_of, of

__all__ = ["Scope", "Scopes", "is_new"]


class Scope:
    """The variables of a function, or of a comprehension."""

    def __init__(self, parent: Scope | None, function: Function | None = None) -> None:
        self.parent = parent
        self.function = function
        self.vars: dict[str, Type] = {}
        self.unknown: set[str] = set()
        self.nonlocals: set[str] = set()
        self.fresh: set[str] = set()
        self.returns = NOTHING
        self.defined: dict[str, list[Function]] = {}
        for node in same_scope(function.body if function is not None else []):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self.defined.setdefault(node.name, []).append(node)

    def find(self, name: str) -> Scope | None:
        """The scope that a name belongs to, seen from this one."""
        scope: Scope | None = self
        while scope is not None and (name not in scope.vars or name in scope.nonlocals):
            scope = scope.parent
        return scope


def is_new(node: ast.expr, names: Names) -> bool:
    """Whether an expression makes a container that nobody else holds."""
    if isinstance(node, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.SetComp, ast.DictComp)):
        return True
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Add)):
        return is_new(node.left, names) or is_new(node.right, names)
    if isinstance(node, ast.Call):
        what = names.stands_for(node.func)
        return what in constructed or what in (
            "collections.deque",
            "collections.Counter",
            "collections.defaultdict",
        )
    return False


class Scopes:
    """All scopes of a function and of those that it calls, and one heap for what they share."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._types: dict[int, Type] = {}
        self._scopes: dict[int, Scope] = {}
        self._heap = NOTHING
        self._changed = False
        self._final = False

    def _enter(self, function: Function, parent: Scope | None) -> Scope:
        """The scope of a function; made when it is first met."""
        found = self._scopes.get(id(function))
        if found is not None:
            return found
        scope = self._scopes[id(function)] = Scope(parent, function)
        self._changed = True
        for node in same_scope(function.body):
            if isinstance(node, ast.Global):
                scope.unknown.update(node.names)
            elif isinstance(node, ast.Nonlocal):
                scope.nonlocals.update(node.names)
        a = function.args
        for p in (*a.posonlyargs, *a.args, *a.kwonlyargs):
            scope.vars[p.arg] = NOTHING
        for star in (a.vararg, a.kwarg):
            if star:
                scope.vars[star.arg] = ANY
        bound = binds(function.body) - scope.unknown - scope.nonlocals
        for name in bound:
            scope.vars.setdefault(name, NOTHING)
        scope.fresh = self._fresh_names(function, bound - set(parameters(function)))
        return scope

    def _fresh_names(self, function: Function, bound: set[str]) -> set[str]:
        """Locals that only ever hold containers made here."""
        good: set[str] = set()
        bad: set[str] = set()
        for node in same_scope(function.body):
            if isinstance(node, ast.Assign) and is_new(node.value, self.names):
                for target in node.targets:
                    (good if isinstance(target, ast.Name) else bad).update(
                        n.id for n in ast.walk(target) if isinstance(n, ast.Name)
                    )
                if len(node.targets) > 1:
                    bad.update(binds([node]))
            elif (
                isinstance(node, ast.AnnAssign)
                and node.value is not None
                and is_new(node.value, self.names)
                and isinstance(node.target, ast.Name)
            ):
                good.add(node.target.id)
            elif isinstance(node, ast.stmt) and not isinstance(node, ast.AugAssign):
                if isinstance(node, (ast.Assign, ast.AnnAssign)):
                    bad |= {
                        n.id
                        for n in ast.walk(node)
                        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
                    }
                elif isinstance(node, (ast.For, ast.AsyncFor)):
                    bad |= binds([node.target])
                elif not isinstance(node, (ast.If, ast.While, ast.Try)):
                    bad |= binds([node])
            elif isinstance(node, ast.Lambda):
                bad |= binds([node])
            elif isinstance(node, ast.ExceptHandler) and node.name:
                bad.add(node.name)
            elif isinstance(node, (ast.NamedExpr, ast.comprehension)):
                bad |= binds([node.target])
        return (good & bound) - bad

    def _join(self, name: str, value: Type, scope: Scope) -> None:
        if name in scope.unknown:
            return
        while scope.function is None and name not in scope.vars and scope.parent is not None:
            scope = scope.parent
        owner = scope.find(name)
        if owner is None:
            return
        joined = owner.vars[name] | value
        if joined != owner.vars[name]:
            owner.vars[name] = joined
            self._changed = True

    def _leak(self, value: Type) -> None:
        """A value goes where it can be changed out of sight."""
        if value.may_be(CONTAINERS):
            self._dirty(ANY)

    def _dirty(self, items: Type) -> None:
        joined = self._heap | items
        if joined != self._heap:
            self._heap = joined
            self._changed = True

    def _store(self, node: ast.expr, box: Type, key: Type, value: Type, scope: Scope) -> None:
        """Items put into the object of an expression."""
        mapping = box.may_be(MAPPINGS)
        items = key if mapping and not box.anything and box.names <= MAPPINGS else value
        if isinstance(node, ast.Name):
            owner = scope.find(node.id)
            if owner is not None and node.id in owner.fresh:
                names = owner.vars[node.id].names
                if names <= MAPPINGS:
                    self._join_parts(owner, node.id, key, value)
                elif not names & MAPPINGS:
                    self._join_parts(owner, node.id, value, None)
                else:
                    self._join_parts(owner, node.id, key | value, value)
                return
        self._dirty(items | value)

    def _join_parts(self, owner: Scope, name: str, items: Type, values: Type | None) -> None:
        old = owner.vars[name]
        if old.anything or not old.names:
            return
        new = old | Type(old.names, of(list, items=items).items, values)
        if new != old:
            owner.vars[name] = new
            self._changed = True

    def _join_parameter(self, inner: Scope, name: str, value: Type) -> None:
        joined = inner.vars.get(name, NOTHING) | value
        if joined != inner.vars.get(name):
            inner.vars[name] = joined
            self._changed = True

    def _open(self, function: Function) -> None:
        """Anyone may call a function: nothing is known of its arguments."""
        scope = self._scopes.get(id(function))
        if scope is not None:
            for name in parameters(function):
                self._join_parameter(scope, name, ANY)

    def _items(self, value: Type) -> Type:
        found = items_of(value)
        return found | self._heap if value.may_be(CONTAINERS) else found

    def _name(self, name: str, scope: Scope) -> Type:
        if name in scope.unknown:
            return ANY
        owner = scope.find(name)
        if owner is not None:
            return ANY if name in owner.unknown else owner.vars[name]
        return self._global(name)

    def _global(self, name: str) -> Type:
        """The type of a constant of the module that is bound once, and cannot be changed."""
        bound = self.names.module.get(name, [])
        if len(bound) != 1 or not isinstance(bound[0], ast.Assign):
            return ANY
        value = bound[0].value
        targets = bound[0].targets
        if len(targets) != 1 or not isinstance(targets[0], ast.Name):
            return ANY
        found = _constant(value)
        if isinstance(value, (ast.Set, ast.List, ast.Dict)):
            return Type(found.names, ANY, ANY if found.names & MAPPINGS else None)
        return found

    def _function(self, name: str, scope: Scope) -> Function | None:
        """The function that a name always means: one inside, the entry, or one of the module."""
        owner = scope.find(name)
        if owner is not None:
            if owner.function is None:
                return None
            found = owner.defined.get(name, [])
            bound = owner.vars[name]
            return (
                found[0]
                if len(found) == 1 and bound.names <= {types.FunctionType} and not bound.anything
                else None
            )
        bindings = self.names.module.get(name, [])
        if len(bindings) == 1 and isinstance(bindings[0], (ast.FunctionDef, ast.AsyncFunctionDef)):
            return bindings[0]
        return None


def _constant(node: ast.expr) -> Type:
    """The type of a display of constants."""
    if isinstance(node, ast.Constant) and node.value is not Ellipsis:
        return of(type(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _constant(node.operand)
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        items = NOTHING
        for part in node.elts:
            items |= _constant(part)
        return of({ast.Tuple: tuple, ast.List: list, ast.Set: set}[type(node)], items=items)
    if isinstance(node, ast.Dict):
        return of(dict, items=ANY, values=ANY)
    return ANY
