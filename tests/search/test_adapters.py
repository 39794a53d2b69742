import importlib
import itertools
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from pettingzoo.test import parallel_api_test

from sharpen.core.collections import Permutation
from sharpen.core.conditions import Eq
from sharpen.core.errors import ConfigError, DependencyNotInstalled
from sharpen.core.parameters import Bool, Categorical, Fixed, Float, Int, Ordinal
from sharpen.core.problem import FunctionProblem, Objective, as_constraints
from sharpen.core.space import Space
from sharpen.core.study import Budget, Study
from sharpen.search import adapters
from sharpen.search.adapters import ProblemEnv, ProblemParallelEnv, problem_from_gymnasium
from sharpen.testing.search import mixed_space

FINITE = Space(
    size=Ordinal([1, 2, 4, 8, 16, 32, 64, 128]),
    kind=Categorical("a", "b", "c", weights=[1, 5, 1]),
    depth=Int(1, 8, log=True).active_if(Eq("kind", "b")),
    step=Float(0, 1, step=0.25),
    flag=Bool(),
    version=Fixed("v1"),
    order=Permutation(3),
)


def loss(config: dict[str, Any]) -> Any:
    if config.get("depth") == 7:
        raise RuntimeError("of the function")
    return {"loss": float(config.get("size", 1) + config.get("depth", 0)), "m": 0.5}


def make(space: Space, *constraints: str) -> Any:
    return FunctionProblem(loss, space, [Objective("loss")], as_constraints(constraints))


