import itertools

import numpy as np
import pytest

from sharpen.core.collections import Permutation, Subset
from sharpen.core.conditions import Eq
from sharpen.core.parameters import Bool, Categorical, Fixed, Float, Int, Ordinal
from sharpen.core.space import Space
from sharpen.search.gp.features import Features
from sharpen.testing.search import mixed_space


def features(space: Space, *configs: dict[str, object]) -> np.ndarray:
    encoded = space.encode([space.validate(c) for c in configs])
    return Features(space)(encoded.x, encoded.mask)


def squared(space: Space, a: dict[str, object], b: dict[str, object]) -> float:
    first, second = features(space, a, b)
    return float(((first - second) ** 2).sum())


def test_values_of_a_category_are_all_one_apart() -> None:
    space = Space(kind=Categorical("a", 1, True, weights=[1, 5, 2]), flag=Bool())
    for one, other in itertools.permutations(["a", 1, True], 2):
        a, b = {"kind": one, "flag": False}, {"kind": other, "flag": False}
        assert squared(space, a, b) == pytest.approx(1)
    assert squared(space, {"kind": 1, "flag": False}, {"kind": 1, "flag": True}) == 1


def test_permutations_are_as_far_apart_as_the_share_of_pairs_in_another_order() -> None:
    space = Space(order=Permutation(4))
    for one in itertools.permutations(range(4)):
        for other in itertools.permutations(range(4)):
            wrong = sum(
                (one.index(i) < one.index(j)) != (other.index(i) < other.index(j))
                for i, j in itertools.combinations(range(4), 2)
            )
            assert squared(space, {"order": one}, {"order": other}) == pytest.approx(wrong / 6)


def test_subsets_are_as_far_apart_as_the_items_that_differ_with_a_lengthscale_each() -> None:
    space = Space(chosen=Subset(4))
    assert squared(space, {"chosen": (0, 1)}, {"chosen": (1, 3)}) == 2
    assert list(Features(space).groups) == [0, 1, 2, 3]


def test_inactive_parameters_add_nothing_and_conditions_have_an_indicator() -> None:
    space = Space(
        kind=Categorical("a", "b"),
        depth=Int(1, 8).active_if(Eq("kind", "b")),
        how=Categorical("x", "y").active_if(Eq("kind", "b")),
    )
    off, on = {"kind": "a"}, {"kind": "b", "depth": 1, "how": "x"}
    assert squared(space, off, off) == 0
    made = Features(space)
    assert made.num_groups == 4  # kind, depth, how and the one condition
    rows = features(space, off, on)
    assert (rows[0, 2:5] == 0.5).all()
    assert list(rows[:, -1]) == [0, 1]


def test_numbers_are_their_coordinates_and_move_if_they_have_many_values() -> None:
    space = Space(
        x=Float(0, 2), n=Int(1, 4), wide=Int(1, 1000, log=True), size=Ordinal([1, 2]), c=Fixed(3)
    )
    made = Features(space)
    encoded = space.encode([space.default()])
    np.testing.assert_array_equal(made(encoded.x, encoded.mask), encoded.x[:, :4])
    assert [list(space)[c] for c in made.columns] == ["x", "wide"]
    assert made.discrete == ["n", "size"]
    assert not made.is_continuous
    assert Features(Space(x=Float(0, 1), y=Float(0, 1, log=False))).is_continuous


def test_shapes_fit_in_a_space_of_everything() -> None:
    space = mixed_space()
    made = Features(space)
    encoded = space.encode(space.sample(20))
    rows = made(encoded.x, encoded.mask)
    assert rows.shape == (20, len(made)) == (20, len(made.groups))
    assert set(made.groups) == set(range(made.num_groups))
    assert "version" not in made.discrete
