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
from collections import defaultdict

from sharpen.code.rewrite.calls import (
    MUTATORS,
    PURE_MODULES,
    call_type,
    constructed,
    method_type,
    stored,
)
from sharpen.code.rewrite.facts import Facts
from sharpen.code.rewrite.names import Names, binds, same_scope
from sharpen.code.rewrite.source import Function
from sharpen.code.rewrite.types import (
    ANY,
    CONTAINERS,
    MAPPINGS,
    NOTHING,
    Type,
    binary,
    from_kind,
    items_of,
    of,
)

__all__ = ["Kinds"]

_ROUNDS = 12
_BOOL = of(bool)
_CACHES = ("functools.cache", "functools.lru_cache")


class _Scope:
    """The variables of a function, or of a comprehension."""

    def __init__(self, parent: _Scope | None, function: Function | None = None) -> None:
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

    def find(self, name: str) -> _Scope | None:
        scope: _Scope | None = self
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


class Kinds:
    """Types of all expressions of a function."""

    def __init__(self, names: Names, facts: Facts) -> None:
        self.names = names
        self.facts = facts
        self._types: dict[int, Type] = {}
        self._scopes: dict[int, _Scope] = {}
        self._heap = NOTHING
        self._changed = False
        self._final = False
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

    def result(self, function: Function) -> Type:
        """What such a function returns."""
        scope = self._scopes.get(id(function))
        if scope is None:
            return ANY
        return scope.returns | (of(type(None)) if _falls_through(function.body) else NOTHING)

    def is_empty(self, items: Type) -> bool:
        """Whether a container of such items has none."""
        return items == NOTHING

    def function_called(self, name: str) -> Function | None:
        """The function that a name means in the function, where it is one whose code is known."""
        return self._function(name, self._top)

    def variable(self, name: str) -> Type:
        """The type of a parameter or local of the function."""
        return self._top.vars.get(name, ANY)

    def _is_harmless(self, decorator: ast.expr) -> bool:
        node = decorator.func if isinstance(decorator, ast.Call) else decorator
        return self.names.stands_for(node) in (*_CACHES, "staticmethod", "classmethod")

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

    def _enter(self, function: Function, parent: _Scope | None) -> _Scope:
        """The scope of a function; made when it is first met."""
        found = self._scopes.get(id(function))
        if found is not None:
            return found
        scope = self._scopes[id(function)] = _Scope(parent, function)
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
        scope.fresh = self._fresh_names(function, bound - set(_parameters(function)))
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

    # Statements

    def _bind(self, target: ast.expr, value: Type, scope: _Scope) -> None:
        if isinstance(target, ast.Name):
            self._join(target.id, value, scope)
            if self._final:
                self._types[id(target)] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            for part in target.elts:
                if isinstance(part, ast.Starred):
                    self._bind(part.value, of(list, items=items_of(value)), scope)
                else:
                    self._bind(part, items_of(value), scope)
        elif isinstance(target, ast.Subscript):
            box = self._expr(target.value, scope)
            key = self._expr(target.slice, scope)
            if isinstance(target.slice, ast.Slice):
                value = items_of(value)
            self._store(target.value, box, key, value, scope)
        elif isinstance(target, ast.Attribute):
            self._expr(target.value, scope)
            self._leak(value)
        elif isinstance(target, ast.Starred):
            self._bind(target.value, of(list, items=items_of(value)), scope)

    def _join(self, name: str, value: Type, scope: _Scope) -> None:
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

    def _store(self, node: ast.expr, box: Type, key: Type, value: Type, scope: _Scope) -> None:
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

    def _join_parts(self, owner: _Scope, name: str, items: Type, values: Type | None) -> None:
        old = owner.vars[name]
        if old.anything or not old.names:
            return
        new = old | Type(old.names, of(list, items=items).items, values)
        if new != old:
            owner.vars[name] = new
            self._changed = True

    def _block(self, block: list[ast.stmt], scope: _Scope) -> None:
        for statement in block:
            self._statement(statement, scope)

    def _statement(self, node: ast.stmt, scope: _Scope) -> None:
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

    def _assign(self, target: ast.expr, source: ast.expr, value: Type, scope: _Scope) -> None:
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

    def _augmented(self, node: ast.AugAssign, scope: _Scope) -> None:
        value = self._expr(node.value, scope)
        old = self._read(node.target, scope)
        whole = isinstance(node.op, ast.Pow) and _is_natural(node.value)
        if old.may_be(CONTAINERS):
            added = items_of(value)
            self._store(node.target, old, added, added if not value.anything else ANY, scope)
        new = binary(node.op, old, value, whole)
        if old.names & {list, set, dict} and isinstance(node.op, (ast.Add, ast.BitOr)):
            new |= Type(
                old.names & {list, set, dict}, (old.items or NOTHING) | items_of(value), old.values
            )
        self._bind(node.target, new, scope)

    def _read(self, target: ast.expr, scope: _Scope) -> Type:
        if isinstance(target, ast.Name):
            return self._name(target.id, scope)
        if isinstance(target, ast.Subscript):
            return self._subscript(target, scope)
        return ANY

    def _define(self, node: Function, scope: _Scope) -> None:
        inner = self._enter(node, scope)
        self._join(node.name, of(types.FunctionType), scope)
        for d in node.decorator_list:
            self._expr(d, scope)
        if node.decorator_list and not all(self._is_harmless(d) for d in node.decorator_list):
            self._open(node)
        self._defaults(node, scope, inner)

    def _defaults(self, node: Function, scope: _Scope, inner: _Scope) -> None:
        a = node.args
        positional = [*a.posonlyargs, *a.args]
        for p, value in zip(positional[::-1], a.defaults[::-1], strict=False):
            self._join_parameter(inner, p.arg, self._expr(value, scope))
        for p, default in zip(a.kwonlyargs, a.kw_defaults, strict=True):
            if default is not None:
                self._join_parameter(inner, p.arg, self._expr(default, scope))

    def _join_parameter(self, inner: _Scope, name: str, value: Type) -> None:
        joined = inner.vars.get(name, NOTHING) | value
        if joined != inner.vars.get(name):
            inner.vars[name] = joined
            self._changed = True

    def _open(self, function: Function) -> None:
        """Anyone may call a function: nothing is known of its arguments."""
        scope = self._scopes.get(id(function))
        if scope is not None:
            for name in _parameters(function):
                self._join_parameter(scope, name, ANY)

    def _other(self, node: ast.stmt, scope: _Scope) -> None:
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

    def _loop(self, target: ast.expr, source: ast.expr, scope: _Scope, is_async: bool) -> None:
        """Bind a loop's target; of ``enumerate``, ``zip`` and ``items`` part by part."""
        value = self._expr(source, scope)
        if is_async:
            self._bind(target, ANY, scope)
            return
        parts: list[Type] | None = None
        if isinstance(source, ast.Call) and not any(
            isinstance(a, ast.Starred) for a in source.args
        ):
            what = self.names.stands_for(source.func)
            arguments = [self._expr(a, scope) for a in source.args]
            if what == "enumerate" and arguments:
                parts = [of(int), items_of(arguments[0])]
            elif what == "zip":
                parts = [items_of(a) for a in arguments]
            elif (
                isinstance(source.func, ast.Attribute)
                and source.func.attr == "items"
                and (box := self._expr(source.func.value, scope)).within(MAPPINGS)
            ):
                parts = [self._items(box), (box.values or NOTHING) | self._heap]
        if parts is not None and isinstance(target, ast.Tuple) and len(target.elts) == len(parts):
            for one, kind in zip(target.elts, parts, strict=True):
                self._bind(one, kind, scope)
        else:
            self._bind(target, self._items(value), scope)

    def _items(self, value: Type) -> Type:
        found = items_of(value)
        return found | self._heap if value.may_be(CONTAINERS) else found

    # Expressions

    def _expr(self, node: ast.expr, scope: _Scope) -> Type:
        found = self._infer(node, scope)
        if self._final:
            self._types[id(node)] = found
        return found

    def _infer(self, node: ast.expr, scope: _Scope) -> Type:
        if isinstance(node, ast.Constant):
            return ANY if node.value is Ellipsis else of(type(node.value))
        if isinstance(node, ast.Name):
            function = self._function(node.id, scope)
            if function is not None:
                self._open(function)
            return self._name(node.id, scope)
        if isinstance(node, (ast.List, ast.Set, ast.Tuple)):
            items = NOTHING
            for part in node.elts:
                if isinstance(part, ast.Starred):
                    items |= self._items(self._expr(part.value, scope))
                else:
                    items |= self._expr(part, scope)
            kind: type = {ast.List: list, ast.Set: set, ast.Tuple: tuple}[type(node)]
            starred = any(isinstance(e, ast.Starred) for e in node.elts)
            known = isinstance(node, ast.Tuple) and not starred
            return of(kind, items=items, arity=len(node.elts) if known else None)
        if isinstance(node, ast.Dict):
            return self._dict(node, scope)
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
            return self._comprehension(node, scope)
        if isinstance(node, ast.BinOp):
            left, right = self._expr(node.left, scope), self._expr(node.right, scope)
            return binary(node.op, left, right, _is_natural(node.right))
        if isinstance(node, ast.UnaryOp):
            return self._unary(node, scope)
        if isinstance(node, ast.BoolOp):
            found = NOTHING
            for part in node.values:
                found |= self._expr(part, scope)
            return found
        if isinstance(node, ast.Compare):
            return self._compare(node, scope)
        if isinstance(node, ast.IfExp):
            self._expr(node.test, scope)
            return self._expr(node.body, scope) | self._expr(node.orelse, scope)
        if isinstance(node, ast.NamedExpr):
            value = self._expr(node.value, scope)
            self._bind(node.target, value, scope)
            return value
        if isinstance(node, ast.Subscript):
            return self._subscript(node, scope)
        if isinstance(node, ast.Call):
            return self._call(node, scope)
        return self._rest(node, scope)

    def _rest(self, node: ast.expr, scope: _Scope) -> Type:
        if isinstance(node, ast.Lambda):
            inner = _Scope(scope)
            inner.vars = dict.fromkeys(
                (a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)), ANY
            )
            self._expr(node.body, inner)
            return of(types.FunctionType)
        children = [c for c in ast.iter_child_nodes(node) if isinstance(c, ast.expr)]
        for child in children:
            value = self._expr(child, scope)
            if isinstance(node, (ast.Yield, ast.YieldFrom, ast.Await)):
                self._leak(value)
                self._dirty(ANY)
        if isinstance(node, ast.JoinedStr):
            return of(str)
        if isinstance(node, ast.Attribute):
            return of(float) if self.names.stands_for(node) in _FLOATS else ANY
        return ANY

    def _name(self, name: str, scope: _Scope) -> Type:
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

    def _dict(self, node: ast.Dict, scope: _Scope) -> Type:
        keys = values = NOTHING
        for key, value in zip(node.keys, node.values, strict=True):
            found = self._expr(value, scope)
            if key is None:
                keys, values = ANY, ANY
            else:
                keys |= self._expr(key, scope)
                values |= found
        return of(dict, items=keys, values=values)

    def _comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, scope: _Scope
    ) -> Type:
        inner = self._scopes.get(id(node))
        if inner is None:
            inner = self._scopes[id(node)] = _Scope(scope)
            for generator in node.generators:
                for name in binds([generator.target]):
                    inner.vars[name] = NOTHING
        for generator in node.generators:
            self._loop(generator.target, generator.iter, inner, bool(generator.is_async))
            for condition in generator.ifs:
                self._expr(condition, inner)
        if isinstance(node, ast.DictComp):
            key, value = self._expr(node.key, inner), self._expr(node.value, inner)
            return of(dict, items=key, values=value)
        kind: type = {ast.ListComp: list, ast.SetComp: set}.get(type(node), types.GeneratorType)
        return of(kind, items=self._expr(node.elt, inner))

    def _unary(self, node: ast.UnaryOp, scope: _Scope) -> Type:
        value = self._expr(node.operand, scope)
        if isinstance(node.op, ast.Not):
            return _BOOL
        if not value.anything and value.names <= {int, bool, float}:
            return Type(frozenset(int if n is bool else n for n in value.names))
        return ANY

    def _compare(self, node: ast.Compare, scope: _Scope) -> Type:
        parts = [self._expr(node.left, scope), *(self._expr(c, scope) for c in node.comparators)]
        simple = all(isinstance(op, (ast.In, ast.NotIn, ast.Is, ast.IsNot)) for op in node.ops)
        if simple or all(not p.anything and p.names <= _COMPARED for p in parts):
            return _BOOL
        return ANY

    def _subscript(self, node: ast.Subscript, scope: _Scope) -> Type:
        box = self._expr(node.value, scope)
        self._expr(node.slice, scope)
        if box.anything:
            return ANY
        if isinstance(node.slice, ast.Slice):
            return Type(box.names, None if box.items is None else self._items(box), box.values)
        found = NOTHING
        for name in box.names:
            if name in MAPPINGS:
                found |= (box.values or NOTHING) | self._heap
                if name is not dict:
                    found |= of(int)
            elif name in (str, bytes, bytearray, range, list, tuple) or name in CONTAINERS:
                found |= self._items(Type(frozenset({name}), box.items))
            elif name not in _COMPARED:
                return ANY
        return found

    # Calls

    def _function(self, name: str, scope: _Scope) -> Function | None:
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

    def _call(self, node: ast.Call, scope: _Scope) -> Type:
        if isinstance(node.func, ast.Name):
            function = self._function(node.func.id, scope)
            if function is not None:
                return self._own_call(function, node, scope)
        arguments = [
            of(tuple, items=ANY) if isinstance(a, ast.Starred) else self._expr(a, scope)
            for a in node.args
        ]
        for a in node.args:
            if isinstance(a, ast.Starred):
                self._expr(a.value, scope)
        keywords = [self._expr(k.value, scope) for k in node.keywords]
        what = self.names.stands_for(node.func)
        if what is not None:
            return self._library(what, node, arguments, scope)
        if isinstance(node.func, ast.Attribute):
            return self._method(node, node.func, arguments, keywords, scope)
        self._expr(node.func, scope)
        for value in (*arguments, *keywords):
            self._leak(value)
        return ANY

    def _library(self, what: str, node: ast.Call, arguments: list[Type], scope: _Scope) -> Type:
        starred = any(isinstance(a, ast.Starred) for a in node.args)
        if what in ("heapq.heappush", "bisect.insort", "bisect.insort_left", "bisect.insort_right"):
            if len(node.args) == 2 and not starred:
                self._store(node.args[0], arguments[0], NOTHING, arguments[1], scope)
            else:
                self._dirty(ANY)
            return of(type(None))
        if what.startswith("heapq.heap") and len(arguments) > 1:
            self._dirty(arguments[1])
        if what == "collections.defaultdict":
            return self._defaultdict(node)
        if what in ("setattr", "delattr", "exec", "eval") or what.startswith("functools.reduce"):
            self._dirty(ANY)
        found = None if starred else call_type(what, arguments, bool(node.keywords))
        if what == "map" and len(arguments) > 1 and found is not None:
            function = self.names.stands_for(node.args[0])
            if function is not None:
                inner = call_type(function, [items_of(a) for a in arguments[1:]], False)
                if inner is not None:
                    return of(map, items=inner)
        if found is not None:
            if found.items is not None and self._heap != NOTHING and what != "range":
                found = Type(found.names, found.items | self._heap, found.values)
            return found
        if "." in what and what.split(".")[0] not in PURE_MODULES:
            for value in arguments:
                self._leak(value)
        return ANY

    def _defaultdict(self, node: ast.Call) -> Type:
        factory = self.names.stands_for(node.args[0]) if node.args else None
        made = {"int": of(int), "list": of(list, items=NOTHING), "set": of(set, items=NOTHING)}
        made |= {"str": of(str), "float": of(float), "bool": of(bool)}
        if len(node.args) == 1 and not node.keywords and factory in made:
            return of(defaultdict, items=NOTHING, values=made[factory])
        return of(defaultdict, items=ANY, values=ANY)

    def _method(
        self,
        node: ast.Call,
        func: ast.Attribute,
        arguments: list[Type],
        keywords: list[Type],
        scope: _Scope,
    ) -> Type:
        box = self._expr(func.value, scope)
        unknown = box.anything or not box.names <= CONTAINERS | _COMPARED
        if func.attr in MUTATORS:
            items, values = stored(func.attr, arguments)
            if unknown and func.attr not in (
                "append",
                "add",
                "insert",
                "appendleft",
                "pop",
                "sort",
            ):
                items = values = ANY
            if box.may_be(MAPPINGS):
                self._store(func.value, box, items, values, scope)
            elif items != NOTHING:
                self._store(func.value, box, items, items, scope)
        elif unknown:
            for value in (*arguments, *keywords):
                self._leak(value)
        if unknown or keywords:
            return ANY
        found = method_type(box, func.attr, arguments)
        gives = found.items is not None or func.attr in ("pop", "popleft", "get", "setdefault")
        if gives and box.may_be(CONTAINERS):
            found |= self._heap
            if found.items is not None:
                found = Type(found.names, found.items | self._heap, found.values)
        return found

    def _own_call(self, function: Function, node: ast.Call, scope: _Scope) -> Type:
        """A call of a function whose code is known: its parameters get what is passed."""
        known = id(function) in self._scopes
        inner = self._enter(function, scope.find(function.name))
        if not known and inner.parent is None:
            self._defaults(function, _Scope(None), inner)
        a = function.args
        positional = [p.arg for p in (*a.posonlyargs, *a.args)]
        values = [
            self._expr(x.value if isinstance(x, ast.Starred) else x, scope) for x in node.args
        ]
        named = {k.arg: self._expr(k.value, scope) for k in node.keywords}
        plain = not any(isinstance(x, ast.Starred) for x in node.args) and None not in named
        if plain and not a.vararg and not a.kwarg:
            for name, value in zip(positional, values, strict=False):
                self._join_parameter(inner, name, value)
            for keyword, value in named.items():
                if keyword in inner.vars:
                    self._join_parameter(inner, keyword, value)
        else:
            self._open(function)
        if not all(self._is_harmless(d) for d in function.decorator_list):
            self._dirty(ANY)
            return ANY
        if _is_generator(function) or isinstance(function, ast.AsyncFunctionDef):
            return of(types.GeneratorType, items=ANY)
        return self.result(function)


_COMPARED: frozenset[type] = frozenset().union(
    {int, bool, float, complex, str, bytes, bytearray, type(None), range},
    CONTAINERS - {types.GeneratorType},
)
_FLOATS = ("math.inf", "math.nan", "math.pi", "math.e", "math.tau")


def _parameters(function: Function) -> list[str]:
    a = function.args
    stars = [s.arg for s in (a.vararg, a.kwarg) if s]
    return [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs)] + stars


def _is_natural(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int) and node.value >= 0


def _is_generator(function: Function) -> bool:
    return any(isinstance(n, (ast.Yield, ast.YieldFrom)) for n in same_scope(function.body))


def _falls_through(block: list[ast.stmt]) -> bool:
    """Whether the end of a block may be reached."""
    last = block[-1]
    if isinstance(last, (ast.Return, ast.Raise)):
        return False
    if isinstance(last, ast.If) and last.orelse:
        return _falls_through(last.body) or _falls_through(last.orelse)
    return True


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
