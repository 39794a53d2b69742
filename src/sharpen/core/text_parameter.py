"""Free text as a parameter of a search space: prompts, programs, descriptions.

It has no coordinates, so only optimizers that read and write text can search over it
(``Capabilities.text``); in a vector it does not appear. The same holds of plain data and of numbers
without a range, which are free in the same way (``kind``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, SpaceError
from sharpen.core.parameter_base import Parameter, Units

__all__ = ["Text"]


@dataclass(frozen=True, slots=True)
class Text(Parameter):
    """A text, or plain data that has no range.

    Raises:
        SpaceError: no default, or one of another kind or too long.

    Examples:
        >>> Text(default="Answer briefly.", max_chars=200).check("Be brief.")
        'Be brief.'
        >>> Text(default=[1, 2], kind="json").check([3])
        [3]
    """

    _: KW_ONLY
    kind: str = "text"
    """What it is: ``text``, ``code`` ..., for those that write it; or ``json`` (lists, dicts,
    texts, numbers), ``int``, ``float``: any such value."""

    constraint: str = ""
    """What must hold of it, in words."""

    max_chars: int | None = None
    """Longest text; None is any length."""

    rule: Callable[[Any], bool | str | None] | None = field(default=None, repr=False, compare=False)
    """Called with a value; False or words of complaint refuse it. It is not stored with a study."""

    def __post_init__(self) -> None:
        if self.max_chars is not None and self.max_chars < 1:
            raise SpaceError(f"max_chars={self.max_chars} must be at least 1 (Text).")
        if self.kind in _IS_OF_KIND:
            if self.default is None and self.kind != "json":
                raise SpaceError(f"a Text of kind {self.kind} needs a default.")
        elif not isinstance(self.default, str):
            raise SpaceError(f"a Text needs a text as default, got {self.default!r:.80}.")
        self._settle_default()

    def check(self, value: Any) -> Any:
        """The value.

        Raises:
            ConfigError: it is of another kind, too long, or breaks its rule.
        """
        is_of_kind = _IS_OF_KIND.get(self.kind, _is_text)
        if not is_of_kind(value):
            what = _WORDS.get(self.kind, "text")
            raise ConfigError(f"must be {what}, got {value!r:.80}.")
        if self.kind == "float":
            value = float(value)
        if self.max_chars is not None and isinstance(value, str) and len(value) > self.max_chars:
            raise ConfigError(f"must have at most {self.max_chars} characters, got {len(value)}.")
        said = None if self.rule is None else self.rule(value)
        if said is False or isinstance(said, str):
            rule = said if isinstance(said, str) else self.constraint or "its check"
            raise ConfigError(f"breaks its rule: {rule}. The value was {value!r:.200}.")
        return value

    @property
    def width(self) -> int:
        """None: it has no coordinates."""
        return 0

    def encode(self, value: Any) -> list[float]:
        """Nothing."""
        return []

    def decode(self, u: Units) -> Any:
        """The default: no coordinates tell of a text."""
        return self.default

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


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


_IS_OF_KIND: dict[str, Callable[[Any], bool]] = {
    "json": _is_json,
    "int": _is_whole,
    "float": _is_number,
}
_WORDS = {
    "json": "lists, dicts, text and finite numbers",
    "int": "a whole number",
    "float": "a finite number",
}
