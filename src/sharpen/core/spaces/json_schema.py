"""Search spaces from and to JSON Schema, draft 2020-12: a schema of the valid configurations.

Editors, form builders and models with structured output take such a schema. What bears on the
search alone (logarithms, weights, units, the order of an Ordinal) is in annotations named
``x-sharpen``, which validators ignore. Conditions and forbidden combinations are part of the
schema, where they compare parameters with constants::

    active if c      if: c', then: required [name], else: not required [name]
    forbidden c      not: c'
    c'               the parameter is there (required), and its value is in what the check allows
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sharpen.core.collections import Permutation, Subset
from sharpen.core.conditions import Check, Checks, P, checks_of
from sharpen.core.config import Marks
from sharpen.core.errors import SpaceError
from sharpen.core.parameter_base import plain
from sharpen.core.parameter_file import read_parameter
from sharpen.core.parameters import Bool, Fixed, Float, Int, Parameter
from sharpen.core.space import Space
from sharpen.core.spaces.limits import refuse

__all__ = ["from_json_schema", "to_json_schema"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NOTE = "x-sharpen"
_MOST_LISTED = 1000
_BOUNDS = {"<": "exclusiveMaximum", "<=": "maximum", ">": "exclusiveMinimum", ">=": "minimum"}


# -- writing ------------------------------------------------------------------------------------


def to_json_schema(space: Space, *, annotations: bool = True) -> dict[str, Any]:
    """A schema whose valid objects are the space's configurations.

    Args:
        space: a space.
        annotations: whether ``x-sharpen`` says what only the search needs to know; without them
            :func:`from_json_schema` reads a space with the same configurations but, for example,
            no logarithms.

    Raises:
        SpaceError: the space has something that a schema cannot say.

    Examples:
        >>> to_json_schema(Space(depth=Int(1, 8)), annotations=False)["properties"]
        {'depth': {'type': 'integer', 'minimum': 1, 'maximum': 8}}
    """
    problems: list[str] = []
    properties: dict[str, Any] = {}
    rules: list[dict[str, Any]] = []
    required: list[str] = []
    for name, parameter in space.items():
        try:
            properties[name] = _property(parameter)
        except SpaceError as error:
            problems.append(f"the step of '{name}': {error}")
            continue
        if annotations:
            properties[name][_NOTE] = parameter.to_dict()
        if parameter.condition is None:
            required.append(name)
            continue
        try:
            rules.append(
                {
                    "if": _rule(checks_of(parameter.condition)),
                    "then": {"required": [name]},
                    "else": {"not": {"required": [name]}},
                }
            )
        except SpaceError as error:
            problems.append(f"the condition of '{name}': {error}")
    for clause in space.forbidden:
        try:
            rules.append({"not": _rule(checks_of(clause))})
        except SpaceError as error:
            problems.append(f"the forbidden clause: {error}")
    refuse("JSON Schema", problems)
    schema: dict[str, Any] = {"$schema": _DIALECT, "type": "object", "properties": properties}
    schema |= {"required": required, "additionalProperties": False}
    if rules:
        schema["allOf"] = rules
    if annotations and space.forbidden:
        schema[_NOTE] = {"forbidden": [str(clause) for clause in space.forbidden]}
    return schema


def _property(parameter: Parameter) -> dict[str, Any]:
    """The schema of a value."""
    found: dict[str, Any] = {}
    has_step = "step" in parameter.options()
    if isinstance(parameter, Int) and has_step and not parameter.low % parameter.step:
        found |= {"type": "integer", "minimum": parameter.low, "maximum": parameter.high}
        found["multipleOf"] = parameter.step
    elif isinstance(parameter, Float | Int) and has_step:
        # multipleOf counts from 0, and validators round: 0.3 is no multiple of 0.1 to many.
        if parameter.cardinality > _MOST_LISTED:
            raise SpaceError(f"{parameter.cardinality:,.0f} values are too many to list.")
        found["enum"] = parameter.values_on_grid(_MOST_LISTED)
    elif isinstance(parameter, Float | Int):
        found["type"] = "integer" if isinstance(parameter, Int) else "number"
        found |= {"minimum": parameter.low, "maximum": parameter.high}
    elif isinstance(parameter, Bool):
        found["type"] = "boolean"
    elif isinstance(parameter, Fixed):
        found["const"] = plain(parameter.value)
    elif isinstance(parameter, Permutation | Subset):
        least, most = parameter.width, parameter.width
        if isinstance(parameter, Subset):
            least, most = parameter.min, most if parameter.max is None else parameter.max
        items = {"enum": parameter.options()["items"]}
        found |= {"type": "array", "items": items, "uniqueItems": True}
        found |= {"minItems": least, "maxItems": most}
    else:  # one of a list
        found["enum"] = [plain(value) for value in parameter.values_on_grid(1)]
    if parameter.default is not None:
        found["default"] = plain(parameter.default)
    if parameter.description:
        found["description"] = parameter.description
    return found


def _rule(checks: Check | Checks) -> dict[str, Any]:
    """A schema that an object meets where the checks are true, and only there."""
    if isinstance(checks, Checks):
        word = "allOf" if checks.op == "and" else "anyOf"
        return {word: [_rule(part) for part in checks.parts]}
    name, op, value = checks.name, checks.op, checks.value
    if isinstance(value, P):
        raise SpaceError(f"'{name}' {op} {value} compares two parameters.")
    if op in _BOUNDS:
        test = {_BOUNDS[op]: value}
    elif op in ("==", "!="):
        test = {"const": plain(value)}
    else:
        test = {"enum": [plain(v) for v in value]}
    if op in ("!=", "not in"):
        test = {"not": test}
    return {"properties": {name: test}, "required": [name]}


# -- reading ------------------------------------------------------------------------------------


def from_json_schema(schema: Mapping[str, Any]) -> Space:
    """The space of a schema of flat objects.

    Args:
        schema: of an object. Where :func:`to_json_schema` wrote it, the space is the same as was
            written. Properties of other schemas may have ``type`` (integer or number with both
            bounds, boolean), ``multipleOf``, ``enum``, ``const``, ``default``, ``description``;
            the order of an ``enum`` means nothing.

    Raises:
        SpaceError: anything else in it, or ``x-sharpen`` and the schema around it say different
            things.
    """
    if schema.get("type") != "object" or not schema.get("properties"):
        raise SpaceError("a space is a JSON Schema of type 'object' with properties.")
    parameters: dict[str, Parameter] = {}
    for name, given in schema["properties"].items():
        data = given.get(_NOTE) or _read_property(name, given)
        parameters[name] = read_parameter(data, (name,), Marks())
    space = Space(parameters).forbid(*schema.get(_NOTE, {}).get("forbidden", ()))
    has_notes = any(_NOTE in given for given in schema["properties"].values())
    written = to_json_schema(space, annotations=has_notes)
    # A schema may require less than a space, and say what it is for; nothing else may differ.
    free = {"required", "additionalProperties", "$schema", "$id", "title", "description"}
    differ = [f"'{n}'" for n, p in written["properties"].items() if p != schema["properties"][n]]
    differ += [
        key
        for key in sorted((schema.keys() | written.keys()) - {"properties"})
        if (has_notes or key not in free) and schema.get(key) != written.get(key)
    ]
    if differ:
        raise SpaceError(
            f"the JSON Schema has something at {', '.join(differ)} that is no part of a space"
            + (f", or {_NOTE} says something else than the schema around it." * has_notes or ".")
        )
    return space


def _read_property(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter as plain data; what it does not read shows when it is written again."""
    data = {key: given[key] for key in ("default", "description") if key in given}
    kind = given.get("type")
    if "const" in given:
        return {"type": "fixed", "value": given["const"], **data}
    if "enum" in given and len(given["enum"]) == 1:
        raise SpaceError(f"'{name}' has an enum of one value (JSON Schema). Write const.")
    if "enum" in given:
        return {"type": "categorical", "choices": given["enum"], **data}
    if kind == "boolean":
        return {"type": "bool", **data}
    if kind in ("integer", "number") and {"minimum", "maximum"} <= given.keys():
        data |= {"low": given["minimum"], "high": given["maximum"]}
        if "multipleOf" in given:
            data["step"] = given["multipleOf"]
        return {"type": "int" if kind == "integer" else "float", **data}
    raise SpaceError(
        f"'{name}' is {dict(given)} (JSON Schema). A parameter is an integer or number with "
        "minimum and maximum, a boolean, an enum or a const."
    )
