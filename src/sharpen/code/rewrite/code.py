"""A function as rewriters see it: its text, its names, its types and what its parts do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

from sharpen.code.rewrite import pattern as patterns
from sharpen.code.rewrite.effects import Effects
from sharpen.code.rewrite.facts import Facts
from sharpen.code.rewrite.kinds import Kinds
from sharpen.code.rewrite.names import Names, binds, loads, same_scope
from sharpen.code.rewrite.pattern import Match
from sharpen.code.rewrite.source import IMPOSSIBLE, Edit, Source, edited
from sharpen.code.rewrite.types import Type

__all__ = ["Code"]

Block = list[ast.stmt]

_HOLE = re.compile(r"\$(\w+)")
_ATOMS = (
    ast.Name,
    ast.Attribute,
    ast.Call,
    ast.Subscript,
    ast.Constant,
    ast.List,
    ast.Dict,
    ast.Set,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.JoinedStr,
    ast.GeneratorExp,
)
_CONSUMERS = frozenset(
    {"sum", "any", "all", "min", "max", "sorted", "list", "tuple", "set", "frozenset", "dict"}
)
_OPENERS = ("(", "[", "{", ",", " = ", ":", "return ", "=")
_CLOSERS = (")", "]", "}", ",", ":", "")


class Code:
    """One function of a module, and all that is known of it."""

    def __init__(self, source: Source, facts: Facts) -> None:
        self.source = source
        self.facts = facts
        self.function = source.function
        self.names = Names(source)
        self.kinds = Kinds(self.names, facts)
        self.effects = Effects(self.names, self.kinds)
        self._homes: dict[ast.stmt, tuple[Block, int]] = {
            statement: (block, i)
            for block in self._find_blocks(self.function)
            for i, statement in enumerate(block)
        }

    @property
    def is_plain(self) -> bool:
        """Whether it is no coroutine and does not look at its names."""
        return not (
            isinstance(self.function, ast.AsyncFunctionDef)
            or self.names.is_dynamic
            or any(isinstance(n, ast.Await) for n in same_scope(self.function.body))
        )

    @property
    def is_generator(self) -> bool:
        """Whether it stops on its way, so that others run between its statements."""
        return any(
            isinstance(n, (ast.Yield, ast.YieldFrom)) for n in same_scope(self.function.body)
        )

    # Reading

    @cached_property
    def _expressions(self) -> list[ast.expr]:
        return [n for n in same_scope(self.function.body) if isinstance(n, ast.expr)]

    def _find_blocks(self, node: ast.AST) -> Iterator[Block]:
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                yield block
        for child in ast.iter_child_nodes(node):
            if not isinstance(
                child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
            ) and not isinstance(child, ast.expr):
                yield from self._find_blocks(child)

    def blocks(self) -> Iterator[Block]:
        """The lists of statements of the function, those of functions inside left out."""
        yield from self._find_blocks(self.function)

    def statements(self) -> Iterator[ast.stmt]:
        """All of its statements."""
        for block in self.blocks():
            yield from block

    def expressions(self) -> Iterator[ast.expr]:
        """All of its expressions."""
        yield from self._expressions

    def match(self, pattern: str, node: ast.AST) -> Match | None:
        """See :func:`sharpen.code.rewrite.pattern.match`."""
        return patterns.match(pattern, node, self.names.builtin)

    def match_any(self, options: Iterable[str], node: ast.AST) -> Match | None:
        """The first of some patterns that fits."""
        for one in options:
            found = self.match(one, node)
            if found is not None:
                return found
        return None

    def match_block(self, pattern: str, block: Sequence[ast.stmt]) -> Match | None:
        """See :func:`sharpen.code.rewrite.pattern.match_block`."""
        return patterns.match_block(pattern, block, self.names.builtin)

    def match_any_block(self, options: Iterable[str], block: Sequence[ast.stmt]) -> Match | None:
        """The first of some patterns of statements that fits."""
        for one in options:
            found = self.match_block(one, block)
            if found is not None:
                return found
        return None

    def type(self, node: ast.expr) -> Type:
        """What an expression may be."""
        return self.kinds.of(node)

    def items(self, node: ast.expr) -> Type:
        """What iterating over it gives."""
        return self.kinds.items(node)

    def home(self, statement: ast.stmt) -> tuple[Block, int]:
        """The list that a statement stands in, and where."""
        return self._homes[statement]

    def statement(self, node: ast.AST) -> ast.stmt | None:
        """The statement that an expression stands in; None in functions inside."""
        found: ast.AST | None = node
        while found is not None and not (isinstance(found, ast.stmt) and found in self._homes):
            found = self.effects.parent(found)
        return found if isinstance(found, ast.stmt) else None

    def loops(self, node: ast.AST) -> list[ast.For | ast.While]:
        """The loops around a node, the inmost first."""
        found: list[ast.For | ast.While] = []
        child, at = node, self.effects.parent(node)
        while at is not None and at is not self.function:
            if isinstance(at, (ast.For, ast.While)) and not (
                isinstance(at, ast.For) and child is at.iter
            ):
                found.append(at)
            child, at = at, self.effects.parent(at)
        return found

    def steady_from(self, node: ast.AST, name: str) -> ast.stmt | None:
        """The statement before which something can be made of a local once, for use at a node.

        That is the outermost loop around the node that leaves the local and its object as they are
        (or the statement of the comprehension around it, or the function inside around it).
        None where there is no loop, or the local may have no value there.
        """
        effects = self.effects
        inner = self._inside(node)
        if inner is not None:
            if (
                name in self.names.local
                and self.is_only_called(inner)
                and effects.keeps(self.function.body, name)
                and inner in self._homes
                and self.is_bound_before(name, inner)
            ):
                return inner
            return None
        if self._is_delayed(node):
            return None
        found: ast.stmt | None = None
        if self._in_comprehension(node):
            found = self.statement(node)
            if isinstance(found, (ast.While, ast.With, ast.Try)) or (
                found is not None and not effects.keeps([found], name)
            ):
                return None
        for loop in self.loops(node):
            if not effects.keeps([loop], name):
                break
            found = loop
        if found is None or not self.is_bound_before(name, found):
            return None
        return found

    def _inside(self, node: ast.AST) -> ast.stmt | None:
        """The function inside that a node stands in: the one that the function itself defines."""
        found: ast.stmt | None = None
        at: ast.AST | None = node
        while at is not None and at is not self.function:
            if isinstance(at, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found = at
            at = self.effects.parent(at)
        return found

    def is_only_called(self, function: ast.stmt) -> bool:
        """Whether a function inside is called and nothing else is done with it."""
        if not isinstance(function, ast.FunctionDef) or function.decorator_list:
            return False
        for node in ast.walk(self.function):
            if isinstance(node, ast.Name) and node.id == function.name:
                parent = self.effects.parent(node)
                if not (isinstance(parent, ast.Call) and parent.func is node):
                    return False
        return True

    def _is_delayed(self, node: ast.AST) -> bool:
        """Whether a node is evaluated some time after its statement: in a lambda or generator."""
        at = self.effects.parent(node)
        while at is not None and not isinstance(at, ast.stmt):
            if isinstance(at, ast.Lambda):
                return True
            if isinstance(at, ast.GeneratorExp) and not self.is_used_up(at):
                return True
            at = self.effects.parent(at)
        return False

    def is_used_up(self, node: ast.GeneratorExp) -> bool:
        """Whether a generator is the argument of a function that takes all it needs at once."""
        call = self.effects.parent(node)
        if not isinstance(call, ast.Call) or node not in call.args:
            return False
        what = self.names.stands_for(call.func)
        return what in _CONSUMERS or (
            isinstance(call.func, ast.Attribute)
            and call.func.attr == "join"
            and self.type(call.func.value).only(str)
        )

    def _in_comprehension(self, node: ast.AST) -> bool:
        child, at = node, self.effects.parent(node)
        while at is not None and not isinstance(at, ast.stmt):
            if (
                isinstance(at, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp))
                and child is not at.generators[0]
            ):
                return True
            if isinstance(at, ast.comprehension) and child is not at.iter:
                return True
            child, at = at, self.effects.parent(at)
        return False

    def library(self, module: str, name: str) -> tuple[str, tuple[str, ...]]:
        """How a name of the standard library is written here, and what must be imported for it."""
        for local, what in self.names.imported.items():
            if what == f"{module}.{name}":
                return local, ()
        for local, what in self.names.imported.items():
            if what == module:
                return f"{local}.{name}", ()
        return f"{module}.{name}", (module,)

    def is_char(self, node: ast.expr) -> bool:
        """Whether an expression is a variable that only ever holds the letters of a text."""
        if not isinstance(node, ast.Name) or not self.effects.is_steady(node.id):
            return False
        if node.id in self.names.arguments or node.id in self.names.captured:
            return False
        for n in same_scope(self.function.body):
            if isinstance(n, ast.Name) and n.id == node.id and not isinstance(n.ctx, ast.Load):
                parent = self.effects.parent(n)
                if not (
                    isinstance(parent, (ast.For, ast.comprehension))
                    and parent.target is n
                    and self.type(parent.iter).only(str)
                ):
                    return False
        return True

    def falls_through(self, block: Block) -> bool:
        """Whether the end of a block may be reached."""
        last = block[-1]
        if isinstance(last, (ast.Return, ast.Raise)):
            return False
        if isinstance(last, ast.If) and last.orelse:
            return self.falls_through(last.body) or self.falls_through(last.orelse)
        return True

    def is_otherwise(self, statement: ast.stmt, pattern: str) -> bool:
        """Whether a statement is what is done where a test of some form does not hold."""
        above = self.effects.parent(statement)
        return (
            isinstance(above, ast.If)
            and statement in above.orelse
            and self.match(pattern, above.test) is not None
        )

    def in_text(self, node: ast.AST) -> bool:
        """Whether an expression stands in an f-string, of which Python 3.11 tells no places."""
        at = self.effects.parent(node)
        while at is not None and not isinstance(at, ast.stmt):
            if isinstance(at, ast.JoinedStr):
                return True
            at = self.effects.parent(at)
        return False

    def in_try(self, node: ast.AST) -> bool:
        """Whether a failure at a node may be caught by the function, or is followed by more."""
        at = self.effects.parent(node)
        while at is not None and at is not self.function:
            if isinstance(at, (ast.Try, ast.With)):
                return True
            at = self.effects.parent(at)
        return False

    def is_unread(self, name: str, outside: Iterable[ast.AST]) -> bool:
        """Whether nobody reads the last value of a local after some code has left it.

        All other reads must be in a loop or comprehension that binds the name itself.
        """
        if not self.effects.is_steady(name) or name in self.names.captured:
            return False
        left_out = {id(n) for top in outside for n in ast.walk(top)}
        for node in self.effects.uses(name):
            if id(node) in left_out:
                continue
            if isinstance(node.ctx, ast.Load) and not self._is_bound_around(node, name):
                return False
            if isinstance(node.ctx, ast.Del):
                return False
        return True

    def _is_bound_around(self, node: ast.AST, name: str) -> bool:
        child, at = node, self.effects.parent(node)
        while at is not None and at is not self.function:
            if isinstance(at, ast.For) and child in at.body and name in binds([at.target]):
                return True
            if isinstance(at, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)) and any(
                name in binds([g.target]) for g in at.generators
            ):
                return child is not at.generators[0]
            child, at = at, self.effects.parent(at)
        return False

    def is_bound_before(self, name: str, statement: ast.stmt) -> bool:
        """Whether a local has a value for sure when a statement begins."""
        if any(isinstance(n.ctx, ast.Del) for n in self.effects.uses(name)):
            return False
        if name in self.names.arguments:
            return True
        at: ast.AST = statement
        while at is not self.function:
            if isinstance(at, ast.stmt) and at in self._homes:
                block, i = self._homes[at]
                if any(_surely_binds(s, name) for s in block[:i]):
                    return True
            above = self.effects.parent(at)
            if above is None:
                return False
            if isinstance(above, ast.For) and at in above.body and name in binds([above.target]):
                return True
            at = above
        return False

    def all_bound_before(self, nodes: Iterable[ast.AST], statement: ast.stmt) -> bool:
        """Whether all locals that some code reads have values before a statement."""
        return all(
            self.is_bound_before(name, statement)
            for name in loads(nodes)
            if name in self.names.local
        )

    # Writing

    def text(self, node: ast.AST | str) -> str:
        """The text of a node; a text is its own."""
        if isinstance(node, str):
            return node
        return ast.unparse(node) if self.in_text(node) else self.source.code(node)

    def fill(self, template: str, **parts: ast.AST | str | Sequence[ast.stmt]) -> list[str] | None:
        """The lines of a template: ``$name`` is an expression or name, a line ``$name`` statements.

        Returns:
            None where statements cannot be moved; see :meth:`Source.block`.
        """
        lines: list[str] = []
        for line in template.strip("\n").splitlines():
            bare = line.strip()
            part = parts.get(bare[1:]) if bare.startswith("$") else None
            if isinstance(part, list):
                shift = line[: len(line) - len(line.lstrip())]
                block = self.source.block(part, shift)
                if block is None:
                    return None
                lines += block
            else:
                lines.append(self.line(line, parts))
        return lines

    def line(self, template: str, parts: dict[str, ast.AST | str | Sequence[ast.stmt]]) -> str:
        """One line with its holes filled; parentheses are set where they may be needed."""

        def put(hole: re.Match[str]) -> str:
            part = parts[hole[1]]
            if isinstance(part, str):
                return part
            assert isinstance(part, ast.AST)
            text = self.text(part)
            if isinstance(part, _ATOMS):
                return text
            if isinstance(part, ast.Tuple) and text.startswith("("):
                return text
            before = template[: hole.start()]
            after = template[hole.end() :]
            free = not isinstance(part, (ast.Tuple, ast.NamedExpr, ast.Yield, ast.Lambda))
            opened = before.strip() == "" or (
                before.endswith(_OPENERS) and not before.endswith(("==", "!=", "<=", ">="))
            )
            closed = after.strip() == "" or after.startswith(_CLOSERS[:-1])
            return text if free and opened and closed else f"({text})"

        return _HOLE.sub(put, template)

    def replace(self, statements: Sequence[ast.stmt], lines: Sequence[str] | None) -> Edit | None:
        """Other lines in the place of statements; comments that would be lost come before.

        Returns:
            None where other code shares the lines.
        """
        source = self.source
        if lines is None or not source.on_own_lines(statements):
            return None
        start, _ = source.span(statements[0])
        _, end = source.span(statements[-1])
        _, line_end = source.whole_lines(statements)
        kept = [c for c in source.comments(start, line_end) if not any(c in x for x in lines)]
        indent = source.indent(statements[0])
        trailing = source.comments(end, line_end)
        if trailing and (len(lines) > 1 or trailing[0] not in kept):
            end = line_end
        elif trailing:
            kept = [c for c in kept if c not in trailing]
        body = [indent + x if x else "" for x in (*kept, *lines)]
        return Edit(start, end, "\n".join(body)[len(indent) :])

    def shifted(
        self, statements: Sequence[ast.stmt], edits: Iterable[Edit], shift: str
    ) -> list[str] | None:
        """The lines of statements after some edits in them, moved to the right.

        Returns:
            None where they cannot be moved; see :meth:`Source.block`.
        """
        source = self.source
        if source.block(statements) is None:
            return None
        start, _ = source.span(statements[0])
        _, end = source.whole_lines(statements)
        moved = [Edit(e.start - start, e.end - start, e.text) for e in edits]
        indent = source.indent(statements[0])
        lines = (indent + edited(source.raw[start:end], moved)).splitlines()
        return [shift + x[len(indent) :] if x.strip() else "" for x in lines]

    def exchange(self, statements: Sequence[ast.stmt], lines: Sequence[str]) -> Edit:
        """Other lines in the place of statements on lines of their own, with their comments."""
        start, _ = self.source.span(statements[0])
        _, end = self.source.whole_lines(statements)
        indent = self.source.indent(statements[0])
        return Edit(start, end, "\n".join(indent + x if x else "" for x in lines)[len(indent) :])

    def before(self, statement: ast.stmt, lines: Sequence[str] | None) -> Edit | None:
        """Lines before a statement."""
        if lines is None or not self.source.on_own_lines([statement]):
            return None
        start, _ = self.source.span(statement)
        indent = self.source.indent(statement)
        whole = "".join((indent + x if x else "") + "\n" for x in lines)
        return Edit(start, start, whole[len(indent) :] + indent)

    def after(self, statement: ast.stmt, lines: Sequence[str] | None) -> Edit | None:
        """Lines after a statement."""
        if lines is None or not self.source.on_own_lines([statement]):
            return None
        _, end = self.source.whole_lines([statement])
        indent = self.source.indent(statement)
        return Edit(end, end, "".join("\n" + indent + x for x in lines))

    def swap(self, node: ast.expr, template: str, **parts: ast.AST | str) -> Edit:
        """Another expression in the place of one; the caller sets parentheses around it."""
        if self.in_text(node):
            return IMPOSSIBLE
        start, end = self.source.span(node)
        text = self.line(template, dict(parts))
        parent = self.effects.parent(node)
        if (
            isinstance(node, ast.GeneratorExp)
            and isinstance(parent, ast.Call)
            and parent.args == [node]
            and not parent.keywords
            and self.source.span(parent)[1] == end
        ):
            text = f"({text})"  # the parentheses of the call are those of the generator
        return Edit(start, end, text)


def _surely_binds(statement: ast.stmt, name: str) -> bool:
    """Whether a statement that ended normally has bound a name."""
    if isinstance(statement, ast.Assign):
        return any(name in binds([t]) for t in statement.targets)
    if isinstance(statement, ast.AnnAssign):
        return statement.value is not None and name in binds([statement.target])
    if isinstance(statement, ast.AugAssign):
        return name in binds([statement.target])
    if isinstance(statement, (ast.FunctionDef, ast.Import, ast.ImportFrom)):
        return name in binds([statement])
    if isinstance(statement, ast.If) and statement.orelse:
        return all(
            any(_surely_binds(s, name) for s in block) or _leaves(block)
            for block in (statement.body, statement.orelse)
        )
    if isinstance(statement, ast.With):
        return any(_surely_binds(s, name) for s in statement.body)
    return False


def _leaves(block: Block) -> bool:
    return isinstance(block[-1], (ast.Return, ast.Raise, ast.Continue, ast.Break))
