"""What a format cannot say, and what may be dropped because of it."""

from __future__ import annotations

from collections.abc import Iterable

from sharpen.core.errors import SpaceError, did_you_mean
from sharpen.core.parameters import Parameter
from sharpen.core.space import Space

__all__ = ["refuse", "said", "without"]

_MAY_GO = ("default", "description", "log", "unit", "weights")


def without(space: Space, *what: str) -> Space:
    """The same space, with the same configurations, without some of what is said about them.

    Args:
        space: a space.
        what: ``"default"``, ``"description"``, ``"log"``, ``"unit"`` or ``"weights"``.

    Raises:
        SpaceError: anything else, which would change what configurations there are.
    """
    for key in what:
        if key not in _MAY_GO:
            raise SpaceError(
                f"without drops {', '.join(_MAY_GO)}, not {key!r}.{did_you_mean(key, _MAY_GO)}"
            )
    data = space.to_dict()
    for parameter in data["parameters"].values():
        for key in what:
            parameter.pop(key, None)
    return Space.from_dict(data)


def said(parameter: Parameter, *keys: str) -> list[str]:
    """Which of ``keys`` a parameter has anything to say of."""
    data = parameter.to_dict()
    return [key for key in keys if key in data]


def refuse(form: str, problems: Iterable[str]) -> None:
    """Raise an error that lists what a format cannot say, if there is anything.

    Args:
        form: the format.
        problems: such as ``"the log of 'x'"``.

    Raises:
        SpaceError: there is a problem.
    """
    found = list(problems)
    if found:
        raise SpaceError(
            f"{form} cannot say: {'; '.join(found)}. without(space, ...) drops "
            f"{', '.join(_MAY_GO)}; anything else has to be changed in the space."
        )
