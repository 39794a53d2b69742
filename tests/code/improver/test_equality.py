"""When two values are the same."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharpen.code.improver.equality import Equality, ulps
from sharpen.core.errors import ConfigError, MissingFileError


def differ(a: Any, b: Any, how: str = "exact") -> bool:
    plain: dict[str, Any] = {"error": None, "args": [], "kwargs": {}, "out": "", "err": ""}
    return Equality(how).difference({"value": a, **plain}, {"value": b, **plain}) is not None


SAME = [
    (math.nan, math.nan),
    ([1, [math.nan]], [1, [math.nan]]),
    (complex(0.0, math.nan), complex(0.0, math.nan)),
    ({1: 2, 3: 4}, {1: 2, 3: 4}),
    ({1, 2}, {2, 1}),
    (np.array([1.0, np.nan]), np.array([1.0, np.nan])),
    (Decimal("1.0"), Decimal("1.0")),
]
DIFFERENT = [
    (1, 1.0),
    (1, True),
    (0.0, -0.0),
    (0.1 + 0.2, 0.3),
    ([1], (1,)),
    ({1: 2, 3: 4}, {3: 4, 1: 2}),
    ({1: 2}, {1.0: 2}),
    ({1}, {True}),
    ("a", b"a"),
    (np.array([1]), np.array([1.0])),
    (np.array([1, 2]), np.array([[1, 2]])),
    (np.float64(1), 1.0),
    (Decimal("1.0"), Decimal("1.00")),
    ([1, 2], [1, 2, 3]),
    (None, 0),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_the_same(a: Any, b: Any) -> None:
    assert not differ(a, b)


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_different(a: Any, b: Any) -> None:
    assert differ(a, b)
    assert differ([a], [b])


def test_floats_may_be_close() -> None:
    assert not differ([0.1 + 0.2], [0.3], "ulp:1")
    assert differ(1.0, 1.0 + 1e-9, "ulp:4")
    assert not differ(1.0, 1.0 + 1e-9, "close:rtol=1e-8")
    assert differ(1.0, 1.1, "close:rtol=1e-8,atol=1e-3")
    assert not differ(np.array([1.0]), np.array([1.0 + 1e-12]), "close:atol=1e-9")
    assert differ(1, 2, "close:atol=5")  # whole numbers are exact
    assert differ(math.inf, 1e308, "close:rtol=1")
    equality = Equality("ulp:4")
    seen: dict[str, Any] = {"error": None, "args": [], "kwargs": {}, "out": "", "err": ""}
    assert equality.difference({"value": 0.1 + 0.2, **seen}, {"value": 0.3, **seen}) is None
    assert equality.largest == 1.0


def test_ulps() -> None:
    assert ulps(0.0, -0.0) == 0
    assert ulps(-5e-324, 5e-324) == 2
    assert ulps(1.0, math.nan) == math.inf
    assert ulps(1.0, np.nextafter(1.0, 0.0)) == 1


def test_a_function_may_decide(tmp_path: Path) -> None:
    file = tmp_path / "same.py"
    file.write_text("def same(a, b):\n    return sorted(a) == sorted(b)\n")
    assert not differ([1, 2], [2, 1], f"mod:{file}:same")
    assert differ([1, 2], [2, 2], f"mod:{file}:same")
    with pytest.raises(MissingFileError):
        Equality(f"mod:{tmp_path}/none.py:same")
    with pytest.raises(ConfigError, match="defines no function"):
        Equality(f"mod:{file}:other")


@pytest.mark.parametrize("text", ["", "near", "ulp:x", "ulp:-1", "close:", "close:rtol", "mod:x"])
def test_a_text_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--equal"):
        Equality(text)


def test_where_a_difference_is_told() -> None:
    seen: dict[str, Any] = {"error": None, "args": [], "kwargs": {}, "out": "", "err": ""}
    found = Equality().difference(
        {"value": [1, {"a": [2, 3]}], **seen}, {"value": [1, {"a": [2, 4]}], **seen}
    )
    assert str(found) == "result[1]['a'][1] is 4, not 3"
