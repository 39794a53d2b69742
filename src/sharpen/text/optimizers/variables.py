"""What an optimizer may change, whether it holds live parameters or searches a space alone."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.core.parameters import Bool, Float, Int
from sharpen.core.parameters import Parameter as SpaceParameter
from sharpen.core.space import Space
from sharpen.core.text_parameter import Text
from sharpen.text.coerce import KINDS, Kind, coerce
from sharpen.text.listing import name_parameters
from sharpen.text.parameter import Parameter

__all__ = ["Variable", "named", "space_of", "variables_of", "variables_of_space"]

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+|\.(?=\.)|^\.+|\.+$")
_NUMERIC: dict[type[SpaceParameter], Kind] = {Float: "float", Int: "int", Bool: "bool"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One of the things to change."""

    name: str
    """Its name in configurations and in what models read."""

    kind: Kind
    """Of its values."""

    role: str = ""
    """What it is for, in words."""

    constraint: str = ""
    """What must hold of it, in words."""

    holder: Parameter | SpaceParameter
    """What holds it."""

    def validated(self, value: Any) -> Any:
        """A value, read by its kind, as it would be held.

        Raises:
            ConfigError: it is refused, with the reason.
        """
        if isinstance(self.holder, Parameter):
            return self.holder.validated(value)
        try:
            return self.holder.check(coerce(value, self.kind))
        except ConfigError as error:
            raise ConfigError(f"parameter '{self.name}' {error}") from None


def named(parameters: Sequence[Parameter]) -> dict[str, Parameter]:
    """Parameters by their own names, as a space can hold them; repeated names get a number."""
    found: dict[str, Parameter] = {}
    names = name_parameters(parameters)
    for parameter in parameters:
        name = _NOT_IN_NAMES.sub("_", names[parameter.id]) or "parameter"
        name = name if name[0].isalpha() or name[0] == "_" else f"_{name}"
        free, k = name, 1
        while free in found:
            free, k = f"{name}_{k}", k + 1
        found[free] = parameter
    return found


def variables_of(parameters: Mapping[str, Parameter]) -> dict[str, Variable]:
    """By name, the variables that parameters are."""
    return {
        name: Variable(
            name=name,
            kind=parameter.kind,
            role=parameter.role,
            constraint=parameter.constraint or "",
            holder=parameter,
        )
        for name, parameter in parameters.items()
    }


def space_of(parameters: Mapping[str, Parameter]) -> Space:
    """The space of parameters by name; each starts at its value now."""
    return Space({name: _of_parameter(parameter) for name, parameter in parameters.items()})


def variables_of_space(space: Space) -> dict[str, Variable]:
    """By name, the variables of a space."""
    return {name: _of_space(name, parameter) for name, parameter in space.items()}


def _of_parameter(parameter: Parameter) -> SpaceParameter:
    value = parameter._value
    if parameter.space is not None:
        made = copy.copy(parameter.space)
        object.__setattr__(made, "default", value)
        return made
    if parameter.kind == "bool":
        return Bool(default=value)
    return Text(
        default=value,
        kind="json" if parameter.kind == "choice" else parameter.kind,
        constraint=parameter.constraint or "",
        description=parameter.role,
        rule=parameter.check,
    )


def _of_space(name: str, parameter: SpaceParameter) -> Variable:
    kind: Kind = _NUMERIC.get(type(parameter), "choice")
    constraint = ""
    if isinstance(parameter, Text):
        kind = parameter.kind if parameter.kind in KINDS else "text"  # type: ignore[assignment]
        constraint = parameter.constraint
    elif kind != "bool":
        data = parameter.to_dict()
        for key in ("type", "default", "description", "unit"):
            data.pop(key, None)
        constraint = ", ".join(f"{key}: {value}" for key, value in data.items())

    return Variable(
        name=name,
        kind=kind,
        role=parameter.description,
        constraint=constraint,
        holder=parameter,
    )
