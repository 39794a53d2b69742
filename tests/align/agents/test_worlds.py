import copy
import re
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from sharpen.align.agents.environment import TextWorld
from sharpen.align.agents.tools import Toolbox, read_call
from sharpen.align.agents.worlds import CalculatorTask, RetrievalTask, Rooms
from sharpen.align.agents.worlds.calculator import calculate
from sharpen.core.errors import ConfigError

WORLDS = [Rooms, CalculatorTask, RetrievalTask]


@pytest.mark.parametrize("make", WORLDS)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # of an environment without rendering
def test_worlds_are_environments(make: type[TextWorld]) -> None:
    check_env(make(), skip_render_check=True)
    assert isinstance(make(), gymnasium.Env)


@pytest.mark.parametrize("make", WORLDS)
def test_a_seed_decides_all_and_copies_go_their_own_way(make: type[TextWorld]) -> None:
    first, second = make(), make()
    seen, told = first.reset(seed=5)
    assert second.reset(seed=5) == (seen, told)
    assert first.reset(seed=6)[1]["goal"] != told["goal"] or make is Rooms
    first.reset(seed=5)
    other = copy.deepcopy(first)
    outcomes = [world.step(told["actions"][0]) for world in (first, second, other)]
    assert outcomes[0] == outcomes[1] == outcomes[2]


def rooms(seed: int) -> tuple[Rooms, str]:
    world = Rooms()
    return world, world.reset(seed=seed)[0]


def explore(world: Rooms, plan: list[str]) -> list[bool]:
    return [world.step(action)[2] for action in plan]


def solve(world: Rooms) -> list[str]:
    """Shortest plan, by breadth-first search over copies."""
    border: list[tuple[list[str], Rooms]] = [([], world)]
    while True:
        plan, at = border.pop(0)
        for action in at.possible():
            other = copy.deepcopy(at)
            before = (other.at, other.has_key, other.is_open)
            if other.step(action)[2]:
                return [*plan, action]
            if (other.at, other.has_key, other.is_open) != before:
                border.append(([*plan, action], other))


@pytest.mark.parametrize("seed", range(12))
def test_every_house_can_be_solved_only_with_the_key(seed: int) -> None:
    world, seen = rooms(seed)
    assert "You hold nothing." in seen
    plan = solve(world)
    assert plan[-1].startswith("go ")
    assert plan.index("take key") < plan.index("open door")
    again, _ = rooms(seed)
    results = [again.step(action) for action in plan]
    assert results[-1][1:3] == (1.0, True)
    assert results[-1][4]["success"] is True
    without, _ = rooms(seed)
    assert not any(explore(without, [action for action in plan if action != "take key"]))


def test_episodes_are_cut_off() -> None:
    world = Rooms(max_steps=2)
    world.reset(seed=0)
    assert world.step("nonsense")[2:4] == (False, False)
    assert world.step("nonsense")[2:4] == (False, True)
    with pytest.raises(ConfigError, match="max_steps=0"):
        Rooms(max_steps=0)


def test_the_calculator_solves_its_task() -> None:
    world = CalculatorTask()
    world.reset(seed=1)
    said, *_ = world.step(f"calculate('{world.a} * {world.b}')")
    assert said == str(world.a * world.b)
    said, *_ = world.step(f"calculate('{said} + {world.c}')")
    assert world.step(f"answer({said})")[1:3] == (1.0, True)
    world.reset(seed=1)
    assert world.step("calculate('2 ** 3')")[4]["violation"] is True
    assert world.step("answer(1)")[1:3] == (0.0, True)


@pytest.mark.parametrize("text", ["2 ** 3", "__import__('os')", "1" * 13 + " + 1", "", "1 +"])
def test_the_calculator_takes_one_operation(text: str) -> None:
    with pytest.raises(ValueError, match="one operation"):
        calculate(text)


def test_two_searches_find_the_answer() -> None:
    for seed in range(20):
        world = RetrievalTask()
        world.reset(seed=seed)
        assert world.step(f"search('{world.person}')")[0] == (
            f"{world.person} lives in {world.town}."
        )
        assert f"search('{world.town}')" in world.possible()
        said = world.step(f"search('{world.town}')")[0]
        assert said == f"{world.town} lies in {world.answer}."
        assert world.step(f"answer('{world.answer}')")[1:3] == (1.0, True)


def test_the_examples_of_look_ups_are_as_the_world_speaks(repository: Path) -> None:
    shown = (repository / "examples/align/retrieval.txt").read_text()
    world = RetrievalTask()
    seen, told = world.reset(seed=3)
    said = [world.step(f"search('{name}')")[0] for name in (world.person, world.town)]
    for text in (told["goal"], seen, *said, world.step(f"answer('{world.answer}')")[0]):
        words = re.escape(text)
        for name in (world.person, world.town, world.answer):
            words = words.replace(name, r"[A-Z]\w+")
        assert len(re.findall(rf"^(Goal|Observation): {words}$", shown, re.MULTILINE)) == 2


def test_tools_take_literals_and_tell_what_went_wrong() -> None:
    def half(number: float, digits: int = 2) -> float:
        """Half of a number."""
        return round(number / 2, digits)

    def fail() -> None:
        """Fails."""
        raise KeyError("x")

    tools = Toolbox([half, fail])
    assert tools.call("half(3)") == ("1.5", True)
    assert tools.call("half(number=3.3333, digits=1)") == ("1.7", True)
    bad: dict[str, Any] = {
        "half": "This is no call",
        "half(open('x'))": "This is no call",
        "half(**{})": "This is no call",
        "third(1)": "There is no tool 'third'",
        "half()": "missing a required argument",
        "fail()": "KeyError",
    }
    for text, told in bad.items():
        said, good = tools.call(text)
        assert told in said
        assert not good
    assert "half(number" in tools.describe()
    assert "Half of a number." in tools.describe()
    assert read_call("f(" * 3000) is None
    with pytest.raises(ConfigError, match="docstring"):
        Toolbox([lambda: None])
    with pytest.raises(ConfigError, match="one name"):
        Toolbox([half, half])
