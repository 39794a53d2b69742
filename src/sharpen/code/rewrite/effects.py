"""What code does besides giving a value: what it may change, and whether it can fail."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence

from sharpen.code.rewrite.calls import MUTATORS, PURE_MODULES
from sharpen.code.rewrite.kinds import Kinds, is_new
from sharpen.code.rewrite.names import Names, binds, same_scope
from sharpen.code.rewrite.source import Function
from sharpen.code.rewrite.types import CONTAINERS, HASHABLE, MAPPINGS, MUTABLE, Type

__all__ = ["Effects"]

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
_SLICED = frozenset({list, tuple, str, bytes})
_SIZED = frozenset({list, tuple, str, set, frozenset, bytes, range}) | MAPPINGS
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


def _integer(node: ast.expr) -> int | None:
    """The number that an expression writes."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        found = _integer(node.operand)
        return None if found is None else -found
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    return None


class Effects:
    """Answers on the code of one function."""

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
        names = self.names
        if name not in names.local or name in names.captured or name in names.arguments:
            return False
        for node in self.uses(name):
            parent = self._parents[node]
            if isinstance(node.ctx, ast.Store):
                if isinstance(parent, ast.AugAssign):
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
            if isinstance(node.ctx, ast.Del) or not self._is_only_read(node, parent):
                return False
        return True

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

    def is_total(self, node: ast.expr) -> bool:
        """Whether evaluating changes nothing and cannot fail, where its names are bound."""
        kinds = self.kinds
        if isinstance(node, ast.Constant):
            return True
        if isinstance(node, ast.Name):
            return True
        if isinstance(node, ast.Tuple):
            return all(self.is_total(e) for e in node.elts)
        if isinstance(node, ast.Subscript):
            if isinstance(node.slice, ast.Slice):
                return self._is_total_slice(node)
            arity = kinds.of(node.value).arity if kinds.of(node.value).only(tuple) else None
            if arity is not None and (at := _integer(node.slice)) is not None:
                return -arity <= at < arity and self.is_total(node.value)
            return (
                isinstance(node.value, ast.Name)
                and isinstance(node.slice, ast.Name)
                and self.is_index(node.slice.id, node.value.id, node)
            )
        if isinstance(node, ast.UnaryOp):
            known = kinds.of(node.operand).is_number or (
                isinstance(node.op, ast.Not) and self._is_known(kinds.of(node.operand))
            )
            whole = not isinstance(node.op, ast.Invert) or kinds.of(node.operand).is_integer
            return known and whole and self.is_total(node.operand)
        if isinstance(node, ast.BinOp):
            return self._is_total_binary(node)
        if isinstance(node, ast.BoolOp):
            return all(self._is_known(kinds.of(v)) and self.is_total(v) for v in node.values)
        if isinstance(node, ast.IfExp):
            return self._is_known(kinds.of(node.test)) and all(
                self.is_total(v) for v in (node.test, node.body, node.orelse)
            )
        if isinstance(node, ast.Compare):
            return self._is_total_compare(node)
        if isinstance(node, ast.Call):
            return not node.keywords and self._is_total_call(node)
        return False

    def _is_total_slice(self, node: ast.Subscript) -> bool:
        part = node.slice
        assert isinstance(part, ast.Slice)
        bounds = [b for b in (part.lower, part.upper) if b is not None]
        step = part.step is None or _integer(part.step) not in (None, 0)
        return (
            step
            and self.kinds.of(node.value).within(_SLICED)
            and self.is_total(node.value)
            and all(self.kinds.of(b).is_integer and self.is_total(b) for b in bounds)
        )

    def _is_total_call(self, node: ast.Call) -> bool:
        kinds = self.kinds
        types = [kinds.of(a) for a in node.args]
        if not all(self.is_total(a) for a in node.args):
            return False
        if isinstance(node.func, ast.Attribute) and self.names.stands_for(node.func) is None:
            return self._is_total_method(node.func, types)
        what = self.names.stands_for(node.func)
        if what in ("min", "max") and len(node.args) > 1:
            return all(t.is_integer for t in types)
        if what == "range":
            return 0 < len(types) < 3 and all(t.is_integer for t in types)
        if len(types) != 1:
            return False
        one, items = types[0], kinds.items(node.args[0])
        if what == "len":
            return one.within(_SIZED)
        if what == "abs":
            return one.is_number
        if what == "bool":
            return self._is_known(one)
        if what in ("list", "tuple", "enumerate"):
            return one.within(_SIZED)
        if what in ("set", "frozenset", "collections.Counter"):
            return one.within(_SIZED) and (items.is_hashable or kinds.is_empty(items))
        if what == "sum":
            return one.within(_SIZED) and items.is_integer
        if what == "sorted":
            return one.within(_SIZED) and (items.is_integer or items.only(str))
        return what in ("any", "all") and one.within(_SIZED) and items.is_plain

    def _is_total_method(self, func: ast.Attribute, types: list[Type]) -> bool:
        box = self.kinds.of(func.value)
        if not self.is_total(func.value):
            return False
        if box.only(str):
            if func.attr in ("lower", "upper", "strip", "split", "isdigit", "isalpha", "title"):
                return not types
            if func.attr in ("startswith", "endswith", "count", "find"):
                return len(types) == 1 and types[0].only(str)
            return func.attr == "replace" and len(types) == 2 and all(t.only(str) for t in types)
        if box.within(MAPPINGS):
            if func.attr in ("keys", "values", "items"):
                return not types
            return func.attr == "get" and bool(types) and types[0].is_hashable
        if func.attr == "count" and len(types) == 1 and box.only(list, tuple):
            return types[0].is_plain and self.kinds.items(func.value).is_plain
        return False

    def _is_total_binary(self, node: ast.BinOp) -> bool:
        if not (self.is_total(node.left) and self.is_total(node.right)):
            return False
        left, right = self.kinds.of(node.left), self.kinds.of(node.right)
        if left.is_integer and right.is_integer:
            if isinstance(node.op, (ast.FloorDiv, ast.Mod)):
                return isinstance(node.right, ast.Constant) and bool(node.right.value)
            return isinstance(
                node.op, (ast.Add, ast.Sub, ast.Mult, ast.BitAnd, ast.BitOr, ast.BitXor)
            )
        if left.only(float) and right.only(float):
            return isinstance(node.op, (ast.Add, ast.Sub, ast.Mult))
        if isinstance(node.op, ast.Add):
            return any(left.only(t) and right.only(t) for t in (str, bytes, tuple, list))
        return False

    def _is_total_compare(self, node: ast.Compare) -> bool:
        parts: Sequence[ast.expr] = [node.left, *node.comparators]
        if not all(self.is_total(p) for p in parts):
            return False
        kinds = [self.kinds.of(p) for p in parts]
        for i, op in enumerate(node.ops):
            one, other = kinds[i], kinds[i + 1]
            if isinstance(op, (ast.Is, ast.IsNot)):
                continue
            if isinstance(op, (ast.Eq, ast.NotEq)):
                if not (one.is_plain and other.is_plain):
                    return False
            elif isinstance(op, (ast.In, ast.NotIn)) or not (
                (one.is_number and other.is_number) or (one.only(str) and other.only(str))
            ):
                return False
        return True

    # Indexes

    def is_length(self, node: ast.expr, name: str) -> bool:
        """Whether an expression is ``len`` of a local where it stands, or a name bound to it."""
        if isinstance(node, ast.Call):
            return (
                self.names.stands_for(node.func) == "len"
                and len(node.args) == 1
                and isinstance(node.args[0], ast.Name)
                and node.args[0].id == name
            )
        if not isinstance(node, ast.Name) or not self.is_steady(node.id):
            return False
        child: ast.AST = node
        while child is not self.names.function:
            above = self._parents.get(child)
            if above is None:
                return False
            for field in ("body", "orelse", "finalbody"):
                block = getattr(above, field, None)
                if isinstance(block, list) and child in block:
                    found = self._bound_to_length(block, block.index(child), node.id, name)
                    if found is not None:
                        return found
            child = above
        return False

    def _bound_to_length(
        self, block: list[ast.stmt], at: int, length: str, name: str
    ) -> bool | None:
        for i in range(at - 1, -1, -1):
            statement = block[i]
            if length in binds([statement]):
                return (
                    isinstance(statement, ast.Assign)
                    and len(statement.targets) == 1
                    and isinstance(statement.targets[0], ast.Name)
                    and isinstance(statement.value, ast.Call)
                    and self.is_length(statement.value, name)
                    and length not in binds(block[i + 1 :])
                    and self.keeps(block[i + 1 :], name)
                )
        return None

    def is_index(self, index: str, name: str, node: ast.AST) -> bool:
        """Whether a variable is an index of a sequence at a node, from 0 to its length - 1.

        That is: the loop (or comprehension) around that binds it runs over a range of them, and
        changes neither.
        """
        if not self.kinds.variable(name).within(frozenset({list, tuple, str, bytes})):
            return False
        child, at = node, self._parents.get(node)
        while at is not None:
            if isinstance(at, ast.For) and child in at.body and index in binds([at.target]):
                return (
                    index not in binds(at.body)
                    and self.is_steady(index)
                    and self.keeps(at.body, name)
                    and self._runs_over_indexes(at.target, at.iter, index, name)
                )
            if isinstance(at, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
                for g in at.generators:
                    if index in binds([g.target]) and child is not at.generators[0]:
                        return self._runs_over_indexes(
                            g.target, g.iter, index, name
                        ) and self.keeps([at], name)
            child, at = at, self._parents.get(at)
        return False

    def _runs_over_indexes(self, target: ast.expr, source: ast.expr, index: str, name: str) -> bool:
        if not isinstance(source, ast.Call) or source.keywords or not source.args:
            return False
        what = self.names.stands_for(source.func)
        if what == "enumerate":
            return (
                len(source.args) == 1
                and isinstance(source.args[0], ast.Name)
                and source.args[0].id == name
                and isinstance(target, ast.Tuple)
                and len(target.elts) == 2
                and isinstance(target.elts[0], ast.Name)
                and target.elts[0].id == index
                and index not in binds([target.elts[1]])
            )
        if what != "range" or not isinstance(target, ast.Name):
            return False
        if len(source.args) == 1:
            return self._is_at_most_length(source.args[0], name)
        if len(source.args) == 2:
            return self._is_natural(source.args[0], name) and self._is_at_most_length(
                source.args[1], name
            )
        start, stop, step = source.args
        if isinstance(step, ast.UnaryOp) and isinstance(step.op, ast.USub):
            below = isinstance(stop, ast.UnaryOp) and ast.unparse(stop) == "-1"
            return (
                ast.unparse(step) == "-1"
                and (below or self._is_natural(stop, name))
                and isinstance(start, ast.BinOp)
                and isinstance(start.op, ast.Sub)
                and isinstance(start.right, ast.Constant)
                and isinstance(start.right.value, int)
                and start.right.value >= 1
                and self.is_length(start.left, name)
            )
        return (
            self._is_natural(start, name)
            and self._is_at_most_length(stop, name)
            and isinstance(step, ast.Constant)
            and isinstance(step.value, int)
            and step.value > 0
        )

    def _is_at_most_length(self, node: ast.expr, name: str) -> bool:
        if (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.Sub)
            and isinstance(node.right, ast.Constant)
            and isinstance(node.right.value, int)
            and node.right.value >= 0
        ):
            node = node.left
        return self.is_length(node, name) or (
            isinstance(node, ast.Name) and self.is_index(node.id, name, node)
        )

    def _is_natural(self, node: ast.expr, name: str) -> bool:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._is_natural(node.left, name) and self._is_natural(node.right, name)
        if isinstance(node, ast.Constant):
            return isinstance(node.value, int) and node.value >= 0
        return isinstance(node, ast.Name) and self.is_index(node.id, name, node)
