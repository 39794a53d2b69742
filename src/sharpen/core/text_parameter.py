"""Free text as a parameter of a search space: prompts, programs, descriptions.

It has no coordinates, so only optimizers that read and write text can search over it
(``Capabilities.text``); in a vector it does not appear.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, SpaceError
from sharpen.core.parameters import Parameter, Units

__all__ = ["Text"]


@dataclass(frozen=True, slots=True)
class Text(Parameter):
    """A text.

    Raises:
        SpaceError: no default, or one that is no text or too long.

    Examples:
        >>> Text(default="Answer briefly.", max_chars=200).check("Be brief.")
        'Be brief.'
    """

    _: KW_ONLY
    kind: str = "text"
    """What it is: ``text``, ``code`` ...; for those that write it."""

    constraint: str = ""
    """What must hold of it, in words."""

    max_chars: int | None = None
    """Longest value; None is any length."""

    def __post_init__(self) -> None:
        if self.max_chars is not None and self.max_chars < 1:
            raise SpaceError(f"max_chars={self.max_chars} must be at least 1 (Text).")
        if not isinstance(self.default, str):
            raise SpaceError(f"a Text needs a text as default, got {self.default!r:.80}.")
        self._settle_default()

    def check(self, value: Any) -> str:
        """The value.

        Raises:
            ConfigError: it is no text, or too long.
        """
        if not isinstance(value, str):
            raise ConfigError(f"must be text, got {value!r:.80}.")
        if self.max_chars is not None and len(value) > self.max_chars:
            raise ConfigError(f"must have at most {self.max_chars} characters, got {len(value)}.")
        return value

    @property
    def width(self) -> int:
        """None: it has no coordinates."""
        return 0

    def encode(self, value: Any) -> list[float]:
        """Nothing."""
        return []

    def decode(self, u: Units) -> str:
        """The default: no coordinates tell of a text."""
        return str(self.default)

    def snap(self, u: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Nothing, for each point."""
        return u

    @property
    def cardinality(self) -> float:
        """Infinite."""
        return float("inf")

    def options(self) -> dict[str, Any]:
        """Its type and arguments as plain data."""
        data: dict[str, Any] = {"type": "text"}
        if self.kind != "text":
            data["kind"] = self.kind
        if self.constraint:
            data["constraint"] = self.constraint
        if self.max_chars is not None:
            data["max_chars"] = self.max_chars
        return data

    def values_on_grid(self, resolution: int) -> list[Any]:
        """The default alone."""
        return [self.default]

    def default_value(self) -> Any:
        """The default."""
        return self.default
