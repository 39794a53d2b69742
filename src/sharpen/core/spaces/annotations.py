"""Search spaces from and to dataclasses whose fields are annotated with parameters.

::

    @dataclass
    class Training:
        lr: Annotated[float, Float(1e-5, 1e-1, log=True)] = 3e-4
        depth: Annotated[int, Int(1, 8)] = 4
        steps: int = 100  # not searched over

A field's default is its parameter's. A field that is itself such a dataclass brings its parameters
with its name and a dot before theirs. Forbidden combinations have no place in a dataclass.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from sharpen.core.collections import Permutation, Subset
from sharpen.core.config import Marks
from sharpen.core.errors import ConfigError, SpaceError
from sharpen.core.parameter_file import read_parameter
from sharpen.core.parameters import Bool, Fixed, Float, Int, Parameter
from sharpen.core.space import Space
from sharpen.core.spaces.limits import refuse

__all__ = ["from_annotations", "to_annotations"]

_TYPES: dict[type[Parameter], Any] = {
    Float: float,
    Int: int,
    Bool: bool,
    Permutation: tuple[Any, ...],
    Subset: tuple[Any, ...],
}


def from_annotations(cls: type) -> Space:
    """The space of a dataclass's annotated fields.

    Raises:
        SpaceError: no dataclass, no field of it is annotated with a parameter, a field with two,
            or a default that the parameter may not take.

    Examples:
        >>> @dataclasses.dataclass
        ... class Training:
        ...     depth: Annotated[int, Int(1, 8)] = 2
        >>> from_annotations(Training).default()
        {'depth': 2}
    """
    if not dataclasses.is_dataclass(cls):
        raise SpaceError(f"from_annotations takes a dataclass, got {cls!r}.")
    found = _parameters(cls)
    if not found:
        raise SpaceError(
            f"no field of {cls.__name__} is annotated with a parameter. Write, say, "
            "depth: Annotated[int, Int(1, 8)]."
        )
    return Space(found)


def _parameters(cls: type) -> dict[str, Parameter]:
    hints = get_type_hints(cls, include_extras=True)
    found: dict[str, Parameter] = {}
    for field in dataclasses.fields(cls):
        hint, where = hints[field.name], f"{cls.__name__}.{field.name}"
        inner = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        given = [a for a in get_args(hint)[1:] if isinstance(a, Parameter)]
        if get_origin(hint) is not Annotated or not given:
            if isinstance(inner, type) and dataclasses.is_dataclass(inner):
                nested = _parameters(inner)
                new = {name: f"{field.name}.{name}" for name in nested}
                for name, parameter in nested.items():
                    if parameter.condition is not None:
                        parameter = parameter.active_if(parameter.condition.renamed(new))
                    found[new[name]] = parameter
            continue
        if len(given) > 1:
            raise SpaceError(f"{where} is annotated with two parameters.")
        parameter = given[0]
        if field.default is not dataclasses.MISSING:
            parameter = _with_default(parameter, field.default, where)
        found[field.name] = parameter
    return found


def _with_default(parameter: Parameter, default: Any, where: str) -> Parameter:
    """The parameter with a field's default, unless that is its own."""
    try:
        if parameter.check(default) == parameter.default_value():
            return parameter
    except ConfigError as error:
        raise SpaceError(f"the default of {where} {error}") from None
    data = {**parameter.to_dict(), "default": default}
    return read_parameter(data, (where,), Marks())


def to_annotations(space: Space, name: str = "Config") -> type:
    """A frozen dataclass with a field for each parameter, annotated with it.

    A parameter that is not always active has the default of its range like any other.

    Raises:
        SpaceError: a forbidden combination, or a name that is no Python identifier.
    """
    problems = [f"the forbidden clause {clause}" for clause in space.forbidden]
    problems += [f"the name '{key}'" for key in space if not key.isidentifier()]
    refuse("a dataclass", problems)
    fields = []
    for key, parameter in space.items():
        kind = (
            type(parameter.value) if isinstance(parameter, Fixed) else _TYPES.get(type(parameter))
        )
        hint = Annotated[kind or Any, parameter]  # type: ignore[valid-type]
        fields.append((key, hint, dataclasses.field(default=parameter.default_value())))
    return dataclasses.make_dataclass(name, fields, frozen=True)
