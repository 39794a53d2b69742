"""What tokens cost, by a file of the user's: prices change, so none are built in.

::

    # prices.yaml: money for a million tokens
    my-model: {prompt: 0.15, completion: 0.60, cached: 0.075}

The cost of a model that is not listed is unknown, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.core.config import from_dict, load_yaml
from sharpen.core.errors import ConfigError
from sharpen.core.lm.messages import Usage

__all__ = ["Price", "Prices"]

_MILLION = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Of one model's tokens, for a million."""

    prompt: float
    """Tokens of the messages."""

    completion: float
    """Tokens of the replies."""

    cached: float | None = None
    """Tokens of the messages that the server had at hand; None is the price of the others."""

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("prompt", "completion", "cached"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"{name}={value} must be a price, at least 0.")

    def of(self, usage: Usage) -> float:
        """What a call costs."""
        cached = self.prompt if self.cached is None else self.cached
        fresh = max(0, usage.prompt - usage.cached)
        paid = fresh * self.prompt + usage.cached * cached + usage.completion * self.completion
        return paid / _MILLION

    def bound(self, prompt: int, completion: int) -> float:
        """The most that a call of so many tokens costs."""
        dearest = max(self.prompt, self.cached or 0.0)
        return (prompt * dearest + completion * self.completion) / _MILLION


class Prices:
    """Prices by the name of the model.

    Args:
        prices: a file of YAML or JSON, or the same as plain data.

    Raises:
        MissingFileError: there is no such file.
        ConfigError: an entry is no price.
    """

    def __init__(self, prices: str | Path | Mapping[str, Any]) -> None:
        if isinstance(prices, Mapping):
            data, marks = dict(prices), None
        else:
            document = load_yaml(prices)
            data, marks = document.data, document.marks
            if not isinstance(data, dict):
                raise ConfigError(f"{prices} must map the names of models to prices.")
        self._prices = {
            str(name): one
            if isinstance(one, Price)
            else from_dict(Price, one, path=(name,), marks=marks)
            for name, one in data.items()
        }

    def find(self, model: str) -> Price | None:
        """A model's price, None where it is not listed."""
        return self._prices.get(model)
