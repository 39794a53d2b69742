"""Small functions of the module that a loop calls: their expression in place of the call.

Inline expansion (Aho, Lam, Sethi, Ullman, Compilers, 12.1): a function that is nothing but
``return`` and an expression is that expression, with its arguments in the place of its parameters.
A call makes a frame and binds arguments, which costs more than the arithmetic of most such
functions.

The function must be the only one of its name in the module, and nobody may bind the name again. The
arguments are variables that nobody else can change, or numbers, so that it does not matter when and
how often they are read.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import loads

__all__ = ["INLINE"]

_MOST = 40  # nodes of the expression
_PLAIN = (
    *(ast.Name, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.IfExp),
    *(ast.Subscript, ast.Attribute, ast.Call, ast.Tuple, ast.List, ast.expr_context),
    *(ast.operator, ast.unaryop, ast.cmpop, ast.boolop),
)


def _find(code: Code) -> Iterator[Change]:
    groups: dict[str, list[tuple[ast.Call, ast.expr]]] = {}
    for node in code.expressions():
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if not (code.loops(node) or _in_comprehension(code, node)):
            continue
        found = _expanded(code, node, node.func.id)
        if found is not None:
            groups.setdefault(node.func.id, []).append((node, found))
    for name, calls in groups.items():
        taken: list[ast.Call] = []
        edits = []
        for call, new in calls:
            if not any(call is n for one in taken for n in ast.walk(one)):
                taken.append(call)
                edits.append(code.swap(call, _in_place(code, call, new)))
        yield Change(f"evaluates what {name} gives in place, without a call", tuple(edits))


def _in_place(code: Code, call: ast.Call, new: ast.expr) -> str:
    """The text of an expression, in parentheses where it may need them."""
    parent, text = code.effects.parent(call), ast.unparse(new)
    stands_alone = isinstance(parent, (ast.Assign, ast.AugAssign, ast.Return)) or (
        isinstance(parent, ast.Call) and call in parent.args
    )
    is_atom = isinstance(new, (ast.Name, ast.Constant, ast.Call, ast.Subscript, ast.Tuple))
    return text if stands_alone or is_atom else f"({text})"


def _in_comprehension(code: Code, node: ast.AST) -> bool:
    at = code.effects.parent(node)
    while at is not None and not isinstance(at, ast.stmt):
        if isinstance(at, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            return True
        at = code.effects.parent(at)
    return False


def _expanded(code: Code, call: ast.Call, name: str) -> ast.expr | None:
    """The expression of the function that is called, for these arguments."""
    called = _only_definition(code, name)
    if called is None or called is code.function or call.keywords:
        return None
    given, value = called.args, _value(called)
    parameters = [one.arg for one in given.args]
    extra = given.posonlyargs or given.kwonlyargs or given.vararg or given.kwarg or given.defaults
    if value is None or extra or len(parameters) != len(call.args):
        return None
    if not all(_is_still(code, one) for one in call.args):
        return None
    inside = list(ast.walk(value))
    if len(inside) > _MOST or not all(isinstance(one, _PLAIN) for one in inside):
        return None
    free = loads([value]) - set(parameters)
    if name in free or free & (code.names.local | code.names.captured):
        return None
    return _filled(value, dict(zip(parameters, call.args, strict=True)))


def _only_definition(code: Code, name: str) -> ast.FunctionDef | None:
    if name in code.names.local or code.names.has_star:
        return None
    bound = code.names.module.get(name, [])  # by global statements too
    if len(bound) != 1 or not isinstance(bound[0], ast.FunctionDef) or bound[0].decorator_list:
        return None
    return bound[0]


def _value(function: ast.FunctionDef) -> ast.expr | None:
    """What a function of one ``return`` gives; a docstring may stand before it."""
    body = function.body
    if len(body) > 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    if len(body) != 1 or not isinstance(body[0], ast.Return):
        return None
    return body[0].value


def _is_still(code: Code, node: ast.expr) -> bool:
    """Whether an argument has one value, whenever it is read."""
    if isinstance(node, ast.Constant):
        return True
    return (
        isinstance(node, ast.Name)
        and node.id in code.names.local
        and node.id not in code.names.captured
    )


def _filled(value: ast.expr, arguments: Mapping[str, ast.expr]) -> ast.expr:
    class Fill(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return arguments.get(node.id, node)

    found = Fill().visit(ast.parse(ast.unparse(value), mode="eval")).body
    assert isinstance(found, ast.expr)
    return found


INLINE = Rewriter(
    name="inline",
    summary="a function of one expression that a loop calls: the expression itself",
    risk="exact",
    find=_find,
    in_generators=True,
    example=(
        """\
def weighted(xs, i):
    total = 0.0
    for j, x in enumerate(xs):
        total += weight(i, j) * x
    return total


def weight(i, j):
    return 1.0 / (i * i + j + 1)
""",
        """\
def weighted(xs, i):
    total = 0.0
    for j, x in enumerate(xs):
        total += (1.0 / (i * i + j + 1)) * x
    return total


def weight(i, j):
    return 1.0 / (i * i + j + 1)
""",
    ),
)
