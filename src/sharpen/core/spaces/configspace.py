"""Search spaces from and to the JSON of ConfigSpace, format 0.4; ConfigSpace is not needed.

``ConfigurationSpace.to_json`` and ``from_json`` are the other half. A step, a Permutation, a Subset
and arithmetic have no place there. There every parameter has a default; one that is what a
parameter without a default has anyway is not kept when reading. A choice between false and true
reads as a Bool. Description and unit are in ``meta``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from sharpen.core.conditions import (
    Check,
    Checks,
    Condition,
    Eq,
    Gt,
    In,
    Lt,
    Ne,
    P,
    checks_of,
    parse_condition,
)
from sharpen.core.config import Marks
from sharpen.core.errors import SpaceError
from sharpen.core.parameter_base import plain
from sharpen.core.parameter_file import read_parameter
from sharpen.core.parameters import Bool, Categorical, Fixed, Float, Int, Ordinal, Parameter
from sharpen.core.space import Space
from sharpen.core.spaces.limits import refuse

__all__ = ["from_configspace", "to_configspace"]

_VERSION = 0.4
_META = ("description", "unit")
_SIDES = {"LT": "<", "LE": "<=", "EQ": "==", "GT": ">", "GE": ">="}
_COMPARE = {"EQ": Eq, "NEQ": Ne, "LT": Lt, "GT": Gt}


# -- reading ------------------------------------------------------------------------------------


def from_configspace(data: Mapping[str, Any]) -> Space:
    """The space of a ConfigSpace document.

    Args:
        data: what ``ConfigurationSpace.to_json`` writes, as plain data.

    Raises:
        SpaceError: another format, or something in it that no space here can say, such as a
            normal distribution.
    """
    if data.get("format_version") != _VERSION:
        raise SpaceError(
            f"this reads ConfigSpace's format {_VERSION}, got {data.get('format_version')!r}. "
            "Write the file again with ConfigSpace 1.x."
        )
    parameters = {item["name"]: _read_parameter(item) for item in data["hyperparameters"]}
    for item in data.get("conditions", ()):
        child, condition = item["child"], _read_condition(item)
        if child not in parameters:
            raise SpaceError(f"a condition is on '{child}', which is no parameter (ConfigSpace).")
        known = parameters[child].condition
        condition = condition if known is None else known & condition
        parameters[child] = parameters[child].active_if(condition)
    return Space(parameters).forbid(*map(_read_forbidden, data.get("forbiddens", ())))


def _read_parameter(item: Mapping[str, Any]) -> Parameter:
    kind, name, meta = item.get("type"), item["name"], item.get("meta") or {}
    unknown = [key for key in meta if key not in _META]
    if unknown:
        raise SpaceError(f"'{name}' has meta {unknown}; only {list(_META)} have a place here.")
    given: dict[str, Any] = {key: meta[key] for key in _META if key in meta}
    if kind in ("uniform_float", "uniform_int"):
        given |= {"type": str(kind).removeprefix("uniform_"), "log": bool(item.get("log"))}
        given |= {"low": item["lower"], "high": item["upper"]}
    elif kind == "ordinal":
        given |= {"type": "ordinal", "values": item["sequence"]}
    elif kind == "constant":
        given |= {"type": "fixed", "value": item["value"]}
    elif kind == "categorical" and len(item["choices"]) == 1:
        given |= {"type": "fixed", "value": item["choices"][0]}
    elif kind == "categorical" and item.get("weights"):
        given |= {"type": "categorical", "choices": item["choices"], "weights": item["weights"]}
    elif kind == "categorical":
        is_bool = [*map(repr, item["choices"])] == ["False", "True"]  # 0 == False, but not here
        given |= {"type": "bool"} if is_bool else {"type": kind, "choices": item["choices"]}
    else:
        raise SpaceError(f"'{name}' is of the type {kind!r} (ConfigSpace), which is no parameter.")
    plainly, default = read_parameter(given, (name,), Marks()), item.get("default_value")
    if default is None or _is_same(default, plainly.default_value()):
        return plainly
    return read_parameter({**given, "default": default}, (name,), Marks())


def _is_same(default: Any, own: Any) -> bool:
    """Equal, but for the rounding of a logarithm's middle."""
    if isinstance(own, float):
        return math.isclose(default, own, rel_tol=1e-12)
    return bool(default == own) and isinstance(default, bool) == isinstance(own, bool)


def _read_condition(item: Mapping[str, Any]) -> Condition:
    kind = item.get("type")
    if kind in ("AND", "OR"):
        return _joined(kind, [_read_condition(part) for part in item["conditions"]])
    if kind == "IN":
        return In(item["parent"], item["values"])
    if kind in _COMPARE:
        return _COMPARE[kind](item["parent"], item["value"])
    raise SpaceError(f"a condition of the type {kind!r} (ConfigSpace) is not known.")


def _read_forbidden(item: Mapping[str, Any]) -> Condition:
    kind = str(item.get("type"))
    if kind in ("AND", "OR"):
        return _joined(kind, [_read_forbidden(part) for part in item["clauses"]])
    if kind == "EQUALS":
        return Eq(item["name"], item["value"])
    if kind == "IN":
        return In(item["name"], item["values"])
    group, _, side = kind.partition("_")
    if kind == "RELATION":  # as versions before 1.2 wrote it
        group, side = kind, str(item.get("lambda"))
    if side in _SIDES and group == "CLAUSE":
        return parse_condition(f"{P(item['name'])} {_SIDES[side]} {item['value']!r}")
    if side in _SIDES and group == "RELATION":
        return parse_condition(f"{P(item['left'])} {_SIDES[side]} {P(item['right'])}")
    raise SpaceError(f"a forbidden clause of the type {kind!r} (ConfigSpace) is not known.")


