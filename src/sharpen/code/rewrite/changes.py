"""What code does besides giving a value: what it may change, and whether it can fail."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from sharpen.code.rewrite.calls import MUTATORS, PURE_MODULES
from sharpen.code.rewrite.kinds import Kinds
from sharpen.code.rewrite.names import Names, binds, bound_here, same_scope
from sharpen.code.rewrite.scopes import is_new
from sharpen.code.rewrite.source import Function
from sharpen.code.rewrite.types import CONTAINERS, HASHABLE, MUTABLE, Type

__all__ = ["Changes"]

_HARMLESS = frozenset(
    {"len", "range", "sum", "min", "max", "abs", "sorted", "enumerate", "zip", "any", "all", "ord"}
    | {"chr", "int", "float", "str", "bool", "list", "tuple", "set", "frozenset", "dict", "round"}
    | {"reversed", "isinstance", "divmod", "pow", "repr", "bin", "hex", "oct", "hash", "id"}
    | {"print", "bytes", "bytearray", "format", "slice", "complex", "type", "callable", "iter"}
    | {"ValueError", "TypeError", "KeyError", "IndexError", "RuntimeError", "Exception", "object"}
)
_TAKE_FUNCTIONS = frozenset({"map", "filter", "sorted", "min", "max"})
_CHANGE_FIRST = frozenset(
    {"heapq.heappush", "heapq.heappop", "heapq.heapify", "heapq.heapreplace", "heapq.heappushpop"}
    | {"bisect.insort", "bisect.insort_left", "bisect.insort_right", "random.shuffle", "next"}
)
_READERS = frozenset(
    {"len", "sum", "min", "max", "sorted", "enumerate", "zip", "any", "all", "list", "tuple"}
    | {"set", "frozenset", "dict", "reversed", "str", "repr", "print", "range", "bool"}
    | {"heapq.heappush", "heapq.heappop", "heapq.heapify", "bisect.bisect_left"}
    | {"bisect.bisect_right", "bisect.insort", "bisect.bisect", "collections.Counter"}
)
_FIXED = HASHABLE | {range, frozenset, tuple}


def _mutable(kind: Type) -> set[type]:
    """Classes of what can be changed in values of a type, at any depth; object for anything."""
    if kind.anything:
        return {object}
    found = set(kind.names & MUTABLE)
    for part in (kind.items, kind.values):
        if part is not None:
            found |= _mutable(part)
    if kind.names - MUTABLE - _FIXED:
        found.add(object)
    return found


class Changes:
    """What the code of one function changes."""

    def __init__(self, names: Names, kinds: Kinds) -> None:
        self.names = names
        self.kinds = kinds
        self._parents: dict[ast.AST, ast.AST] = {
            child: node for node in ast.walk(names.function) for child in ast.iter_child_nodes(node)
        }
        self._private: dict[str, bool] = {}
        self._pure: dict[int, bool] = {}
        self._kept: dict[tuple[tuple[int, ...], str], bool] = {}
        self._uses: dict[str, list[ast.Name]] = {}
        for node in same_scope(names.function.body):
            if isinstance(node, ast.Name):
                self._uses.setdefault(node.id, []).append(node)
        self._bound_otherwise = {
            name
            for node in same_scope(names.function.body)
            if not isinstance(node, ast.Name)
            for name in bound_here(node)
        }
        self._rebound_inside = {
            name
            for node in ast.walk(names.function)
            if isinstance(node, ast.Nonlocal)
            for name in node.names
        }

    def uses(self, name: str) -> list[ast.Name]:
        """Where a name stands in the function, functions inside left out."""
        return self._uses.get(name, [])

    def parent(self, node: ast.AST) -> ast.AST | None:
        """What a node stands in."""
        return self._parents.get(node)

    def is_private(self, name: str) -> bool:
        """Whether a local only holds containers made in the function that no other name holds.

        Returning it is allowed: nothing happens afterwards.
        """
        if name not in self._private:
            self._private[name] = self._find_private(name)
        return self._private[name]

    def _find_private(self, name: str) -> bool:
        if name in self.names.captured or not self._is_made_here(name):
            return False
        return not any(
            isinstance(node.ctx, ast.Del) or not self._is_only_read(node, self._parents[node])
            for node in self.uses(name)
            if not isinstance(node.ctx, ast.Store)
        )

    def _is_made_here(self, name: str) -> bool:
        """Whether a local only ever holds containers that the function itself made."""
        if not self.is_steady(name) or name in self._bound_otherwise | set(self.names.arguments):
            return False
        for node in self.uses(name):
            parent = self._parents[node]
            if not isinstance(node.ctx, ast.Store) or isinstance(parent, ast.AugAssign):
                continue
            if isinstance(parent, ast.Assign) and len(parent.targets) == 1:
                if parent.targets[0] is node and self.is_new(parent.value):
                    continue
            elif (
                isinstance(parent, ast.AnnAssign)
                and parent.value is not None
                and self.is_new(parent.value)
            ):
                continue
            return False
        return True

    def _is_given(self, name: str, kind: Type) -> bool:
        """Whether a local holds what the caller gave, in which nothing else can be changed."""
        inner = [part for part in (kind.items, kind.values) if part is not None]
        return (
            name in self.names.arguments
            and name not in self._bound_otherwise
            and not any(isinstance(node.ctx, ast.Store) for node in self.uses(name))
            and not any(_mutable(part) for part in inner)
        )

    def _is_in_try(self, node: ast.AST) -> bool:
        """Whether more may be done in the function after a return."""
        at = self._parents.get(node)
        while at is not None and at is not self.names.function:
            if isinstance(at, (ast.Try, ast.With)):
                return True
            at = self._parents.get(at)
        return False

    def is_new(self, node: ast.expr) -> bool:
        """Whether an expression makes a container that nobody else holds."""
        if is_new(node, self.names):
            return True
        kind = self.kinds.of(node)
        if isinstance(node, ast.BinOp):
            return kind.only(list, set)
        return (
            isinstance(node, ast.Subscript)
            and isinstance(node.slice, ast.Slice)
            and self.kinds.of(node.value).only(list)
        )

    def _is_only_read(self, node: ast.Name, parent: ast.AST) -> bool:
        """Whether a use of a name gives its object to nobody who could keep it."""
        if isinstance(parent, ast.Attribute):
            call = self._parents[parent]
            return isinstance(call, ast.Call) and call.func is parent and parent.attr != "copy"
        if isinstance(parent, ast.Subscript):
            return parent.value is node
        if isinstance(parent, ast.Call):
            what = self.names.stands_for(parent.func)
            joined = (
                isinstance(parent.func, ast.Attribute)
                and parent.func.attr == "join"
                and self.kinds.of(parent.func.value).only(str)
            )
            return node in parent.args and (joined or what in _READERS)
        if isinstance(parent, ast.Starred):
            return True
        if isinstance(parent, (ast.For, ast.comprehension)):
            return parent.iter is node
        if isinstance(parent, ast.Return):
            return not self._is_in_try(parent)
        if isinstance(parent, ast.Compare):
            return True
        if isinstance(parent, ast.BinOp):
            return self.kinds.variable(node.id).within(frozenset({list, set, str, tuple}))
        if isinstance(parent, ast.UnaryOp):
            return isinstance(parent.op, ast.Not)
        if isinstance(parent, ast.BoolOp):
            return isinstance(self._parents[parent], (ast.If, ast.While))
        if isinstance(parent, ast.AugAssign):
            return True
        return isinstance(parent, (ast.If, ast.While, ast.FormattedValue, ast.Delete))

    def keeps(self, region: Iterable[ast.AST], name: str) -> bool:
        """Whether code neither rebinds a local nor changes the object that it holds."""
        region = list(region)
        key = (tuple(id(node) for node in region), name)
        if key not in self._kept:
            self._kept[key] = self._keeps(region, name)
        return self._kept[key]

    def _keeps(self, region: list[ast.AST], name: str) -> bool:
        if name in binds(region) or not self.is_steady(name):
            return False
        kind = self.kinds.variable(name)
        if kind.within(_FIXED) and not _mutable(kind):
            return True
        inner = [part for part in (kind.items, kind.values) if part is not None]
        private = self.is_private(name) and not any(_mutable(part) for part in inner)
        return not any(
            self._may_change(node, name, kind, private) for top in region for node in ast.walk(top)
        )

    def is_steady(self, name: str) -> bool:
        """Whether only the function itself rebinds a local of its own."""
        if name not in self.names.local:
            return False
        return name not in self._rebound_inside

    def _may_change(self, node: ast.AST, name: str, kind: Type, private: bool) -> bool:
        if isinstance(node, (ast.Subscript, ast.Attribute)) and not isinstance(node.ctx, ast.Load):
            return isinstance(node, ast.Subscript) and self._is_touched(
                node.value, name, kind, private
            )
        if isinstance(node, ast.AugAssign):
            return self._is_touched(node.target, name, kind, private)
        if isinstance(node, (ast.Yield, ast.YieldFrom, ast.Await, ast.With, ast.AsyncWith)):
            return not private
        if not isinstance(node, ast.Call):
            return False
        what = self.names.stands_for(node.func)
        if what in _CHANGE_FIRST:
            return not node.args or self._is_touched(node.args[0], name, kind, private)
        if isinstance(node.func, ast.Attribute) and what is None:
            if node.func.attr in MUTATORS:
                return self._is_touched(node.func.value, name, kind, private)
            if self._is_known(self.kinds.of(node.func.value)):
                return False
        return not private and not self.is_pure_call(node)

    def _is_touched(self, node: ast.expr, name: str, kind: Type, private: bool) -> bool:
        """Whether changing the value of an expression may change the object of a name."""
        if isinstance(node, ast.Name):
            if node.id == name:
                return True
            if private or self.is_private(node.id):
                return False
            if self._is_made_here(node.id) and self._is_given(name, kind):
                return False
        elif private:
            return False  # nothing else leads to it
        other = self.kinds.of(node)
        if other.anything or kind.anything:
            return True
        return bool(_mutable(kind) & (other.names | {object}))

    @staticmethod
    def _is_known(kind: Type) -> bool:
        return kind.within(HASHABLE | CONTAINERS | {range, bytearray})

    def changes_first(self, node: ast.Call) -> bool:
        """Whether a function of a library changes its first argument."""
        return self.names.stands_for(node.func) in _CHANGE_FIRST

    def is_pure_call(self, node: ast.Call) -> bool:
        """Whether a call changes nothing that was there before it, and prints nothing."""
        what = self.names.stands_for(node.func)
        if what is not None:
            if what in _CHANGE_FIRST:
                return False
            functions = [k.value for k in node.keywords if k.arg == "key"]
            if what in ("map", "filter"):
                functions += node.args[:1]
            if not all(self._is_pure_function_value(f) for f in functions):
                return False
            if what == "print":
                return True
            return what in _HARMLESS | _TAKE_FUNCTIONS or what.split(".")[0] in PURE_MODULES - {
                "functools",
                "random",
                "time",
                "datetime",
            }
        if isinstance(node.func, ast.Attribute):
            return node.func.attr not in MUTATORS and self._is_known(self.kinds.of(node.func.value))
        if isinstance(node.func, ast.Name):
            function = self.kinds.function_called(node.func.id)
            return function is not None and self.is_pure(function)
        return False

    def _is_pure_function_value(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Constant):
            return node.value is None
        if isinstance(node, ast.Lambda):
            return all(self.is_pure_call(n) for n in ast.walk(node.body) if isinstance(n, ast.Call))
        what = self.names.stands_for(node)
        return what in _HARMLESS

    def is_pure(self, function: Function) -> bool:
        """Whether a call of a function changes nothing that was there before, and prints nothing.

        Its result may still differ from call to call where it reads what changes.
        """
        if id(function) not in self._pure:
            self._pure[id(function)] = True  # of itself, while it is looked at
            self._pure[id(function)] = self._find_pure(function)
        return self._pure[id(function)]

    def _find_pure(self, function: Function) -> bool:
        if isinstance(function, ast.AsyncFunctionDef) or function.decorator_list:
            return False
        own = {
            t.id
            for n in same_scope(function.body)
            if isinstance(n, ast.Assign) and is_new(n.value, self.names)
            for t in n.targets
            if isinstance(t, ast.Name)
        }
        held = {
            n.id
            for n in same_scope(function.body)
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            if not (
                isinstance(p := self._parents.get(n), ast.Assign) and is_new(p.value, self.names)
            )
            and not isinstance(p, ast.AugAssign)
        }
        own -= held
        for node in ast.walk(function):
            if isinstance(node, (ast.Global, ast.Nonlocal, ast.Yield, ast.YieldFrom, ast.Await)):
                return False
            if isinstance(node, (ast.With, ast.Import, ast.ImportFrom, ast.ClassDef, ast.Delete)):
                return False
            target: ast.expr | None = None
            if isinstance(node, (ast.Subscript, ast.Attribute)) and not isinstance(
                node.ctx, ast.Load
            ):
                target = node.value
            elif isinstance(node, ast.AugAssign) and not self.kinds.of(node.target).within(_FIXED):
                target = node.target
            elif isinstance(node, ast.Call):
                if isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
                    target = node.func.value
                elif self.names.stands_for(node.func) in _CHANGE_FIRST:
                    target = node.args[0] if node.args else node
                elif self.names.stands_for(node.func) == "print" or not self.is_pure_call(node):
                    return False
            if target is not None and not (isinstance(target, ast.Name) and target.id in own):
                return False
        return True

    def may_recurse(self, node: ast.AST) -> bool:
        """Whether a piece of code may call the function again.

        A comprehension then takes more of the interpreter's stack than a loop.
        """
        for n in ast.walk(node):
            if not isinstance(n, ast.Call) or self.names.stands_for(n.func) is not None:
                continue
            method = isinstance(n.func, ast.Attribute)
            if not (method and self._is_known(self.kinds.of(n.func.value))):  # type: ignore[attr-defined]
                return True
        return False

    def is_pure_expression(self, node: ast.AST) -> bool:
        """Whether evaluating changes nothing; it may fail."""
        for n in ast.walk(node):
            if isinstance(n, (ast.Yield, ast.YieldFrom, ast.Await, ast.NamedExpr)):
                return False
            if isinstance(n, ast.Call) and (
                not self.is_pure_call(n) or self.names.stands_for(n.func) == "print"
            ):
                return False
            if isinstance(n, ast.comprehension) and not self._is_known(self.kinds.of(n.iter)):
                return False
        return True
