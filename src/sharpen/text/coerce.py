"""Values of a kind, from what models and files write: text, numbers, truth values, JSON, code."""

from __future__ import annotations

import json
import math
from typing import Any, Literal, get_args

from sharpen.core.errors import ConfigError

__all__ = ["KINDS", "Kind", "coerce", "kind_of"]

Kind = Literal["text", "code", "json", "float", "int", "bool", "choice"]
KINDS: tuple[str, ...] = get_args(Kind)
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


def kind_of(value: Any) -> Kind:
    """The kind of a value where none is named.

    Raises:
        ConfigError: no kind holds such a value.
    """
    for kind, types in (("bool", bool), ("int", int), ("float", float), ("text", str)):
        if isinstance(value, types):
            return kind  # type: ignore[return-value]
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        return kind_of(value.item())
    if isinstance(value, (list, dict, tuple)) or value is None:
        return "json"
    raise ConfigError(
        f"a parameter cannot be a {type(value).__name__}: it may be text, code, a number, a truth"
        " value, a choice, or lists and dicts of these."
    )


def coerce(value: Any, kind: Kind) -> Any:
    """``value`` as ``kind``: numbers and truth values are read from words, JSON from text.

    Raises:
        ConfigError: it is not of this kind; nothing is rounded, and no word is guessed.
    """
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item()
    if kind in ("text", "code"):
        if not isinstance(value, str):
            raise ConfigError(f"must be text, got {type(value).__name__} {value!r}.")
        return value
    if kind == "bool":
        return _as_bool(value)
    if kind in ("int", "float"):
        return _as_number(value, kind)
    if kind == "json":
        return _as_json(value)
    return value


def _as_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, (int, str)) else ""
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ConfigError(f"must be true or false, got {value!r}.")


def _as_number(value: Any, kind: str) -> int | float:
    number = value
    if isinstance(value, str):
        try:
            number = int(value.strip())
        except ValueError:
            try:
                number = float(value.strip())
            except ValueError:
                raise ConfigError(f"must be a number, got {value!r}.") from None
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise ConfigError(f"must be a number, got {value!r}.")
    if not math.isfinite(number):
        raise ConfigError(f"must be a finite number, got {value!r}.")
    if kind == "float":
        return float(number)
    if number != int(number):
        raise ConfigError(f"must be a whole number, got {value!r}.")
    return int(number)


def _as_json(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"must be lists, dicts, text and finite numbers: {error}.") from None
