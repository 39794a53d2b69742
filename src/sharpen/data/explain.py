"""What a recipe will do, and what there is to choose from: for a person to look at."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import math
import re
import textwrap
import time
import typing
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.data.batch import Batch
from sharpen.data.engine import segments_of
from sharpen.data.ops import operator_names, operator_type
from sharpen.data.ops.base import Operator
from sharpen.data.ordering import choose_order, few, measure
from sharpen.data.process import DataRecipe

__all__ = ["describe_operators", "explain_recipe"]


def explain_recipe(recipe: DataRecipe) -> dict[str, Any]:
    """The steps of a recipe in the order in which they run, measured on its first rows.

    Raises:
        DataError: the source cannot be read.
    """
    first = next(iter(recipe.dataset.source), None)
    rows = few(first.rows) if first is not None else None
    document: dict[str, Any] = {
        "name": recipe.name,
        "output": str(recipe.output),
        "rows": 0 if rows is None else len(rows),
        "steps": [],
    }
    for segment in segments_of(recipe.dataset.operators):
        if rows is not None and recipe.config.order == "auto":
            segment = segment.ordered(choose_order(segment.operators, rows))
        measured: dict[str, dict[str, Any]] = {}
        if rows is not None:
            found, rows = measure(segment.operators, segment.names, rows)
            measured = {one.name: _step(one) for one in found}
        for one, name in zip(segment.operators, segment.names, strict=True):
            nothing = {"ns_per_byte": None, "ns_alone": None, "passed": None}
            document["steps"].append(
                {"operator": name, "kind": one.kind, **measured.get(name, nothing)}
            )
        if segment.ends is not None:
            document["steps"].append(
                {
                    "operator": segment.ends_name,
                    "kind": segment.ends.kind,
                    **_barrier(segment.ends, rows),
                }
            )
    return document


def _step(one: Any) -> dict[str, Any]:
    return {
        "ns_per_byte": one.seconds * 1e9,
        "ns_alone": one.alone * 1e9,
        "passed": one.passed,
    }


def _barrier(one: Any, rows: Batch | None) -> dict[str, Any]:
    """What is remembered costs; how many rows pass only all rows can tell."""
    cost = None
    if rows is not None and len(rows):
        start = time.perf_counter()
        one.keys(rows)
        cost = (time.perf_counter() - start) / max(rows.texts.bytes, 1) * 1e9
    return {"ns_per_byte": cost, "ns_alone": cost, "passed": None}


def describe_operators(name: str | None = None, kind: str | None = None) -> list[dict[str, Any]]:
    """Operators with their arguments, as plain data.

    Args:
        name: only this one.
        kind: only those of this kind.

    Raises:
        ConfigError: there is no such operator or kind.
    """
    names = [name] if name is not None else operator_names()
    found = [_described(operator_type(one)) for one in names]
    kinds = sorted({row["kind"] for row in found})
    if kind is not None and kind not in kinds:
        raise ConfigError(f"there is no kind '{kind}'; there are: {', '.join(kinds)}.")
    return [row for row in found if kind in (None, row["kind"])]


def _described(kind: type[Operator]) -> dict[str, Any]:
    meanings = _meanings(kind)
    hints = typing.get_type_hints(kind)
    arguments = []
    for one in dataclasses.fields(kind):
        default: Any = one.default
        if one.default_factory is not dataclasses.MISSING:
            default = one.default_factory()
        required = default is dataclasses.MISSING
        if isinstance(default, float) and math.isinf(default):
            default = "inf" if default > 0 else "-inf"
        arguments.append(
            {
                "name": one.name,
                "type": _type(hints[one.name]),
                "required": required,
                "default": None if required else default,
                "meaning": meanings.get(one.name, ""),
            }
        )
    text = inspect.getdoc(kind) or ""
    return {
        "name": kind.name,
        "kind": kind.kind,
        "summary": " ".join(text.split("\n\n")[0].split()),
        "description": text,
        "version": kind.version,
        "arguments": arguments,
    }


def _type(hint: Any) -> str:
    return re.sub(r"\b(?:typing|collections\.abc|pathlib)\.", "", _name(hint))


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def _meanings(kind: type) -> dict[str, str]:
    """What stands under each field in the source, a subclass's own words first."""
    found: dict[str, str] = {}
    for cls in reversed(kind.__mro__):
        if dataclasses.is_dataclass(cls):
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
            assert isinstance(tree, ast.ClassDef)
            for one, following in itertools.pairwise(tree.body):
                if (
                    isinstance(one, ast.AnnAssign)
                    and isinstance(one.target, ast.Name)
                    and isinstance(following, ast.Expr)
                    and isinstance(following.value, ast.Constant)
                ):
                    found[one.target.id] = " ".join(str(following.value.value).split())
    return found
