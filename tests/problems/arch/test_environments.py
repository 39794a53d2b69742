"""Design problems through gymnasium's own registry and checker."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from sharpen.core.errors import ConfigError
from sharpen.problems.arch import make
from sharpen.problems.arch.environments import ENVIRONMENTS


@pytest.mark.parametrize("mode", ["single-step", "per-parameter"])
@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_environments_pass_the_checker(name: str, mode: str) -> None:
    options: dict[str, Any] = {"requests": 50} if "Dram" in name else {}
    environment = gymnasium.make(name, mode=mode, **options)
    check_env(environment.unwrapped, skip_render_check=True)


def test_a_name_with_its_module_needs_no_import_and_a_step_is_an_evaluation() -> None:
    path = "sharpen.problems.arch.environments:sharpen/Dram-v0"
    environment = gymnasium.make(path, workload="random", target="power", requests=50, designs=4)
    environment.reset(seed=0)
    problem = make("dram-v0", workload="random", target="power", requests=50)
    rewards = set()
    for seed in range(4):
        environment.action_space.seed(seed)
        _, reward, ended, _, info = environment.step(environment.action_space.sample())
        assert reward == problem.evaluate(info["config"])["reward"]
        rewards.add(reward)
    assert ended
    assert len(rewards) > 1


def test_every_value_of_a_parameter_can_be_chosen() -> None:
    environment = gymnasium.make("sharpen/Dram-v0", requests=20)
    counts = environment.action_space.nvec
    seen: dict[str, set[Any]] = {}
    for k in range(int(max(counts))):
        environment.reset(seed=0)
        *_, info = environment.step(np.minimum(k, counts - 1))
        for name, value in info["config"].items():
            seen.setdefault(name, set()).add(value)
    space = make(requests=20).space
    assert seen == {name: set(parameter.values_on_grid(8)) for name, parameter in space.items()}


def test_wrong_options_are_the_problem_s_errors() -> None:
    with pytest.raises(ConfigError, match="no option 'targett'"):
        gymnasium.make("sharpen/Dram-v0", targett="power")
