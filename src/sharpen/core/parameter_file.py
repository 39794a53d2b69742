"""Reading a parameter of a search space from plain data, as study files write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sharpen.core.collections import Permutation, Subset
from sharpen.core.conditions import parse_condition
from sharpen.core.config import Marks, from_dict
from sharpen.core.errors import ConfigError, SpaceError, did_you_mean
from sharpen.core.parameters import Bool, Categorical, Fixed, Float, Int, Ordinal, Parameter
from sharpen.core.text_parameter import Text

__all__ = ["fail_at", "read_parameter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choices:
    """A categorical as a file writes it."""

    choices: list[Any]
    weights: list[float] | None = None
    default: Any = None
    description: str = ""
    unit: str = ""


_TYPES: dict[str, type] = {
    "float": Float,
    "int": Int,
    "ordinal": Ordinal,
    "categorical": _Choices,
    "bool": Bool,
    "fixed": Fixed,
    "permutation": Permutation,
    "subset": Subset,
    "text": Text,
}


def fail_at(path: tuple[str, ...], marks: Marks, message: str) -> SpaceError:
    """An error that says where in its document ``path`` stands."""
    where = marks.at(path)
    return SpaceError(f"{where + ': ' if where else ''}{message}")


def read_parameter(data: Any, path: tuple[str, ...], marks: Marks) -> Parameter:
    """One parameter as :meth:`~sharpen.core.parameters.Parameter.to_dict` and study files have it.

    Args:
        data: ``type``, its arguments and ``active_if``.
        path: where it stands in its document; the last is its name.
        marks: the document's marks, for ``file:line`` in messages.

    Raises:
        SpaceError: it is wrong, with file and line.
    """
    name = ".".join(path)
    if not isinstance(data, Mapping):
        raise fail_at(
            path, marks, f"{name} must be a mapping such as {{type: float, low: 0, high: 1}}."
        )
    fields = dict(data)
    kind, when = fields.pop("type", None), fields.pop("active_if", None)
    if kind not in _TYPES:
        raise fail_at(
            (*path, "type"),
            marks,
            f"{name}.type must be one of {', '.join(_TYPES)}, got {kind!r}."
            f"{did_you_mean(str(kind), _TYPES)}",
        )
    try:
        built: Any = from_dict(_TYPES[kind], fields, path=path, marks=marks)
        if isinstance(built, _Choices):
            built = Categorical(
                *built.choices,
                weights=built.weights,
                default=built.default,
                description=built.description,
                unit=built.unit,
            )
    except SpaceError as error:
        raise fail_at(path, marks, f"{name}: {error}") from None
    except ConfigError as error:
        raise SpaceError(str(error)) from None
    if when is not None:
        if not isinstance(when, str):
            raise fail_at((*path, "active_if"), marks, f"{name}.active_if must be text.")
        try:
            built = built.active_if(parse_condition(when))
        except SpaceError as error:
            raise fail_at((*path, "active_if"), marks, f"{name}.active_if: {error}") from None
    assert isinstance(built, Parameter)
    return built
