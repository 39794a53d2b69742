"""Loops over numbers, compiled to machine code by numba.

S. K. Lam, A. Pitrou, S. Seibert, Numba: a LLVM-based Python JIT compiler, LLVM-HPC 2015. The body
of the function is copied into a kernel on arrays; ``fastmath`` stays off, so that floats are added
in the same order with the same rounding; indexes are checked. The kernel
only runs on arguments of exactly the classes seen, and of whole numbers within bounds for which no
number in the kernel can leave 64 bits (see ``bounds.py``); all others take the code as it was.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.bounds import fits
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import same_scope
from sharpen.code.rewrite.source import Edit
from sharpen.code.rewrite.types import Type

__all__ = ["COMPILED"]

_LARGEST = 2**26
_LONGEST = 2**17
_CALLS = frozenset({"range", "len", "abs", "min", "max", "enumerate", "zip"})
_STATEMENTS = (
    ast.Assign,
    ast.AnnAssign,
    ast.AugAssign,
    ast.For,
    ast.While,
    ast.If,
    ast.Return,
    ast.Break,
    ast.Continue,
    ast.Pass,
    ast.Expr,
)
_EXPRESSIONS = (
    ast.Name,
    ast.Constant,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.Subscript,
    ast.Call,
    ast.Tuple,
    ast.List,
    ast.IfExp,
    ast.Attribute,
)
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod, ast.BitAnd, ast.BitOr, ast.BitXor)


def _scalar(kind: Type) -> type | None:
    """The one class of numbers that a type has."""
    for one in (int, float, bool):
        if kind.only(one):
            return one
    return None


def _form(code: Code, name: str) -> tuple[str, type] | None:
    """What a parameter is: a number, a list, a list of lists, or bytes; and of which numbers."""
    kind = code.kinds.variable(name)
    if kind.only(bytes):
        return "bytes", int
    scalar = _scalar(kind)
    if scalar in (int, float):
        return "number", scalar
    if not kind.only(list):
        return None
    items = code.kinds.items_of(name)
    scalar = _scalar(items)
    if scalar in (int, float):
        return "list", scalar
    if items.only(list) and items.items is not None:
        scalar = _scalar(items.items)
        if scalar in (int, float):
            return "table", scalar
    return None


def _find(code: Code) -> Iterator[Change]:
    function = code.function
    a = function.args
    if (
        not isinstance(function, ast.FunctionDef)
        or "." in code.source.entry
        or function.decorator_list
        or a.vararg
        or a.kwarg
        or a.kwonlyargs
        or code.names.captured
    ):
        return
    names = code.names.arguments
    forms = {name: _form(code, name) for name in names}
    if not names or None in forms.values() or not _loops(code):
        return
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not all(_is_simple(code, node) for node in same_scope(body)):
        return
    if not _returns(code, body):
        return
    items = {n: 255 if f[0] == "bytes" else _LARGEST for n, f in forms.items() if f}
    sequences = {n: f[0] for n, f in forms.items() if f and f[0] != "number"}
    lengths = {n: 2**30 if form == "bytes" else _LONGEST for n, form in sequences.items()}
    if not fits(code, items, lengths):
        return
    change = _write(code, body, {n: f for n, f in forms.items() if f is not None})
    if change is not None:
        yield change


def _loops(code: Code) -> bool:
    return any(isinstance(s, (ast.For, ast.While)) for s in code.statements())


def _is_simple(code: Code, node: ast.AST) -> bool:
    """Whether numba does the same with a node as Python."""
    if isinstance(node, ast.stmt):
        return _is_simple_statement(code, node)
    if not isinstance(node, ast.expr):
        return not isinstance(node, (ast.comprehension, ast.ExceptHandler, ast.withitem))
    if not isinstance(node, _EXPRESSIONS):
        return False
    kind = code.type(node)
    if isinstance(node, ast.Name):
        return _is_simple_name(code, node)
    if isinstance(node, ast.BinOp):
        left, right = code.type(node.left), code.type(node.right)
        if isinstance(node.left, ast.List):
            return isinstance(node.op, ast.Mult) and len(node.left.elts) == 1 and right.only(int)
        if left.only(int) and right.only(int):
            return isinstance(node.op, _OPERATORS)
        numbers = left.is_number and right.is_number
        return (
            numbers
            and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div))
            and bool(_scalar(kind))
        )
    if isinstance(node, ast.Compare):
        sides = {_scalar(code.type(p)) for p in (node.left, *node.comparators)}
        plain = not any(isinstance(o, (ast.In, ast.NotIn, ast.Is, ast.IsNot)) for o in node.ops)
        return plain and len(sides) == 1 and None not in sides
    if isinstance(node, ast.BoolOp):
        return all(code.type(v).only(bool) for v in node.values)
    if isinstance(node, ast.UnaryOp):
        operand = _scalar(code.type(node.operand))
        return operand is not None and not (operand is bool and not isinstance(node.op, ast.Not))
    if isinstance(node, ast.Subscript):
        parent = code.effects.parent(node)
        row = isinstance(parent, ast.Subscript) or (
            (isinstance(parent, ast.For) and parent.iter is node)
            or (isinstance(parent, ast.Call) and code.names.stands_for(parent.func) == "len")
        )
        whole = code.type(node.slice).only(int) and code.type(node.value).only(list, bytes)
        return whole and (row or _scalar(kind) is not None)
    if isinstance(node, ast.IfExp):
        return code.type(node.test).only(bool) and _scalar(kind) is not None
    if isinstance(node, ast.Constant):
        return type(node.value) in (int, float, bool)
    if isinstance(node, ast.Call):
        return _is_simple_call(code, node)
    if isinstance(node, ast.Attribute):
        return node.attr == "append" and isinstance(code.effects.parent(node), ast.Call)
    return True


def _is_simple_name(code: Code, node: ast.Name) -> bool:
    if node.id not in code.names.local:
        return code.names.builtin(node.id) and node.id in _CALLS
    kind = code.kinds.variable(node.id)
    if isinstance(node.ctx, ast.Load):
        at = code.statement(node)
        bound = at is not None and (
            code.is_bound_before(node.id, at) or _is_target_around(code, node)
        )
        if not bound:
            return False
        if kind.only(list, bytes):
            parent = code.effects.parent(node)
            if node.id in code.names.arguments:
                return (
                    isinstance(parent, ast.Subscript)
                    or (
                        isinstance(parent, ast.Call)
                        and code.names.stands_for(parent.func) in ("len", "enumerate", "zip")
                    )
                    or (isinstance(parent, ast.For) and parent.iter is node)
                )
            return isinstance(parent, (ast.Subscript, ast.Attribute, ast.Return)) or (
                isinstance(parent, ast.Call) and code.names.stands_for(parent.func) == "len"
            )
    elif node.id in code.names.arguments and not kind.only(int):
        return False
    if kind.only(list) and node.id not in code.names.arguments:
        return _scalar(code.kinds.items_of(node.id)) is not None and code.effects.is_private(
            node.id
        )
    if kind.only(list):
        return True
    return _scalar(kind) is not None or kind.only(bytes)


def _is_target_around(code: Code, node: ast.Name) -> bool:
    return any(
        isinstance(loop, ast.For) and node.id in loads_of_target(loop) for loop in code.loops(node)
    )


def loads_of_target(loop: ast.For) -> set[str]:
    """The names that a loop binds."""
    return {n.id for n in ast.walk(loop.target) if isinstance(n, ast.Name)}


def _is_simple_call(code: Code, node: ast.Call) -> bool:
    if node.keywords:
        return False
    if isinstance(node.func, ast.Attribute):
        box = node.func.value
        statement = code.effects.parent(node)
        return (
            isinstance(box, ast.Name)
            and box.id not in code.names.arguments
            and isinstance(statement, ast.Expr)
            and len(node.args) == 1
            and _scalar(code.type(node.args[0])) is not None
        )
    what = code.names.stands_for(node.func)
    if what in ("enumerate", "zip"):
        return isinstance(code.effects.parent(node), ast.For)
    if what in ("min", "max"):
        return len(node.args) > 1 and all(code.type(a).only(int) for a in node.args)
    if what == "range":
        return isinstance(code.effects.parent(node), ast.For) and all(
            code.type(a).only(int) for a in node.args
        )
    if what == "abs":
        return _scalar(code.type(node.args[0])) in (int, float)
    return what == "len" and code.type(node.args[0]).only(list, bytes)


def _is_simple_statement(code: Code, node: ast.stmt) -> bool:
    if not isinstance(node, _STATEMENTS):
        return False
    if isinstance(node, ast.Assign):
        return len(node.targets) == 1 and _is_simple_target(code, node.targets[0], node.value)
    if isinstance(node, (ast.AnnAssign, ast.AugAssign)):
        if node.value is None:
            return False
        if isinstance(node, ast.AugAssign):
            kinds = (code.type(node.value), _scalar(_target_type(code, node.target)))
            whole = kinds[0].only(int) and kinds[1] is int and isinstance(node.op, _OPERATORS)
            real = kinds[1] is float and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div))
            if not (whole or real):
                return False
        return _is_simple_target(code, node.target, node.value)
    if isinstance(node, (ast.If, ast.While)):
        return code.type(node.test).only(bool)
    if isinstance(node, ast.For):
        over = node.iter.value if isinstance(node.iter, ast.Subscript) else node.iter
        over_list = isinstance(over, ast.Name) and over.id in code.names.arguments
        return not node.orelse and (isinstance(node.iter, ast.Call) or over_list)
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute)
    return True


def _target_type(code: Code, target: ast.expr) -> Type:
    if isinstance(target, ast.Name):
        return code.kinds.variable(target.id)
    if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
        return code.kinds.items_of(target.value.id)
    return code.type(target)


def _is_simple_target(code: Code, target: ast.expr, value: ast.expr) -> bool:
    if isinstance(target, ast.Name):
        if isinstance(value, ast.Name) and code.type(value).only(list):
            return False
        if isinstance(value, ast.List):
            return not value.elts or all(_scalar(code.type(e)) for e in value.elts)
        return not isinstance(value, ast.Tuple)
    if isinstance(target, ast.Subscript):
        box = target.value
        return isinstance(box, ast.Name) and box.id not in code.names.arguments
    if isinstance(target, ast.Tuple):
        return (
            isinstance(value, ast.Tuple)
            and all(
                _is_simple_target(code, t, v) for t, v in zip(target.elts, value.elts, strict=False)
            )
            and len(target.elts) == len(value.elts)
        )
    return False


def _returns(code: Code, body: list[ast.stmt]) -> bool:
    """Whether all ends of the function return numbers of one class, tuples or lists of them."""
    found: set[object] = set()
    for node in same_scope(body):
        if isinstance(node, ast.Return):
            if node.value is None:
                return False
            if isinstance(node.value, ast.Tuple):
                found.add(tuple(_scalar(code.type(e)) for e in node.value.elts))
            elif code.type(node.value).only(list):
                if not isinstance(node.value, ast.Name) or node.value.id in code.names.arguments:
                    return False
                found.add((list, _scalar(code.items(node.value))))
            else:
                found.add(_scalar(code.type(node.value)))
    if len(found) != 1 or code.falls_through(body):
        return False
    one = found.pop()
    return one is not None and not (isinstance(one, tuple) and None in one)


def _write(code: Code, body: list[ast.stmt], forms: dict[str, tuple[str, type]]) -> Change | None:
    function = code.function
    kernel = code.names.fresh(f"{function.name}_compiled")
    tests: list[str] = []
    passed: list[str] = []
    for name, (form, number) in forms.items():
        tests += _tests(name, form, number)
        passed.append(_array(name, form, number))
    lines = code.source.block(body)
    if lines is None or not code.source.on_own_lines([function]):
        return None
    first, _ = code.source.whole_lines([function])
    head = f"@numba.njit(boundscheck=True)\ndef {kernel}({', '.join(forms)}):\n"
    text = head + "".join(f"    {x}\n" if x else "\n" for x in lines) + "\n\n"
    guard = ["if ("] if len(tests) > 1 else [f"if {tests[0]}:"]
    if len(tests) > 1:
        guard += [f"    {'and ' if i else ''}{t}" for i, t in enumerate(tests)]
        guard.append("):")
    guard.append(f"    return {kernel}({', '.join(passed)})")
    edit = code.before(body[0], guard)
    if edit is None:
        return None
    return Change(
        "compiles the loops over numbers to machine code",
        (Edit(first, first, text), edit),
        ("numba", "numpy"),
    )


def _tests(name: str, form: str, number: type) -> list[str]:
    """What must hold of an argument for the kernel."""
    kind = number.__name__
    near = "2**26"
    if form == "number":
        own = [f"type({name}) is {kind}"]
        return own + ([f"-({near}) < {name} < {near}"] if number is int else [])
    if form == "bytes":
        return [f"type({name}) is bytes"]
    if form == "list":
        own = [f"type({name}) is list", f"0 < len({name}) < 2**17"]
        own.append(f"set(map(type, {name})) == {{{kind}}}")
        if number is int:
            own.append(f"-({near}) < min({name}) <= max({name}) < {near}")
        return own
    row, item = ("row", "item") if name != "row" else ("line", "item")
    own = [
        f"type({name}) is list",
        f"0 < len({name}) < 2**17",
        f"set(map(type, {name})) == {{list}}",
    ]
    own.append(f"0 < len({name}[0]) < 2**17")
    own.append(f"set(map(len, {name})) == {{len({name}[0])}}")
    own.append(f"all(set(map(type, {row})) == {{{kind}}} for {row} in {name})")
    if number is int:
        own.append(f"all(-({near}) < {item} < {near} for {row} in {name} for {item} in {row})")
    return own


def _array(name: str, form: str, number: type) -> str:
    if form == "number":
        return name
    if form == "bytes":
        return f"numpy.frombuffer({name}, numpy.uint8).astype(numpy.int64)"
    return f"numpy.array({name}, numpy.{'int64' if number is int else 'float64'})"


COMPILED = Rewriter(
    name="compiled",
    summary="a function that is all loops over numbers: compiled by numba",
    risk="overflow",
    find=_find,
    needs=("numba", "numpy"),
    example=(
        """\
def inversions(xs):
    count = 0
    for i in range(len(xs)):
        for j in range(i + 1, len(xs)):
            if xs[i] > xs[j]:
                count += 1
    return count
""",
        """\
import numba
import numpy


@numba.njit(boundscheck=True)
def inversions_compiled(xs):
    count = 0
    for i in range(len(xs)):
        for j in range(i + 1, len(xs)):
            if xs[i] > xs[j]:
                count += 1
    return count


def inversions(xs):
    if (
        type(xs) is list
        and 0 < len(xs) < 2**17
        and set(map(type, xs)) == {int}
        and -(2**26) < min(xs) <= max(xs) < 2**26
    ):
        return inversions_compiled(numpy.array(xs, numpy.int64))
    count = 0
    for i in range(len(xs)):
        for j in range(i + 1, len(xs)):
            if xs[i] > xs[j]:
                count += 1
    return count
""",
    ),
)