@pytest.mark.parametrize("space", [FINITE, mixed_space()], ids=["finite", "mixed"])
@pytest.mark.parametrize("mode", ["single-step", "per-parameter"])
@pytest.mark.parametrize("actions", ["auto", "levels", "reals"])
def test_gymnasium_accepts_the_environment(space: Space, mode: Any, actions: Any) -> None:
    env = ProblemEnv(make(space, "m <= 1"), mode, actions=actions, designs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on infinite bounds and on rendering
        check_env(env)
    env.action_space.seed(1)
    env.reset(seed=1)
    for _ in range(60):
        _, reward, is_over, _, info = env.step(env.action_space.sample())
        if "config" in info:
            assert space.validate(info["config"]) == info["config"]
            if info["status"] == "ok":
                assert reward == -info["values"]["loss"]
        else:
            assert reward == 0.0
        if is_over:
            env.reset()


@pytest.mark.parametrize("space", [FINITE, mixed_space()], ids=["finite", "mixed"])
def test_pettingzoo_accepts_the_game(space: Space) -> None:
    env = ProblemParallelEnv(make(space), designs=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(env, num_cycles=50)
    free = {name for name in space if space[name].cardinality > 1}
    assert set(env.possible_agents) == free


def test_the_agent_of_an_inactive_parameter_is_told_so() -> None:
    env = ProblemParallelEnv(make(FINITE))
    env.reset(seed=0)
    actions: dict[str, Any] = dict.fromkeys(env.agents, 0) | {"order": [0, 0, 0]}
    _, rewards, terminated, _, infos = env.step(actions)
    assert not infos["depth"]["active"]
    assert infos["size"]["active"]
    assert "depth" not in infos["size"]["config"]
    assert set(rewards.values()) == {-1.0}
    assert all(terminated.values())
    assert env.agents == []
    env.reset()
    assert env.step(actions | {"kind": 1})[4]["depth"]["active"]


def test_levels_reach_every_value_of_every_parameter() -> None:
    seen: dict[str, set[Any]] = {name: set() for name in FINITE}
    env = ProblemEnv(make(FINITE))
    space: Any = env.action_space
    assert list(space.nvec) == [8, 3, 8, 5, 2, 3, 3, 3]
    env.reset(seed=0)
    for axis, count in enumerate(space.nvec):
        for level in range(count):
            action = np.ones(len(space.nvec), dtype=int)
            action[axis] = level
            for name, value in env.step(action)[4]["config"].items():
                seen[name].add(value)
    for orders in itertools.product(range(3), repeat=3):
        action[-3:] = orders
        seen["order"].add(env.step(action)[4]["config"]["order"])
    for name, parameter in FINITE.items():
        assert len(seen[name]) == parameter.cardinality, name


def test_reals_reach_every_value_in_equal_shares() -> None:
    env = ProblemEnv(make(Space(size=FINITE["size"], n=Int(1, 1000))), actions="reals")
    env.reset(seed=0)
    sizes, ends = [], set()
    for u in np.linspace(0, 1, 801, dtype=np.float32):
        config = env.step(np.array([u, u], dtype=np.float32))[4]["config"]
        sizes.append(config["size"])
        ends.add(config["n"])
    counts = [sizes.count(v) for v in (1, 2, 4, 8, 16, 32, 64, 128)]
    assert min(counts) >= 99  # rounding of a number from -1 to 1 would reach three of the eight
    assert {1, 1000} <= ends


def test_per_parameter_takes_the_active_parameters_in_turn() -> None:
    env = ProblemEnv(make(FINITE), "per-parameter")
    observation, info = env.reset(seed=0)
    assert observation.shape == (1 + 3 * 8,)
    masks = [int(info["action_mask"].sum())]
    steps, is_over = 0, False
    while not is_over:
        _, reward, is_over, _, info = env.step(np.int64(0))
        masks.append(int(info["action_mask"].sum()))
        steps += 1
    # size, kind ("a": no depth), step, flag and the three items
    assert steps == 7
    assert masks[:-1] == [8, 3, 5, 2, 3, 3, 3]
    assert info["config"] == {
        "size": 1,
        "kind": "a",
        "step": 0.0,
        "flag": False,
        "version": "v1",
        "order": (0, 1, 2),
    }
    assert reward == -1.0


def test_failures_and_broken_constraints_have_the_least_reward() -> None:
    env = ProblemEnv(make(FINITE, "m <= 1"))
    env.reset(seed=0)
    good = np.array([3, 0, 0, 0, 0, 0, 0, 0])
    assert env.step(good)[1] == -8.0
    failing = np.array([0, 1, 6, 0, 0, 0, 0, 0])
    _, reward, _, _, info = env.step(failing)
    assert (reward, info["status"]) == (-8.0, "failed")
    assert "of the function" in info["error"]
    broken = ProblemEnv(make(FINITE, "m <= 0.1"), failure_reward=-99.0)
    broken.reset(seed=0)
    assert broken.step(good)[1] == -99.0


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_any_action_makes_an_allowed_configuration(seed: int) -> None:
    space = mixed_space()
    for actions in ("levels", "reals"):
        env = ProblemEnv(make(space), actions=actions)
        env.reset(seed=seed)
        env.action_space.seed(seed)
        config = env.step(env.action_space.sample())[4]["config"]
        assert space.validate(config) == config


def test_wrong_arguments_are_explained() -> None:
    problem = make(FINITE)
    two: Any = FunctionProblem(loss, FINITE, [Objective("loss"), Objective("m")])
    for wrong, message in (
        (lambda: ProblemEnv(two), "2 objectives"),
        (lambda: ProblemEnv(make(Space(v=Fixed(1)))), "nothing to choose"),
        (lambda: ProblemEnv(problem, "all"), "mode"),  # type: ignore[arg-type]
        (lambda: ProblemEnv(problem, designs=0), "designs"),
        (lambda: ProblemEnv(problem, actions="x"), "actions"),  # type: ignore[arg-type]
        (lambda: ProblemParallelEnv(problem, designs=0), "designs"),
        (lambda: ProblemEnv(problem).step([1]), "none of"),
        (lambda: ProblemEnv(problem).step([8] * 8), "none of"),
        (lambda: problem_from_gymnasium("Nope-v0"), "Nope"),
        (lambda: problem_from_gymnasium("CartPole-v1", "tree"), "policy"),
        (lambda: problem_from_gymnasium("CartPole-v1", "ppo", steps=9), "space"),
        (lambda: problem_from_gymnasium("CartPole-v1", "ppo", space=FINITE), "steps"),
        (lambda: problem_from_gymnasium("CartPole-v1", episodes=0), "episodes"),
        (lambda: problem_from_gymnasium("CartPole-v1", bound=0), "bound"),
        (lambda: problem_from_gymnasium(3), "env must be"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError, match=message):
            wrong()
    game = ProblemParallelEnv(problem)
    game.reset()
    with pytest.raises(ConfigError, match="has no action"):
        game.step({"size": 0})
    with pytest.raises(ConfigError, match="'size' is none of"):
        game.step(dict.fromkeys(game.agents, 0) | {"size": 8, "order": [0, 0, 0]})


def test_a_linear_policy_of_cartpole_is_found_and_is_what_its_weights_say() -> None:
    problem = problem_from_gymnasium("CartPole-v1", "linear", episodes=3)
    study: Any = Study(problem, optimizer="random", store="sqlite://", budget=Budget(trials=40))
    study.run()
    config, value = study.best.config, study.best.value
    assert value > 100
    # The same episodes by hand: argmax of W s + b.
    w = np.array([config[f"w{i}"] for i in range(10)])
    total = 0.0
    for seed in range(3):
        env = gymnasium.make("CartPole-v1")
        s, _ = env.reset(seed=seed)
        is_over = False
        while not is_over:
            s, r, terminated, truncated, _ = env.step(
                int(np.argmax(s @ w[:8].reshape(4, 2) + w[8:]))
            )
            total, is_over = total + float(r), terminated or truncated
    assert value == pytest.approx(total / 3)


def test_policies_of_real_actions_stay_in_bounds_and_problems_travel() -> None:
    problem = problem_from_gymnasium("Pendulum-v1", "mlp", episodes=1, bound=50.0, hidden=4)
    assert len(problem.space) == 4 * 4 + 5
    problem = pickle.loads(pickle.dumps(problem))
    actions = {
        float(problem.agent(config).act(np.array([x, 1 - x, 3 * x]))[0])
        for config in problem.space.sample(20)
        for x in (-1.0, 0.3, 1.0)
    }
    assert min(actions) == -2.0
    assert max(actions) == 2.0
    assert problem_from_gymnasium("CartPole-v1", _constant, space=Space(a=Int(0, 1))).name


def _constant(config: dict[str, Any]) -> Any:
    return lambda observation: config["a"]


def test_own_policies_and_training_options_are_searched_over(tmp_path: Path) -> None:
    from sharpen.core.problem import TrialContext

    own = problem_from_gymnasium("CartPole-v1", _constant, space=Space(a=Int(0, 1)), episodes=2)
    first = own.evaluate({"a": 1}, TrialContext(seed=5))
    assert first == own.evaluate({"a": 1}, TrialContext(seed=6))
    assert 5 < first["return"] < 20
    fresh = problem_from_gymnasium("CartPole-v1", _constant, space=own.space, is_fresh=True)
    assert fresh.evaluate({"a": 1}, TrialContext(seed=5)) != fresh.evaluate(
        {"a": 1}, TrialContext(seed=77)
    )
    trained = problem_from_gymnasium(
        "CartPole-v1",
        "ppo",
        space=Space(learning_rate=Float(1e-4, 1e-2, log=True), rollout=Fixed(32)),
        steps=600,
        episodes=2,
    )
    found = trained.evaluate({"learning_rate": 1e-3, "rollout": 32}, TrialContext())
    assert found["least"] <= found["return"] <= found["most"]


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("sharpen.search.rl.environments", "gymnasium"),
        ("sharpen.search.rl.problem_env", "gymnasium"),
        ("sharpen.search.marl.parallel_env", "pettingzoo"),
    ],
)
def test_a_missing_package_is_told_with_the_command_that_installs_it(
    module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyNotInstalled, match=r"pip install 'sharpen\[rl\]'"):
        importlib.import_module(module)


def test_the_module_has_what_it_says() -> None:
    for name in adapters.__all__:
        assert getattr(adapters, name)
    with pytest.raises(AttributeError):
        adapters.nothing  # noqa: B018
