"""The installed Python's standard library as a corpus: whole modules, or documented functions.

Tests, third-party packages and the retired ``lib2to3`` are left out. The order is that of the
sorted paths, so the same Python gives the same rows.
"""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["docstring_examples", "stdlib_files", "stdlib_texts"]

_SKIPPED = {
    "__pycache__",
    "idle_test",
    "lib2to3",
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "turtledemo",
}
_MIN_DOCSTRING = 20
_LINE_END = re.compile(r"\r\n|\r|\n")


def stdlib_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Module name and path of each source file."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if not _SKIPPED.intersection(parts):
            module = parts[:-1] if parts[-1] == "__init__" else parts
            yield ".".join(module), path


def stdlib_texts(root: Path) -> Iterator[dict[str, Any]]:
    """Rows ``{"text", "module"}``, one a source file; files that are not UTF-8 are left out."""
    for module, path in stdlib_files(root):
        text = _read(path)
        if text is not None and text.strip():
            yield {"text": text, "module": module}


def docstring_examples(root: Path) -> Iterator[dict[str, Any]]:
    """Rows ``{"prompt", "completion", "module"}``: a function without its docstring, and it."""
    for module, path in stdlib_files(root):
        text = _read(path)
        if text is None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's sources
            try:
                tree = ast.parse(text)
            except (SyntaxError, ValueError):
                continue
        lines = _LINE_END.split(text)  # as ast counts them; str.splitlines cuts at form feeds too
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                docstring = ast.get_docstring(node, clean=False)
                if docstring is None:
                    continue
                completion = inspect.cleandoc(docstring).strip()
                source = _without_docstring(node, lines)
                if len(completion) >= _MIN_DOCSTRING and source is not None:
                    yield {"prompt": source, "completion": completion, "module": module}


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return None


def _without_docstring(
    node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]
) -> str | None:
    """The function's source without its docstring; None when nothing else is in its body."""
    if len(node.body) < 2 or node.end_lineno is None:
        return None
    doc, first = node.body[0], node.body[1]
    assert doc.end_lineno is not None
    if doc.lineno == node.lineno or first.lineno <= doc.end_lineno:
        return None  # all on one line
    start = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
    kept = lines[start : doc.lineno - 1] + lines[doc.end_lineno : node.end_lineno]
    # By the first line: lines of a text inside the function may be indented less.
    indent = kept[0][: len(kept[0]) - len(kept[0].lstrip())]
    return "\n".join(line.removeprefix(indent) for line in kept).strip("\n")
