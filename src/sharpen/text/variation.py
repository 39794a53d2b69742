"""Configurations of a space of words and numbers near others, and between two.

::

    neighbor    one variable changed: a text by an edit of sentences, code by one mutation, the rest
                by a step of the search core
    crossover   each variable from one of two parents; of two texts the first sentences of one and
                the last of the other

What breaks a rule of its variable or of the space is not given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sharpen.core.errors import ConfigError, DataError
from sharpen.core.neighbors import moved
from sharpen.core.parameters import Parameter
from sharpen.core.space import Space
from sharpen.core.text_parameter import Text
from sharpen.text.edits import EDITS, edited, sentences
from sharpen.text.mutations import mutants

__all__ = ["crossover", "neighbors"]

_TRIES = 50

Config = dict[str, Any]


def neighbors(
    space: Space,
    config: Mapping[str, Any],
    k: int = 1,
    *,
    phrases: Sequence[str] = (),
    scale: float = 0.1,
    seed: int = 0,
) -> list[Config]:
    """Valid configurations with one variable changed, all different; fewer where few are found.

    Args:
        space: of the configuration.
        config: a valid one.
        k: how many.
        phrases: sentences that may be put into texts.
        scale: of a step along a range, as a part of it.
        seed: of the random numbers.

    Raises:
        ConfigError: the configuration is wrong.

    Examples:
        >>> space = Space(rule=Text(default="One. Two."))
        >>> neighbors(space, {"rule": "One. Two."}, 9)
        [{'rule': 'Two. One.'}, {'rule': 'Two.'}, {'rule': 'One.'}]
    """
    config = space.validate(config)
    rng = np.random.default_rng(seed)
    found: dict[str, Config] = {space.canonical(config): config}
    names = [name for name in config if space[name].cardinality > 1]
    for _ in range(_TRIES * k if names else 0):
        if len(found) > k:
            break
        name = names[int(rng.integers(len(names)))]
        value = _changed(space[name], config[name], phrases, scale, rng)
        _add(space, {**config, name: value}, found)
    return list(found.values())[1 : k + 1]


def crossover(
    space: Space, first: Mapping[str, Any], second: Mapping[str, Any], *, seed: int = 0
) -> Config:
    """A valid configuration between two; the first where the rules forbid all that were tried.

    Args:
        space: of both.
        first: a valid configuration.
        second: another one.
        seed: of the random numbers.

    Raises:
        ConfigError: a configuration is wrong.
    """
    first, second = space.validate(first), space.validate(second)
    rng = np.random.default_rng(seed)
    for _ in range(_TRIES):
        child: Config = {}
        for name, parameter in space.items():
            values = [parent[name] for parent in (first, second) if name in parent]
            if len(values) == 2 and isinstance(parameter, Text) and parameter.kind == "text":
                child[name] = _joined(values[0], values[1], rng)
            elif values:
                child[name] = values[int(rng.integers(len(values)))]
        found: dict[str, Config] = {}
        _add(space, child, found)
        if found:
            return next(iter(found.values()))
    return first


def _changed(
    parameter: Parameter, value: Any, phrases: Sequence[str], scale: float, rng: np.random.Generator
) -> Any:
    if not isinstance(parameter, Text):
        u = moved(parameter, rng, np.array(parameter.encode(value)), scale)
        return parameter.decode(u)
    if parameter.kind == "code":
        try:
            found = mutants(value)
        except DataError:
            return value
        return found[int(rng.integers(len(found)))].source if found else value
    if parameter.kind == "text":
        edit = list(EDITS)[int(rng.integers(len(EDITS)))]
        text = edited(value, edit, phrases, rng)
        return value if text is None else text
    return value  # free data has no neighbours


def _joined(first: str, second: str, rng: np.random.Generator) -> str:
    """The first sentences of a text and the last of another, neither cut to nothing."""
    head, tail = sentences(first), sentences(second)
    if rng.random() < 0.5:
        head, tail = tail, head
    cut = int(rng.integers(1, len(head) + 1)) if head else 0
    return " ".join([*head[:cut], *(part for part in tail[cut:] if part not in head[:cut])])


def _add(space: Space, config: Config, found: dict[str, Config]) -> None:
    """Keep a configuration, made whole, if it is valid."""
    defaults = {name: p.default_value() for name, p in space.items()}
    try:
        whole = space.validate(space.active({**defaults, **config}))
    except ConfigError:
        return
    found.setdefault(space.canonical(whole), whole)
