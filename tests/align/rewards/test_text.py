from typing import Any

import pytest

from sharpen.align.rewards import find_reward
from sharpen.core.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "options", "text", "about", "value"),
    [
        ("exact", {}, " Paris\n", {"answer": "Paris"}, 1.0),
        ("exact", {}, "paris", {"answer": "Paris"}, 0.0),
        ("exact", {"ignore_case": True}, "paris", {"answer": ["Rome", "Paris"]}, 1.0),
        ("exact", {"key": "gold"}, "4", {"gold": 4}, 1.0),
        ("exact", {}, "4", {}, None),
        ("number", {}, "so 3 + 4 = 7.0.", {"answer": 7}, 1.0),
        ("number", {}, "it is 1,234", {"answer": "#### 1234"}, 1.0),
        ("number", {}, "-2e3", {"answer": -2000}, 1.0),
        ("number", {}, "7 or 8", {"answer": 7}, 0.0),
        ("number", {}, "none", {"answer": 7}, 0.0),
        ("number", {}, "7", {"answer": "unknown"}, None),
        ("pattern", {"pattern": "a.b"}, "a\nb", {}, 1.0),
        ("pattern", {"pattern": "a.b"}, "xa\nb", {}, 0.0),
        ("pattern", {"pattern": "a.b", "whole": False}, "xa\nb", {}, 1.0),
        ("length", {"target": 4}, "abcd", {}, 0.0),
        ("length", {"target": 4}, "abc", {}, -0.25),
        ("length", {"target": 4}, "a" * 99, {}, -1.0),
        ("json", {"keys": ["a"]}, '{"a": 1}', {}, 1.0),
        ("json", {"keys": ["a"]}, '{"b": 1}', {}, 0.5),
        ("json", {}, "[1]", {}, 0.0),
        ("json", {}, "{", {}, 0.0),
    ],
)
def test_values(
    name: str, options: dict[str, Any], text: str, about: dict[str, Any], value: float | None
) -> None:
    assert find_reward(name, options)([""], [text], [about]) == [value]


def test_a_pattern_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match="pattern="):
        find_reward("pattern", {"pattern": "("})
