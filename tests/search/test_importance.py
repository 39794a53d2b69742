"""fANOVA against brute force on its own forest, and against functions whose shares are known."""

import json
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor
from typer.testing import CliRunner

import sharpen as sh
from sharpen.cli.main import build_app
from sharpen.core.errors import ConfigError, DataError
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.problem import Objective
from sharpen.core.space import Space
from sharpen.search.importance import _boxes, _pair, _single, importance

SPACE = Space(a=sh.Float(0, 1), b=sh.Float(0, 1), c=sh.Float(0, 1))


def trials(space: Space, function: Any, count: int = 400) -> list[Trial]:
    made = []
    for number, config in enumerate(space.sample(count, seed=3)):
        feedback = Feedback(objectives={"v": function(config)})
        made.append(Trial(number=number, config=config, state="ok", feedback=feedback))
    return made


def test_shares_are_exact_on_the_forests_own_trees() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((60, 3))
    y = x[:, 0] * 3 + np.sin(6 * x[:, 1]) * x[:, 2]
    tree = RandomForestRegressor(1, min_samples_leaf=4, random_state=1).fit(x, y).estimators_[0]
    box = _boxes(tree.tree_, 3)
    cuts = [np.unique(np.concatenate([[0.0, 1.0], box[0][:, j], box[1][:, j]])) for j in range(3)]
    middle = [(c[1:] + c[:-1]) / 2 for c in cuts]
    width = [np.diff(c) for c in cuts]
    grid = np.stack(np.meshgrid(*middle, indexing="ij"), axis=-1)
    value = tree.predict(grid.reshape(-1, 3)).reshape(grid.shape[:-1])
    mean = np.einsum("ijk,i,j,k", value, *width)
    variance = np.einsum("ijk,i,j,k", (value - mean) ** 2, *width)
    assert box[3] == pytest.approx(variance, rel=1e-9)
    axes = ["ijk,j,k->i", "ijk,i,k->j", "ijk,i,j->k"]
    others = [(1, 2), (0, 2), (0, 1)]
    alone = [
        width[j] @ (np.einsum(axes[j], value, *(width[o] for o in others[j])) - mean) ** 2
        for j in range(3)
    ]
    np.testing.assert_allclose(_single(*box), np.array(alone) / variance, rtol=1e-9)
    for (j, k), axis in {(0, 1): "ijk,k->ij", (0, 2): "ijk,j->ik", (1, 2): "ijk,i->jk"}.items():
        (o,) = {0, 1, 2} - {j, k}
        both = width[j] @ (np.einsum(axis, value, width[o]) - mean) ** 2 @ width[k]
        wanted = (both - alone[j] - alone[k]) / variance
        assert _pair(*box, j, k) == pytest.approx(wanted, abs=1e-9)


def test_shares_of_a_sum_are_those_of_its_terms() -> None:
    found = importance(SPACE, trials(SPACE, lambda c: 4 * c["a"] + 2 * c["b"]), Objective("v"))
    assert list(found.parameters) == ["a", "b", "c"]
    assert found.parameters["a"] == pytest.approx(0.8, abs=0.06)
    assert found.parameters["b"] == pytest.approx(0.2, abs=0.06)
    assert found.parameters["c"] < 0.01
    assert found.fit > 0.9
    assert found.trials == 400
    assert all(share < 0.05 for share in found.pairs.values())


def test_a_product_is_the_work_of_a_pair() -> None:
    found = importance(
        SPACE, trials(SPACE, lambda c: (c["a"] - 0.5) * (c["b"] - 0.5), 800), Objective("v")
    )
    assert max(found.parameters.values()) < 0.2
    assert next(iter(found.pairs)) in (("a", "b"), ("b", "a"))
    assert next(iter(found.pairs.values())) > 0.5


def test_the_path_from_the_default_changes_what_gains_most_first() -> None:
    space = Space(a=sh.Float(0, 1, default=0.0), b=sh.Float(0, 1, default=0.0), k=sh.Bool())
    for sign, direction in ((1, "min"), (-1, "max")):
        found = importance(
            space,
            trials(space, lambda c, s=sign: s * (-5 * c["a"] - c["b"])),
            Objective("v", direction),  # type: ignore[arg-type]
        )
        assert [name for name, _ in found.ablation][:2] == ["a", "b"]
        values = [sign * value for _, value in found.ablation]
        assert values[0] < -3
        assert values == sorted(values, reverse=True)


def test_every_kind_of_parameter_is_ranked() -> None:
    space = Space(
        order=sh.Permutation(3), chosen=sh.Subset(3), kind=sh.Categorical("x", "y"),
        depth=sh.Int(1, 9).active_if(sh.Eq("kind", "x")),
    )  # fmt: skip
    found = importance(space, trials(space, lambda c: float(c["order"][0] == 2)), Objective("v"))
    assert next(iter(found.parameters)) == "order"
    assert found.parameters["order"] > 0.5


def test_too_little_is_an_error() -> None:
    with pytest.raises(DataError, match="needs 8 trials; 5 are ok"):
        importance(SPACE, trials(SPACE, lambda c: c["a"], 5), Objective("v"))
    with pytest.raises(DataError, match="the same 'v'"):
        importance(SPACE, trials(SPACE, lambda c: 1.0, 20), Objective("v"))
    with pytest.raises(ConfigError, match="trees=0"):
        importance(SPACE, trials(SPACE, lambda c: c["a"], 20), Objective("v"), trees=0)


def test_a_study_tells_it_and_so_does_the_command(tmp_path: Any) -> None:
    problem = sh.problem(SPACE, lambda c: 4 * c["a"] + c["b"], minimize="v", name="sum")
    study = sh.Study(
        problem, optimizer="sobol", store=tmp_path / "s.db", budget=sh.Budget(trials=64)
    ).run()
    found = study.importance()
    assert next(iter(found.parameters)) == "a"
    with pytest.raises(ConfigError, match="no objective 'w'"):
        study.importance("w")
    command = ["search", "importance", "sum", "--store", str(tmp_path / "s.db")]
    result = CliRunner().invoke(build_app(command), [*command, "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["parameters"] == found.parameters
    assert document["ablation"][0]["parameter"] == "a"
    shown = CliRunner().invoke(build_app(command), command)
    assert "share of the variance" in shown.output
    report = study.report(tmp_path / "r.html").read_text()
    assert "Importance for v" in report
