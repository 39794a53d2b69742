import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given

from drawn_spaces import drawn_spaces
from sharpen.core.errors import SpaceError
from sharpen.core.parameters import Bool, Categorical, Fixed, Float, Int
from sharpen.core.space import Space
from sharpen.search.adapters import space_from_gymnasium, space_to_gymnasium
from sharpen.testing.search import mixed_space


@given(drawn_spaces(["float", "int", "bool"]))
def test_what_is_written_reads_back_equal(space: Space) -> None:
    assert space_from_gymnasium(space_to_gymnasium(space)) == space


def test_discrete_numbers_are_choices_without_an_order() -> None:
    space = Space(a=Categorical(3, 4, 5), b=Fixed(7))
    written = space_to_gymnasium(space)
    assert written == spaces.Dict(
        {"a": spaces.Discrete(3, start=3), "b": spaces.Discrete(1, start=7)}
    )
    assert space_from_gymnasium(written) == space


def test_every_element_of_nested_spaces_is_a_parameter() -> None:
    given = spaces.Dict(
        {
            "gains": spaces.Box(np.array([[0, 1]]), np.array([[2, 1]]), dtype=np.float64),
            "count": spaces.Box(0, 255, (1,), np.uint8),
            "both": spaces.Tuple([spaces.MultiDiscrete([2, 3], start=[5, 0]), spaces.Discrete(2)]),
            "bits": spaces.MultiBinary(2),
        }
    )
    assert space_from_gymnasium(given) == Space(
        {
            "both.0.0": Categorical(5, 6),
            "both.0.1": Categorical(0, 1, 2),
            "both.1": Categorical(0, 1),
            "bits.0": Bool(),
            "bits.1": Bool(),
            "count": Int(0, 255),
            "gains.0.0": Float(0, 2),
            "gains.0.1": Fixed(1.0),
        }
    )
    assert list(space_from_gymnasium(spaces.Discrete(3))) == ["action"]


def test_an_environments_actions_are_a_space() -> None:
    env = gymnasium.make("Pendulum-v1")
    assert space_from_gymnasium(env.action_space) == Space(action=Float(-2, 2))
    with pytest.raises(SpaceError, match=r"'action.0' of a Box"):
        space_from_gymnasium(spaces.Box(-np.inf, np.inf, (2,)))


def test_what_has_no_place_is_named() -> None:
    with pytest.raises(SpaceError, match="'action' is a Text"):
        space_from_gymnasium(spaces.Text(5))
    with pytest.raises(SpaceError) as caught:
        space_to_gymnasium(mixed_space())
    for part in ("log of 'lr'", "step of 'grid'", "active_if of 'depth'", "values of 'kind'"):
        assert part in str(caught.value)
