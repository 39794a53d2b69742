import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.collections import Permutation, Subset
from sharpen.core.conditions import Eq
from sharpen.core.errors import ConfigError, SpaceError
from sharpen.core.parameters import Float
from sharpen.core.space import Space

_UNITS = st.floats(0, 1)


@given(st.lists(_UNITS, min_size=2, max_size=8))
def test_permutations_are_whole_and_come_back_from_their_coordinates(keys: list[float]) -> None:
    parameter = Permutation(len(keys))
    value = parameter.decode(keys)
    assert sorted(value) == list(range(len(keys)))
    assert [keys[i] for i in value] == sorted(keys)
    assert parameter.decode(parameter.encode(value)) == value
    assert parameter.check(list(value)) == value


@given(st.lists(_UNITS, min_size=2, max_size=8), st.data())
def test_subsets_keep_their_size_and_come_back_from_their_coordinates(
    bits: list[float], data: st.DataObject
) -> None:
    most = data.draw(st.integers(1, len(bits)))
    least = data.draw(st.integers(0, most))
    parameter = Subset(len(bits), min=least, max=most)
    value = parameter.decode(bits)
    assert least <= len(value) <= most
    assert list(value) == sorted(set(value))
    chosen = sum(u >= 0.5 for u in bits)
    if least <= chosen <= most:
        assert value == tuple(i for i, u in enumerate(bits) if u >= 0.5)
    left_out = [u for i, u in enumerate(bits) if i not in value]
    assert min((bits[i] for i in value), default=1) >= max(left_out, default=0)
    assert parameter.decode(parameter.encode(value)) == value


@pytest.mark.parametrize("parameter", [Permutation(list("abcd")), Subset(4)])
def test_uniform_coordinates_make_every_value_equally_likely(parameter: Any) -> None:
    rng = np.random.default_rng(0)
    counts: dict[Any, int] = {}
    for row in rng.random((6000, 4)):
        value = parameter.decode(row)
        counts[value] = counts.get(value, 0) + 1
    assert len(counts) == parameter.cardinality == len(parameter.values_on_grid(10))
    expected = 6000 / parameter.cardinality
    chi2 = sum((n - expected) ** 2 / expected for n in counts.values())
    assert chi2 < parameter.cardinality + 4 * math.sqrt(2 * parameter.cardinality)


def test_a_space_of_collections_is_whole() -> None:
    space = Space(
        order=Permutation(["x", "y", "z"]),
        chosen=Subset(["a", "b"], min=1),
        scale=Float(0, 1).active_if(Eq("order", ("z", "y", "x"))),
    )
    assert space.dimensions == 6
    assert space.columns == {"order": slice(0, 3), "chosen": slice(3, 5), "scale": slice(5, 6)}
    assert space.default() == {"order": ("x", "y", "z"), "chosen": ("a",)}
    for config in space.sample(50, seed=1):
        encoded = space.encode([config])
        assert encoded.mask[0, :5].all()
        assert encoded.mask[0, 5] == ("scale" in config)
        assert space.decode(encoded.x) == [config]
        assert space.validate({k: list(v) if k != "scale" else v for k, v in config.items()})
    again = Space.from_dict(space.to_dict())
    assert again == space
    grid = space.grid(2)
    assert len(grid) == 5 * 3 + 3 * 2
    assert {c["order"] for c in grid} == set(itertools.permutations("xyz"))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Permutation(1), "two values or more"),
        (lambda: Permutation(["a", "a"]), "twice"),
        (lambda: Permutation("ab"), "a number of items or a list"),
        (lambda: Subset(3, min=4), "0 <= min <= max <= 3"),
        (lambda: Subset(3, max=0), "max >= 1"),
        (lambda: Subset(3, min=True), "must be integers"),
        (lambda: Subset(3, default=[0, 0]), "no item twice"),
        (lambda: Permutation(9).values_on_grid(2), "too many permutations"),
        (lambda: Subset(20).values_on_grid(2), "too many subsets"),
    ],
)
def test_collections_that_make_no_sense_are_refused(make: Any, text: str) -> None:
    with pytest.raises(SpaceError, match=text):
        make()


@pytest.mark.parametrize(
    ("parameter", "value", "text"),
    [
        (Permutation(3), [0, 1], "each of its 3 items once"),
        (Permutation(3), [0, 1, 1], "each of its 3 items once"),
        (Permutation(3), 3, "must be a list"),
        (Permutation(3), [0, 1, 5], "must be one of"),
        (Subset(3, max=1), [0, 1], "must hold 0 to 1 items"),
        (Subset(3), [True], "must be one of"),
    ],
)
def test_values_that_are_no_such_collection_are_refused(
    parameter: Any, value: Any, text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        parameter.check(value)


def test_arrays_and_sets_are_taken_as_collections() -> None:
    assert Permutation(3).check(np.array([2, 0, 1])) == (2, 0, 1)
    assert Subset(3).check({2, 0}) == (0, 2)
