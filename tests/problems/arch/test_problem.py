"""Design problems: rewards by their formulas, every value reachable, nothing carried over."""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sharpen as sh
from sharpen.core.errors import ConfigError
from sharpen.core.problem import Problem, evaluate
from sharpen.core.problem_names import find_problem
from sharpen.problems.arch import dram_space, make, reward_of, workload

POSITIVE = st.floats(1e-3, 1e3)


def test_the_space_is_that_of_the_published_grid() -> None:
    assert len(dram_space()) == 10
    assert dram_space(allow_no_refresh=True).cardinality == 442_368
    assert dram_space().cardinality == 442_368 / 2
    assert all(c["refresh_policy"] == "AllBank" for c in dram_space().sample(50))


def test_every_value_is_reached_from_the_unit_cube() -> None:
    space = dram_space(allow_no_refresh=True)
    found = space.decode(np.linspace(0, 1, 200)[:, None].repeat(space.dimensions, 1))
    for name, parameter in space.items():
        assert {c[name] for c in found} == set(parameter.values_on_grid(10))


@given(POSITIVE, POSITIVE, POSITIVE, POSITIVE)
def test_rewards_are_their_formulas_and_bounded(
    power: float, latency: float, a: float, b: float
) -> None:
    metrics, targets = (
        {"power": power, "latency": latency, "energy": 1.0},
        {"power": a, "latency": b},
    )
    far = abs(power - a) / a + 3 * abs(latency - b) / b
    bounded = reward_of(metrics, targets, weights={"latency": 3.0})
    assert bounded == pytest.approx(1 / (1 + far), rel=1e-12)
    assert 0 < bounded <= 1
    published = reward_of(metrics, targets, reward="archgym", epsilon=0.01)
    assert 0 < published <= 100**2 * (1 + 1e-12)
    if abs(power - a) > 0.01 * a and abs(latency - b) > 0.01 * b:
        assert published == pytest.approx(a / abs(a - power) * b / abs(b - latency), rel=1e-12)
    assert reward_of(targets, targets) == 1
    assert reward_of(targets, targets, reward="archgym") == pytest.approx(10_000)


def test_an_evaluation_gives_the_reward_and_what_was_observed() -> None:
    problem = make("dram-v0", workload="cloud-2", target="latency", requests=300)
    assert isinstance(problem, Problem)
    [config] = problem.space.sample(1, seed=5)
    feedback = evaluate(problem, config)
    assert feedback.status == "ok"
    info = feedback.info
    run = problem.simulate(config)
    assert info["latency"] == run.latency_ns
    assert info["power"] == run.power_w
    assert info["energy"] == run.energy_uj
    assert info["bandwidth"] == run.bandwidth_bytes_s
    target = (11 + 11 + 4) * 1.25
    assert problem.targets == {"latency": target}
    expected = 1 / (1 + abs(run.latency_ns - target) / target)
    assert feedback.objectives == {"reward": expected}


def test_nothing_is_carried_from_one_evaluation_to_the_next() -> None:
    one = make("dram-v0", workload="cloud-1", requests=300)
    other = pickle.loads(pickle.dumps(make("dram-v0", workload="cloud-1", requests=300)))
    configs = one.space.sample(8, seed=1)
    forth = [one.evaluate(c) for c in configs]
    back = [other.evaluate(c) for c in reversed(configs)][::-1]
    assert forth == back
    assert one.targets == other.targets


def test_parameters_matter() -> None:
    found = {}
    for name in ("stream", "random", "cloud-1", "cloud-2", "llm-decode"):
        problem = make("dram-v0", workload=name, requests=3000)
        default = problem.space.default()
        base = problem.evaluate(default)
        for key, parameter in problem.space.items():
            for value in parameter.values_on_grid(10):
                if problem.evaluate({**default, key: value}) != base:
                    found.setdefault(key, name)
    # Split by kind, answers out of order and so on: all but what is fixed changes what is measured.
    assert set(found) == set(dram_space()) - {"refresh_policy"}


def test_targets_and_weights_of_ones_own_and_a_trace_from_a_file(tmp_path: Path) -> None:
    workload("random", requests=100).save(path := tmp_path / "mine.trace")
    problem = make(
        workload=path,
        spec="DDR4-2400",
        target="joint",
        targets={"power": 1.0, "latency": 40.0},
        weights={"latency": 0.0},
        interleave=True,
        ranks=2,
    )
    assert problem.name == "dram-mine-joint"
    found = problem.evaluate(problem.space.default())
    assert found["reward"] == pytest.approx(1 / (1 + abs(found["power"] - 1.0)))
    assert make(workload=str(path), requests=9).controller.trace.name == "mine"
    assert make(workload=workload("stream", requests=10)).name == "dram-stream-joint"


def test_a_trace_without_requests_is_an_error(tmp_path: Path) -> None:
    (path := tmp_path / "empty.stl").write_text("# nothing\n")
    with pytest.raises(ConfigError, match="'empty' has no requests"):
        make(workload=path)


def test_a_design_without_refreshes_must_be_asked_for() -> None:
    config = {**dram_space().default(), "refresh_policy": "NoRefresh"}
    plain = make(workload="stream", requests=50)
    assert "loses the data" in str(evaluate(plain, config).error)
    lossy = make(workload="stream", requests=50, allow_no_refresh=True)
    assert lossy.evaluate(config)["reward"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "dram-v1"}, "no problem 'dram-v1'. Did you mean 'dram-v0'"),
        ({"workload": "streams"}, "no workload 'streams'. Did you mean 'stream'"),
        ({"targett": "power"}, "no option 'targett'. Did you mean 'target'"),
        ({"target": "speed"}, "target='speed' must be one of power, latency, joint"),
        ({"reward": "ratio"}, "reward='ratio' must be one of bounded, archgym"),
        ({"epsilon": 0.0}, "epsilon=0.0"),
        ({"target": "power", "targets": {"latency": 1.0}}, "this target has power"),
        ({"targets": {"latency": 0.0}}, r"targets\['latency'\]=0.0 must be positive"),
        ({"weights": {"latency": math.nan}}, r"weights\['latency'\]=nan must be at least 0"),
    ],
)
def test_wrong_options_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**{"requests": 20, **options})


def test_a_study_finds_a_better_controller(tmp_path: Path) -> None:
    problem = find_problem("dram-v0", {"workload": "cloud-1", "requests": 500})
    default = problem.evaluate(problem.space.default(), sh.core.problem.TrialContext())["reward"]
    study = sh.Study(
        problem, optimizer="ga", store=tmp_path / "s.db", budget=sh.Budget(trials=120), seed=2
    ).run()
    assert study.best.value > default
    assert study.best.feedback is not None
    assert {"power", "latency", "energy"} <= set(study.best.feedback.info)
