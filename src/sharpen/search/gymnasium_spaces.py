"""Search spaces from and to gymnasium's, for settings that an environment takes as an action.

::

    Box, real numbers        Float, one for each element       low and high must be finite
    Box, integers            Int
    Discrete(n, start)       Categorical of start .. start + n - 1; Fixed where n is 1
    MultiDiscrete            a Categorical for each element
    MultiBinary              a Bool for each element
    Dict, Tuple              the spaces in it, with their keys or places and dots as names

An element's name is the space's with its indices after dots; a space of one element has the name
alone. Discrete numbers have no order in gymnasium. Text, graphs and sequences are no parameters;
logarithms, steps, words, defaults, conditions and forbidden combinations have no place there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from sharpen.core.errors import SpaceError
from sharpen.core.parameters import Bool, Categorical, Fixed, Float, Int, Parameter
from sharpen.core.space import Space
from sharpen.core.spaces.limits import refuse, said

__all__ = ["space_from_gymnasium", "space_to_gymnasium"]


def space_from_gymnasium(space: gymnasium.Space[Any], name: str = "action") -> Space:
    """The search space of a gymnasium space.

    Args:
        space: a space of boxes, discrete numbers and binaries, in dictionaries and tuples.
        name: of what is in no dictionary.

    Raises:
        SpaceError: a kind of space that has no parameters, or a bound that is infinite.

    Examples:
        >>> list(space_from_gymnasium(spaces.Box(-1, 1, (2,))))
        ['action.0', 'action.1']
    """
    return Space(dict(_parameters(space, "" if isinstance(space, spaces.Dict) else name)))


def _parameters(space: gymnasium.Space[Any], name: str) -> Iterator[tuple[str, Parameter]]:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.items() if isinstance(space, spaces.Dict) else enumerate(space)
        for key, part in parts:
            yield from _parameters(part, f"{name}.{key}" if name else str(key))
    elif isinstance(space, spaces.Box):
        is_real = np.issubdtype(space.dtype, np.floating)
        for suffix, index in _elements(space.shape):
            low, high = space.low[index].item(), space.high[index].item()
            if low == high:
                yield name + suffix, Fixed(low)
                continue
            try:
                yield name + suffix, Float(low, high) if is_real else Int(low, high)
            except SpaceError as error:
                raise SpaceError(f"'{name}{suffix}' of a Box (gymnasium): {error}") from None
    elif isinstance(space, spaces.Discrete):
        yield name, _numbers(int(space.n), int(space.start))
    elif isinstance(space, spaces.MultiDiscrete):
        for suffix, index in _elements(space.nvec.shape):
            yield name + suffix, _numbers(int(space.nvec[index]), int(space.start[index]))
    elif isinstance(space, spaces.MultiBinary):
        for suffix, _ in _elements(space.shape):
            yield name + suffix, Bool()
    else:
        raise SpaceError(
            f"'{name}' is a {type(space).__name__} (gymnasium), which has no parameters. Spaces "
            "are made of Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple."
        )


def _elements(shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What comes after the name, and the index, of each element."""
    for index in np.ndindex(shape):
        is_alone = int(np.prod(shape)) == 1
        yield "" if is_alone else "".join(f".{i}" for i in index), index


def _numbers(n: int, start: int) -> Parameter:
    return Fixed(start) if n == 1 else Categorical(*range(start, start + n))


def space_to_gymnasium(space: Space) -> spaces.Dict:
    """A gymnasium dictionary with a space for each parameter.

    Raises:
        SpaceError: the search space has something that gymnasium's cannot say.
    """
    problems = [f"the forbidden clause {clause}" for clause in space.forbidden]
    found: dict[str, gymnasium.Space[Any]] = {}
    for name, parameter in space.items():
        keys = ("default", "description", "unit", "log", "step", "weights", "active_if")
        problems += [f"{key} of '{name}'" for key in said(parameter, *keys)]
        values = None
        if isinstance(parameter, Fixed | Categorical):
            values = parameter.values_on_grid(1)
        if isinstance(parameter, Float):
            found[name] = spaces.Box(parameter.low, parameter.high, (), np.float64)
        elif isinstance(parameter, Int):
            found[name] = spaces.Box(parameter.low, parameter.high, (), np.int64)
        elif isinstance(parameter, Bool):
            found[name] = spaces.MultiBinary(1)
        elif values is not None and _is_range(values):
            found[name] = spaces.Discrete(len(values), start=values[0])
        else:
            problems.append(f"the values of '{name}', {parameter}")
    refuse("gymnasium", problems)
    return spaces.Dict(found)


def _is_range(values: list[Any]) -> bool:
    """Whether they are whole numbers, one after the other."""
    return all(type(value) is int for value in values) and values == list(
        range(values[0], values[0] + len(values))
    )
