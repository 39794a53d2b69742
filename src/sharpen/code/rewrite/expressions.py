"""Types of expressions, and what evaluating them stores."""

from __future__ import annotations

import ast
import types
from collections import defaultdict

from sharpen.code.rewrite.calls import MUTATORS, PURE_MODULES, call_type, method_type, stored
from sharpen.code.rewrite.names import binds, same_scope
from sharpen.code.rewrite.scopes import Scope, Scopes
from sharpen.code.rewrite.source import Function
from sharpen.code.rewrite.types import (
    ANY,
    CONTAINERS,
    MAPPINGS,
    NOTHING,
    Type,
    binary,
    items_of,
    of,
)

__all__ = ["Expressions", "is_natural"]

_BOOL = of(bool)
_CACHES = ("functools.cache", "functools.lru_cache")
_COMPARED: frozenset[type] = frozenset().union(
    {int, bool, float, complex, str, bytes, bytearray, type(None), range},
    CONTAINERS - {types.GeneratorType},
)
_FLOATS = ("math.inf", "math.nan", "math.pi", "math.e", "math.tau")


class Expressions(Scopes):
    """Reads expressions; what they store goes into the scopes."""

    def _bind(self, target: ast.expr, value: Type, scope: Scope) -> None:
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

    def _loop(self, target: ast.expr, source: ast.expr, scope: Scope, is_async: bool) -> None:
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

    def _expr(self, node: ast.expr, scope: Scope) -> Type:
        found = self._infer(node, scope)
        if self._final:
            self._types[id(node)] = found
        return found

    def _infer(self, node: ast.expr, scope: Scope) -> Type:
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
            return binary(node.op, left, right, is_natural(node.right))
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

    def _rest(self, node: ast.expr, scope: Scope) -> Type:
        if isinstance(node, ast.Lambda):
            inner = Scope(scope)
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

    def _dict(self, node: ast.Dict, scope: Scope) -> Type:
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
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, scope: Scope
    ) -> Type:
        inner = self._scopes.get(id(node))
        if inner is None:
            inner = self._scopes[id(node)] = Scope(scope)
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

    def _unary(self, node: ast.UnaryOp, scope: Scope) -> Type:
        value = self._expr(node.operand, scope)
        if isinstance(node.op, ast.Not):
            return _BOOL
        if not value.anything and value.names <= {int, bool, float}:
            return Type(frozenset(int if n is bool else n for n in value.names))
        return ANY

    def _compare(self, node: ast.Compare, scope: Scope) -> Type:
        parts = [self._expr(node.left, scope), *(self._expr(c, scope) for c in node.comparators)]
        simple = all(isinstance(op, (ast.In, ast.NotIn, ast.Is, ast.IsNot)) for op in node.ops)
        if simple or all(not p.anything and p.names <= _COMPARED for p in parts):
            return _BOOL
        return ANY

    def _subscript(self, node: ast.Subscript, scope: Scope) -> Type:
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

    def _call(self, node: ast.Call, scope: Scope) -> Type:
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

    def _library(self, what: str, node: ast.Call, arguments: list[Type], scope: Scope) -> Type:
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
        arguments = [self._with_heap(a) for a in arguments]
        if what == "itertools.accumulate" and not starred and arguments:
            return of(types.GeneratorType, items=self._accumulated(node, items_of(arguments[0])))
        if what in ("min", "max") and len(arguments) == 1 and not starred and node.keywords:
            extreme = items_of(arguments[0])
            for keyword in node.keywords:
                if keyword.arg != "key":
                    extreme |= self._expr(keyword.value, scope)
            return extreme
        found = None if starred else call_type(what, arguments, bool(node.keywords))
        if what == "map" and len(arguments) > 1 and found is not None:
            function = self.names.stands_for(node.args[0])
            if function is not None:
                inner = call_type(function, [items_of(a) for a in arguments[1:]], False)
                if inner is not None:
                    return of(map, items=inner)
        if found is not None:
            return found if what == "range" else self._with_heap(found)
        if "." in what and what.split(".")[0] not in PURE_MODULES:
            for value in arguments:
                self._leak(value)
        return ANY

    def _with_heap(self, box: Type) -> Type:
        """A container that may hold what was put where nobody knows."""
        if box.items is None or self._heap == NOTHING:
            return box
        return Type(box.names, box.items | self._heap, box.values, box.anything, box.arity)

    def _accumulated(self, node: ast.Call, items: Type) -> Type:
        """Items of ``accumulate``: sums of whole numbers, or running extremes."""
        function = self.names.stands_for(node.args[1]) if len(node.args) == 2 else None
        if function in ("min", "max") and not node.keywords:
            return items
        plain = all(isinstance(k.value, ast.Constant) for k in node.keywords)
        whole = plain and all(type(k.value.value) is int for k in node.keywords)  # type: ignore[attr-defined]
        return items | of(int) if len(node.args) == 1 and whole and items.is_integer else ANY

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
        scope: Scope,
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

    def _own_call(self, function: Function, node: ast.Call, scope: Scope) -> Type:
        """A call of a function whose code is known: its parameters get what is passed."""
        known = id(function) in self._scopes
        inner = self._enter(function, scope.find(function.name))
        if not known and inner.parent is None:
            self._defaults(function, Scope(None), inner)
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

    def _defaults(self, node: Function, scope: Scope, inner: Scope) -> None:
        a = node.args
        positional = [*a.posonlyargs, *a.args]
        for p, value in zip(positional[::-1], a.defaults[::-1], strict=False):
            self._join_parameter(inner, p.arg, self._expr(value, scope))
        for p, default in zip(a.kwonlyargs, a.kw_defaults, strict=True):
            if default is not None:
                self._join_parameter(inner, p.arg, self._expr(default, scope))

    def _is_harmless(self, decorator: ast.expr) -> bool:
        node = decorator.func if isinstance(decorator, ast.Call) else decorator
        return self.names.stands_for(node) in (*_CACHES, "staticmethod", "classmethod")

    def result(self, function: Function) -> Type:
        """What such a function returns."""
        scope = self._scopes.get(id(function))
        if scope is None:
            return ANY
        return scope.returns | (of(type(None)) if _falls_through(function.body) else NOTHING)


def is_natural(node: ast.expr) -> bool:
    """Whether an expression is a whole number that is written out, and not negative."""
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
