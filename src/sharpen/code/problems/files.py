"""Problems in files of one's own.

A Python file has one problem or several. Of the problem ``unique`` it has the functions

* ``unique``, the reference: right and fast; its signature and docstring are what is asked for;
* ``unique_inputs(size, rng)``, the arguments of a call, as a tuple, drawn from a ``random.Random``;
* ``unique_slow``, if there is one, the same as people write it;
* ``unique_check(args, expected, output)``, where outputs need not be the same values;

and ``LEVELS``, four sizes for all problems of the file or a dict of them by name. Other functions
and values at the top whose names begin with ``_``, and imports, are for all. The file is not
imported: what a function needs is taken from its text.

A JSONL file has a problem a line, with the fields of :class:`~sharpen.code.problems.Problem`.
"""

from __future__ import annotations

import ast
import json
import re
import zlib
from pathlib import Path
from typing import Any

from sharpen.code.problems.base import Problem
from sharpen.core.errors import DataError, FileFormatError, MissingFileError, UserError

__all__ = ["read_problems"]

_PARTS = ("slow", "inputs", "check")
_GENERATE = """

def generate(size, level, index, seed):
    import random
    return {name}_inputs(size, random.Random(seed))
"""
_CHECK = """

check = {name}_check
"""


def read_problems(path: Path, *, trusted: bool = False) -> list[Problem]:
    """The problems of a file, or of all Python and JSONL files of a folder, in order of names.

    Raises:
        MissingFileError: there is no such file.
        FileFormatError: a file is damaged or lacks a part.
    """
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in (".py", ".jsonl"))
        found = [
            problem
            for file in files
            if not file.name.startswith("_")
            for problem in read_problems(file, trusted=trusted)
        ]
        if not found:
            raise FileFormatError(f"{path} holds no .py or .jsonl file with a problem.")
    else:
        text = _text(path)
        read = _lines if path.suffix == ".jsonl" else _python
        found = read(path, text, trusted)
    names = [problem.name for problem in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise FileFormatError(f"{path}: there are two problems named {twice!r}.")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {path}.") from None
    except (UnicodeDecodeError, OSError) as error:
        raise FileFormatError(f"{path} is no text in UTF-8: {error}.") from None


def _lines(path: Path, text: str, trusted: bool) -> list[Problem]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if not isinstance(value, dict):
                raise DataError("a line must be an object.")
            found.append(Problem.from_dict(value))
        except (json.JSONDecodeError, UserError, RecursionError) as error:
            raise FileFormatError(f"{path}:{number}: {error}") from None
    if not found:
        raise FileFormatError(f"{path} holds no problem.")
    return found


def _python(path: Path, text: str, trusted: bool) -> list[Problem]:
    try:
        module = _Module(text)
    except (SyntaxError, ValueError) as error:
        raise FileFormatError(f"{path} cannot be read as Python: {error}.") from None
    found = []
    for name in module.functions:
        if name + "_inputs" not in module.functions:
            if not name.startswith("_") and not _is_part(name, module.functions):
                raise FileFormatError(
                    f"{path}: {name} has no {name}_inputs(size, rng). Write one, or begin the name"
                    " of a helper with _."
                )
            continue
        levels = module.levels.get(name) if isinstance(module.levels, dict) else module.levels
        whole = isinstance(levels, tuple) and all(type(size) is int for size in levels)
        if not whole or len(levels or ()) != 4:
            raise FileFormatError(
                f"{path}: LEVELS must give {name} four sizes, as LEVELS = (10, 100, 400, 1000)."
            )
        assert levels is not None
        has_check = name + "_check" in module.functions
        found.append(
            Problem(
                name=name,
                entry=name,
                prompt=module.prompt(name),
                reference=module.program(name),
                slow=module.program(name, "slow") if name + "_slow" in module.functions else None,
                generator=module.program(name + "_inputs") + _GENERATE.format(name=name),
                levels=levels,
                checker=module.program(name + "_check") + _CHECK.format(name=name)
                if has_check
                else None,
                number=zlib.crc32(name.encode()),
                trusted=trusted,
            )
        )
    if not found:
        raise FileFormatError(f"{path} holds no problem: a function NAME and NAME_inputs.")
    return found


def _is_part(name: str, functions: dict[str, ast.FunctionDef]) -> bool:
    whole, _, part = name.rpartition("_")
    return part in _PARTS and whole in functions


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(
            f"line {node.lineno}: LEVELS must be written as numbers, a tuple of them or a dict"
        ) from None


class _Module:
    """The text of a file, taken apart."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = ast.parse(text)
        self.functions = {n.name: n for n in self.tree.body if isinstance(n, ast.FunctionDef)}
        self.levels: Any = None
        self.imports: dict[str, ast.stmt] = {}
        self.values: dict[str, ast.stmt] = {}
        self.future: list[ast.stmt] = []
        for node in self.tree.body:
            if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                self.future.append(node)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                for alias in node.names:
                    self.imports[(alias.asname or alias.name).partition(".")[0]] = node
            elif isinstance(node, ast.Assign) and len(node.targets) == 1:
                target = node.targets[0]
                if isinstance(target, ast.Name) and target.id == "LEVELS":
                    self.levels = _literal(node.value)
                elif isinstance(target, ast.Name):
                    self.values[target.id] = node
            elif isinstance(node, ast.ClassDef):
                self.values[node.name] = node

    def program(self, name: str, part: str = "") -> str:
        """A function with all that it needs; a part of a problem gets the problem's name."""
        own = f"{name}_{part}" if part else name
        wanted = self._needed(self.functions[own])
        head, body = [], []
        for node in self.tree.body:
            if node in self.future and wanted:
                head.append(self._segment(node))
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                line = self._import(node, wanted)
                if line:
                    head.append(line)
            elif node in wanted:
                body.append(self._segment(node))
        text = "\n".join(head) + ("\n\n\n" if head else "") + "\n\n\n".join(body) + "\n"
        return re.sub(rf"\b{own}\b", name, text) if part else text

    def prompt(self, name: str) -> str:
        """Imports that the signature needs, the signature and the docstring."""
        node = self.functions[name]
        lines = self.text.splitlines(keepends=True)
        docstring = node.body[0]
        is_text = ast.get_docstring(node) is not None
        last = docstring.end_lineno if is_text else docstring.lineno - 1
        signature = "".join(lines[node.lineno - 1 : last])
        names = {n.id for n in ast.walk(node.args) if isinstance(n, ast.Name)}
        names |= {n.id for n in ast.walk(node.returns or node.args) if isinstance(n, ast.Name)}
        head = [self._segment(self.values[one]) for one in sorted(names & set(self.values))]
        wanted = {self.imports[one] for one in names & set(self.imports)}
        head = [self._segment(one) for one in self.tree.body if one in wanted] + head
        return "\n".join(head) + ("\n\n\n" if head else "") + signature

    def _needed(self, node: ast.stmt) -> set[ast.stmt]:
        wanted: set[ast.stmt] = set()
        waiting = [node]
        while waiting:
            one = waiting.pop()
            if one in wanted:
                continue
            wanted.add(one)
            for inner in ast.walk(one):
                if isinstance(inner, ast.Name):
                    for there in (self.functions, self.values, self.imports):
                        found = there.get(inner.id)
                        if found is not None and found is not one:
                            waiting.append(found)
        return wanted

    def _import(self, node: ast.Import | ast.ImportFrom, wanted: set[ast.stmt]) -> str:
        """The line of an import, without the names that are not needed."""
        if node not in wanted:
            return ""
        used = {
            inner.id
            for one in wanted
            if not isinstance(one, (ast.Import, ast.ImportFrom))
            for inner in ast.walk(one)
            if isinstance(inner, ast.Name)
        }
        kept = [a for a in node.names if (a.asname or a.name).partition(".")[0] in used]
        if isinstance(node, ast.Import):
            return ast.unparse(ast.Import(kept))
        return ast.unparse(ast.ImportFrom(node.module, kept, node.level))

    def _segment(self, node: ast.stmt) -> str:
        found = ast.get_source_segment(self.text, node)
        assert found is not None
        return found
