"""Proxy models: accurate where they can be, honest bars, and no sample both seen and tested."""

from typing import Any

import numpy as np
import pytest

import sharpen as sh
from sharpen.core.errors import ConfigError, DataError
from sharpen.core.problem import Problem, evaluate
from sharpen.problems.arch import Dataset, ProxyModel, Sample, make
from sharpen.problems.arch.proxy import Features

PROBLEM = make(workload="cloud-2", requests=60)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    configs = PROBLEM.space.sample(1500, seed=3)
    agents = ("ga", "aco", "random")
    return Dataset(
        PROBLEM.space,
        (
            Sample(c, PROBLEM.evaluate(c), agents[k % 3], agents[k % 3])
            for k, c in enumerate(configs)
        ),
    )


@pytest.fixture(scope="module")
def forest(dataset: Dataset) -> ProxyModel:
    return ProxyModel.fit(dataset, like=PROBLEM)


def test_a_forest_predicts_what_it_did_not_see(dataset: Dataset, forest: ProxyModel) -> None:
    test = list(forest.test)
    predicted = forest.predict([s.config for s in test])
    for name in ("power", "latency"):
        truth = np.array([s.values[name] for s in test])
        rmse = float(np.sqrt(np.mean((predicted[name] - truth) ** 2)))
        assert forest.quality[name].rmse == pytest.approx(rmse)
        assert forest.quality[name].relative_rmse == pytest.approx(rmse / truth.mean())
        # A mean of all samples is off by their standard deviation.
        assert rmse < 0.35 * truth.std()
    assert forest.quality["power"].relative_rmse < 0.03


def test_no_configuration_is_both_trained_on_and_tested(dataset: Dataset) -> None:
    # Each sample has its own value, so a model that saw it would know it.
    rng = np.random.default_rng(0)
    noise = Dataset(
        dataset.space, [Sample(s.config, {"y": float(rng.normal())}, s.agent, "s") for s in dataset]
    )
    doubled = Dataset(dataset.space, [*noise, *noise])
    assert len(doubled) == len(noise)
    quality = ProxyModel.fit(doubled, target="y").quality["y"]
    assert quality.rmse > 0.9
    assert 0.8 < quality.coverage < 0.98


@pytest.mark.parametrize("model", ["rf", "et", "gbdt", "mlp"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bars_hold_the_truth_at_their_rate(dataset: Dataset, model: Any) -> None:
    made = ProxyModel.fit(dataset, model, target="latency", test=0.4, seed=1)
    for level in (0.5, 0.8, 0.95):
        low, high = made.interval([s.config for s in made.test], level=level)["latency"]
        truth = made.test.values("latency")
        # Four standard deviations of the rate, with 170 calibration and 560 test samples.
        off = 4 * np.sqrt(level * (1 - level) * (1 / 170 + 1 / len(truth)))
        assert np.mean((low <= truth) & (truth <= high)) == pytest.approx(level, abs=off)
    with pytest.raises(ConfigError, match="level=1"):
        made.interval([], level=1.0)


def test_a_split_by_agent_tests_on_agents_that_were_not_seen(dataset: Dataset) -> None:
    made = ProxyModel.fit(dataset, split="by-agent", test=["aco"], target="power")
    assert made.test.agents == ["aco"]
    assert len(made.test) == sum(s.agent == "aco" for s in dataset)
    drawn = ProxyModel.fit(dataset, split="by-agent", test=0.3, target="power")
    assert len(drawn.test.agents) == 1


def test_a_proxy_stands_in_for_its_problem(dataset: Dataset, forest: ProxyModel) -> None:
    assert isinstance(forest, Problem)
    assert forest.objectives == PROBLEM.objectives
    assert forest.space == PROBLEM.space
    config = dataset[0].config
    feedback = evaluate(forest, config)
    predicted = {name: float(v[0]) for name, v in forest.predict([config]).items()}
    assert feedback.objectives == pytest.approx(PROBLEM.score(predicted))
    assert feedback.info["power_std"] > 0
    alone = ProxyModel.fit(dataset, target="power")
    plain = evaluate(alone, config)
    assert set(plain.objectives) == set(plain.std) == {"power"}
    study = sh.Study(forest, optimizer="ga", store="sqlite://", budget=sh.Budget(trials=60)).run()
    true = PROBLEM.evaluate(study.best.config)["reward"]
    assert true > np.median(dataset.values("reward"))


def test_equal_seeds_give_equal_models(dataset: Dataset) -> None:
    configs = [s.config for s in dataset[:20]]
    one, two = (ProxyModel.fit(dataset[:200], target="power", seed=5) for _ in range(2))
    np.testing.assert_array_equal(one.predict(configs)["power"], two.predict(configs)["power"])


def test_features_are_one_column_a_category_and_units_for_the_rest() -> None:
    space = sh.Space(
        kind=sh.Categorical("a", "b", "c"),
        flag=sh.Bool(),
        n=sh.Int(0, 9),
        x=sh.Float(0, 2).active_if(sh.Eq("kind", "b")),
        pick=sh.Categorical("u", "v").active_if(sh.Eq("kind", "a")),
        one=sh.core.parameters.Fixed(3),
    )
    rows = Features(space)(
        [
            {"kind": "b", "flag": True, "n": 0, "x": 0.5, "one": 3},
            {"kind": "a", "flag": False, "n": 9, "pick": "v", "one": 3},
        ]
    )
    expected = [
        [0, 1, 0, 0, 1, 0.05, 0.25, 0, 0],
        [1, 0, 0, 1, 0, 0.95, 0.5, 0, 1],
    ]
    np.testing.assert_allclose(rows, expected)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "svm"}, ConfigError, "model='svm' must be one of rf"),
        ({"split": "time"}, ConfigError, "split='time'"),
        ({"target": "powr"}, ConfigError, "no 'powr'"),
        ({"test": 1.5}, ConfigError, "test=1.5"),
        ({"test": ["ga"]}, ConfigError, "must be a share"),
        ({"split": "by-agent", "test": ["de"]}, ConfigError, "no sample is of the agent 'de'"),
        ({"like": object()}, ConfigError, "has no score"),
    ],
)
def test_wrong_options_are_errors(
    dataset: Dataset, options: dict[str, Any], error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        ProxyModel.fit(dataset[:60], **options)


def test_too_few_samples_are_an_error(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="needs 20 samples to train on"):
        ProxyModel.fit(dataset[:10])
    one = dataset[[k for k, s in enumerate(dataset) if s.agent == "ga"]]
    with pytest.raises(ConfigError, match="needs two agents"):
        ProxyModel.fit(one, split="by-agent")
