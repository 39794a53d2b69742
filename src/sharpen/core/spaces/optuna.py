"""Search spaces from and to Optuna's distributions, as its JSON texts; Optuna is not needed.

``optuna.distributions.distribution_to_json`` and ``json_to_distribution`` are the other half. An
Ordinal, defaults, weights, conditions and forbidden combinations have no place there. A choice
between false and true reads as a Bool, a single value as a Fixed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sharpen.core.errors import ConfigError, SpaceError
from sharpen.core.parameters import Bool, Categorical, Fixed, Float, Int, Parameter
from sharpen.core.space import Space
from sharpen.core.spaces.limits import refuse, said

__all__ = ["from_optuna", "parameter_from_optuna", "to_optuna"]


def from_optuna(distributions: Mapping[str, str | Mapping[str, Any]]) -> Space:
    """The space of distributions by name.

    Args:
        distributions: each as JSON text, or what that text holds.

    Raises:
        ConfigError: a distribution that no parameter is.

    Examples:
        >>> text = '{"name": "IntDistribution", "attributes": {"low": 1, "high": 8, "log": false}}'
        >>> from_optuna({"depth": text})["depth"]
        Int(low=1, high=8, log=False, step=1)
    """
    return Space(
        {
            name: parameter_from_optuna(name, json.loads(d) if isinstance(d, str) else d)
            for name, d in distributions.items()
        }
    )


def parameter_from_optuna(name: str, distribution: Mapping[str, Any]) -> Parameter:
    """One parameter.

    Args:
        name: its name, for messages.
        distribution: ``name`` and ``attributes``.

    Raises:
        ConfigError: a distribution that no parameter is.
    """
    kind, options = distribution["name"], distribution["attributes"]
    if kind == "CategoricalDistribution":
        choices = options["choices"]
        if None in choices:
            raise ConfigError(f"'{name}' has the choice None; give it a word instead.")
        if len(choices) == 1:
            return Fixed(choices[0])
        # 0 == False, but it is another choice.
        is_bool = [*map(repr, choices)] == ["False", "True"]
        return Bool() if is_bool else Categorical(*choices)
    if kind not in ("FloatDistribution", "IntDistribution"):
        raise ConfigError(f"'{name}' has the distribution {kind}, which is not known.")
    low, high, log = options["low"], options["high"], bool(options.get("log"))
    if low == high:
        return Fixed(low)
    step = options.get("step")
    if kind == "FloatDistribution":
        return Float(low, high, log=log, step=step)
    return Int(low, high, log=log, step=1 if log else step or 1)


def to_optuna(space: Space) -> dict[str, str]:
    """Distributions by name, as JSON texts.

    Raises:
        SpaceError: the space has something that Optuna's distributions cannot say.

    Examples:
        >>> to_optuna(Space(lr=Float(0.001, 1, log=True)))["lr"]
        '{"name": "FloatDistribution", "attributes": {"low": 0.001, "high": 1.0, "log": true, \
"step": null}}'
    """
    problems = [f"the forbidden clause {clause}" for clause in space.forbidden]
    found: dict[str, str] = {}
    for name, parameter in space.items():
        lost = said(parameter, "default", "description", "unit", "weights", "active_if")
        problems += [f"{key} of '{name}'" for key in lost]
        try:
            kind, attributes = _distribution(parameter)
        except SpaceError as error:
            problems.append(f"'{name}' ({error})")
            continue
        found[name] = json.dumps({"name": kind, "attributes": attributes})
    refuse("Optuna's distributions", problems)
    return found


def _distribution(parameter: Parameter) -> tuple[str, dict[str, Any]]:
    """Name and attributes."""
    if isinstance(parameter, Float | Int):
        kind = "FloatDistribution" if isinstance(parameter, Float) else "IntDistribution"
        keys = ("low", "high", "log", "step")
        return kind, {key: getattr(parameter, key) for key in keys}
    if not isinstance(parameter, Bool | Fixed | Categorical):
        raise SpaceError(f"a {type(parameter).__name__}")
    choices = [False, True] if isinstance(parameter, Bool) else parameter.values_on_grid(1)
    if any(isinstance(choice, tuple) for choice in choices):
        raise SpaceError("a choice that is a tuple")
    return "CategoricalDistribution", {"choices": choices}
