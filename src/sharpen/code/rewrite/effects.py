"""Whether code can fail, and what is an index; see ``changes.py`` for what it changes."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from sharpen.code.rewrite.changes import Changes
from sharpen.code.rewrite.names import binds
from sharpen.code.rewrite.types import MAPPINGS, Type

__all__ = ["Effects"]

_SLICED = frozenset({list, tuple, str, bytes})
_SIZED = frozenset({list, tuple, str, set, frozenset, bytes, range}) | MAPPINGS


def _integer(node: ast.expr) -> int | None:
    """The number that an expression writes."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        found = _integer(node.operand)
        return None if found is None else -found
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    return None


class Effects(Changes):
    """Answers on the code of one function."""

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
