from typing import Any

import pytest

import sharpen as sh
from sharpen.core.errors import ConfigError
from sharpen.core.halving_pruners import ASHA, Hyperband
from sharpen.core.problem import TrialContext
from sharpen.core.pruner import Median, Patience, Percentile, PlateauNoise, Threshold
from sharpen.core.pruners import PRUNERS, make_pruner


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("asha", ASHA()),
        ("median", Median()),
        ("patience", Patience()),
        ("percentile", Percentile()),
        ({"name": "hyperband", "max_steps": 27, "eta": 2}, Hyperband(max_steps=27, eta=2)),
        ({"name": "threshold", "upper": 3}, Threshold(upper=3.0)),
        ({"name": "plateau-noise", "window": 9}, PlateauNoise(window=9)),
        (ASHA(eta=4), ASHA(eta=4)),
        ("none", None),
        (None, None),
    ],
)
def test_pruners_are_made_from_names_options_and_objects(given: Any, made: Any) -> None:
    assert make_pruner(given) == made


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("ashs", "pruner must be one of asha, .*threshold or none, got .* Did you mean 'asha'"),
        ({"eta": 3}, "got None"),
        ({"name": "asha", "etta": 3}, "Did you mean 'eta'"),
        ("hyperband", "needs the key 'max_steps'"),
        ("threshold", "give lower or upper"),
        (3, "must be a name or a pruner, got 3"),
    ],
)
def test_wrong_ones_are_refused_with_what_is_right(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_pruner(given)


OPTIONS: dict[str, dict[str, Any]] = {
    "hyperband": {"max_steps": 9},
    "threshold": {"lower": 0.3},
    "patience": {"patience": 2},
    "plateau-noise": {"window": 4},
}


@pytest.mark.parametrize("name", sorted(PRUNERS))
def test_a_study_takes_each_by_name_and_keeps_the_good(name: str) -> None:
    def curve(config: dict[str, Any], trial: TrialContext) -> float:
        for step in range(1, 10):
            value = config["x"] * (step if config["x"] > 0.3 else 1)
            if trial.report(step, value) == "stop":
                break
        return float(config["x"])

    study = sh.Study(
        sh.problem(sh.Space(x=sh.Float(0, 1)), curve, maximize="y"),
        optimizer="random",
        store="sqlite://",
        pruner={"name": name, **OPTIONS.get(name, {})},
        budget=sh.Budget(trials=40),
    ).run()
    pruned = [t.config["x"] for t in study.trials() if t.state == "pruned"]
    assert 5 <= len(pruned) < 40
    assert study.best.config["x"] > 0.9
    assert sum(pruned) / len(pruned) < 0.6
