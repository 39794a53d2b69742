import numpy as np
import pytest

from sharpen.core.collections import Permutation
from sharpen.core.conditions import Eq, P
from sharpen.core.errors import ConfigError, SpaceError
from sharpen.core.parameters import Bool, Categorical, Float, Int
from sharpen.core.space import Space
from sharpen.search.grid import Grid, shuffled
from sharpen.testing import OptimizerConformance


class TestGrid(OptimizerConformance):
    optimizer = Grid


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 100, 1025])
def test_the_shuffled_order_is_a_permutation(count: int) -> None:
    orders = [[shuffled(i, count, seed) for i in range(count)] for seed in (0, 1)]
    for order in orders:
        assert sorted(order) == list(range(count))
    if count > 10:
        assert orders[0] != orders[1]
        steps = np.diff(orders[0])
        assert abs(np.corrcoef(steps[:-1], steps[1:])[0, 1] + 0.5) < 0.35  # as of a random order


def test_it_tries_every_configuration_of_the_spaces_grid_once_and_then_again() -> None:
    space = Space(
        kind=Categorical("a", "b"),
        depth=Int(1, 3).active_if(Eq("kind", "b")),
        x=Float(0, 1),
        flag=Bool(),
    ).forbid(P("x") * P("depth") > 2.5)
    every = {space.canonical(c) for c in space.grid(4)}
    optimizer = Grid(space, seed=1, resolution=4)
    found = [space.canonical(c.config) for c in optimizer.ask(2 * len(every))]
    assert set(found[: len(every)]) == every
    assert found[len(every) :] == found[: len(every)]


def test_a_grid_of_any_size_can_be_begun() -> None:
    space = Space({f"x{i}": Float(0, 1) for i in range(40)})
    points = np.array([list(c.config.values()) for c in Grid(space, seed=2).ask(300)])
    values, counts = np.unique(np.round(points * 9), return_counts=True)
    assert values.tolist() == list(range(10))
    assert counts.min() > 0.85 * counts.mean()


def test_the_resolution_follows_the_budget() -> None:
    space = Space(x=Float(0, 1), y=Float(0, 1), n=Int(1, 3))
    assert Grid(space, budget=80).resolution == 5  # 5 * 5 * 3 = 75
    assert Grid(space, budget=1).resolution == 2
    assert Grid(Space(n=Int(1, 3)), budget=80).resolution == 3
    assert Grid(space).resolution == 10


def test_what_cannot_be_a_grid_is_explained() -> None:
    with pytest.raises(ConfigError, match="resolution"):
        Grid(Space(x=Float(0, 1)), resolution=0)
    with pytest.raises(SpaceError, match="too many permutations"):
        Grid(Space(p=Permutation(12)))
    with pytest.raises(SpaceError, match="no combination"):
        Grid(Space(n=Int(1, 3)).forbid("n > 0")).ask()
