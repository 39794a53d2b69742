"""Private functions that one function calls are rewritten with it."""

from __future__ import annotations

import pytest

from differential import assert_same, closure, drawn_calls, facts_of
from sharpen.code.rewrite import propose

TEXT = """
def generators(n):
    return [a for a in range(1, n) if _order(a, n) == n - 1]


def _order(a, n):
    for i in range(1, n):
        if pow(a, i) % n == 1:
            return i
    return -1
"""


def found(text: str) -> list[str]:
    facts = facts_of(text, "generators", [(7,)])
    return [one.explain for one in propose(text, "generators", facts)]


def test_a_helper_is_rewritten() -> None:
    assert any(one.startswith("in _order: ") for one in found(TEXT))
    facts = facts_of(TEXT, "generators", [(7,)])
    calls = [(n,) for n in range(14)] + drawn_calls([(7,)], 1, 10)
    rewrites = closure(TEXT, "generators", facts, 2, most=10)
    assert any("pow(a, i, n)" in one.text for one in rewrites)
    for one in rewrites:
        assert_same(TEXT, one.text, "generators", [call for call in calls if call[0] < 40])


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("_order", "order"),
        TEXT + "\n\ndef other(n):\n    return _order(0.5, n)\n",
        TEXT + "\n\nTABLE = {'x': _order}\n",
        TEXT + "\n\n__all__ = ['generators', '_order']\n",
        TEXT + "\n\ndef change():\n    global _order\n    _order = None\n",
        TEXT.replace("def _order", "@print\ndef _order").replace("@print", "@staticmethod"),
        TEXT.replace("_order(a, n) ==", "list(map(_order, [a], [n]))[0] =="),
    ],
)
def test_one_that_others_may_call_is_left_alone(text: str) -> None:
    assert not [one for one in found(text) if one.startswith("in ")]