def _joined(kind: str, parts: list[Condition]) -> Condition:
    joined = parts[0]
    for part in parts[1:]:
        joined = joined & part if kind == "AND" else joined | part
    return joined


# -- writing ------------------------------------------------------------------------------------


def to_configspace(space: Space, *, name: str | None = None) -> dict[str, Any]:
    """A document that ``ConfigurationSpace.from_json`` reads, as plain data.

    Args:
        space: a space.
        name: the document's name for it.

    Raises:
        SpaceError: the space has something that ConfigSpace cannot say.
    """
    problems: list[str] = []
    rows, conditions, forbidden = [], [], []
    for key, parameter in space.items():
        kind, options = _options(parameter)
        if not kind:
            problems.append(f"'{key}', {options['what']}")
        meta = {k: getattr(parameter, k) for k in _META if getattr(parameter, k)}
        rows.append({"type": kind, "name": key, **options, "meta": meta or None})
        if parameter.condition is not None:
            try:
                checks = checks_of(parameter.condition)
                conditions.append(_condition(checks, key))
            except SpaceError as error:
                problems.append(f"the condition of '{key}': {error}")
    for clause in space.forbidden:
        try:
            forbidden.append(_clause(checks_of(clause), space))
        except SpaceError as error:
            problems.append(f"the forbidden clause: {error}")
    refuse("ConfigSpace", problems)
    return {
        "name": name,
        "hyperparameters": rows,
        "conditions": conditions,
        "forbiddens": forbidden,
        "python_module_version": "1.2.0",
        "format_version": _VERSION,
    }


def _options(parameter: Parameter) -> tuple[str, dict[str, Any]]:
    """Type and arguments; for what has no type, what it is."""
    default = {"default_value": parameter.default_value()}
    if isinstance(parameter, Bool):
        return "categorical", {"choices": [False, True], "weights": None, **default}
    if isinstance(parameter, Fixed) and not isinstance(parameter.value, tuple):
        return "constant", {"value": parameter.value}
    if isinstance(parameter, Float | Int) and "step" not in parameter.options():
        kind = "uniform_float" if isinstance(parameter, Float) else "uniform_int"
        ends = {"lower": parameter.low, "upper": parameter.high, "log": parameter.log}
        return kind, ends | default
    if isinstance(parameter, Ordinal | Categorical):
        values = parameter.values_on_grid(1)
        if any(isinstance(value, tuple) for value in values):
            return "", {"what": "whose choices are tuples"}
        if isinstance(parameter, Ordinal):
            return "ordinal", {"sequence": values, **default}
        weights = None if parameter.weights is None else list(parameter.weights)
        return "categorical", {"choices": values, "weights": weights, **default}
    step = "step" in parameter.options()
    what = f"the step of a {type(parameter).__name__}" if step else f"a {type(parameter).__name__}"
    return "", {"what": what}


def _condition(checks: Check | Checks, child: str) -> dict[str, Any]:
    if isinstance(checks, Checks):
        kind = checks.op.upper()
        conditions: list[dict[str, Any]] = []
        for part in checks.parts:  # "not in" becomes several, which join those around it
            written = _condition(part, child)
            conditions += written["conditions"] if written["type"] == kind else [written]
        if len(conditions) == 1:
            return conditions[0]
        return {"type": kind, "child": child, "conditions": conditions}
    names = {"==": "EQ", "!=": "NEQ", "<": "LT", ">": "GT", "in": "IN"}
    if checks.op == "not in":
        parts = tuple(Check(checks.name, "!=", value) for value in checks.value)
        return _condition(Checks("and", parts), child)
    if checks.op not in names or isinstance(checks.value, P):
        raise SpaceError(f"'{checks.name}' {checks.op} {checks.value}")
    given = {"type": names[checks.op], "child": child, "parent": checks.name}
    values = [plain(v) for v in checks.value] if checks.op == "in" else plain(checks.value)
    return {**given, "values" if checks.op == "in" else "value": values}


def _clause(checks: Check | Checks, space: Space) -> dict[str, Any]:
    if isinstance(checks, Checks):
        clauses = [_clause(part, space) for part in checks.parts]
        return {"type": checks.op.upper(), "clauses": clauses}
    name, op, value = checks.name, checks.op, checks.value
    sides = {side: code for code, side in _SIDES.items()}
    if isinstance(value, P):
        if op == "!=":
            raise SpaceError(f"'{name}' {op} {value}")
        return {"type": f"RELATION_{sides[op]}", "left": name, "right": value.name}
    if op == "==":
        return {"type": "EQUALS", "name": name, "value": plain(value)}
    if op in ("!=", "not in"):
        left_out = (value,) if op == "!=" else value
        return {"type": "IN", "name": name, "values": [*_others(space[name], name, left_out)]}
    if op == "in":
        return {"type": "IN", "name": name, "values": [plain(v) for v in value]}
    return {"type": f"CLAUSE_{sides[op]}", "name": name, "value": value}


def _others(parameter: Parameter, name: str, left_out: tuple[Any, ...]) -> Iterator[Any]:
    """Every other value of a parameter that has few."""
    if math.isinf(parameter.cardinality) or parameter.cardinality > 1000:
        raise SpaceError(f"every value of '{name}' but {left_out}")
    for value in parameter.values_on_grid(1000):
        if value not in left_out:
            yield value
