"""Free text in spaces, files and studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as hyp

from sharpen.core.config import Marks
from sharpen.core.errors import ConfigError, SpaceError
from sharpen.core.optimizer import Capabilities, Optimizer, make_optimizer
from sharpen.core.parameter_file import read_parameter
from sharpen.core.parameters import Float
from sharpen.core.problem import Objective, problem
from sharpen.core.space import Space
from sharpen.core.study import Budget, Study
from sharpen.core.text_parameter import Text


class Writer(Optimizer):
    """Adds a letter to the best text so far."""

    name = "writer"
    capabilities = Capabilities(text=True)

    def propose(self, number: int) -> dict[str, Any]:
        if not self.history:
            return self.space.default()
        return {**self.recommend().config, "prompt": f"{self.recommend().config['prompt']}a"}


def space() -> Space:
    return Space(prompt=Text(default="b", max_chars=20), x=Float(0.0, 1.0))


@given(hyp.text(max_size=20), hyp.text(max_size=20))
def test_any_text_is_kept_as_it_is(default: str, value: str) -> None:
    parameter = Text(default=default, max_chars=20, kind="code", constraint="short")
    assert parameter.check(value) == value
    assert read_parameter(parameter.to_dict(), ("p",), Marks({})) == parameter
    holder = Space(p=parameter, x=Float(0.0, 1.0))
    assert holder.dimensions == 1
    assert holder.validate({"p": value, "x": 0.5}) == {"p": value, "x": 0.5}
    assert holder.encode([{"p": value, "x": 0.5}]).x.tolist() == [[0.5]]


@pytest.mark.parametrize("options", [{}, {"default": 3}, {"default": "abc", "max_chars": 2}])
def test_a_text_needs_a_default_that_fits(options: dict[str, Any]) -> None:
    with pytest.raises(SpaceError):
        Text(**options)
    with pytest.raises(ConfigError, match="at most 2"):
        Text(default="", max_chars=2).check("abc")


@pytest.mark.parametrize("name", ["tpe", "random", "cmaes", "ga"])
def test_optimizers_of_vectors_refuse_text(name: str) -> None:
    with pytest.raises(ConfigError, match="free text"):
        make_optimizer(name, space(), [Objective("value")])


def test_a_study_keeps_texts_and_resumes(tmp_path: Path) -> None:
    longest = problem(space(), lambda config: len(config["prompt"]), maximize="length")
    for trials in (3, 6):
        study = Study(
            longest,
            optimizer=Writer,
            store=f"sqlite:///{tmp_path}/study.db",
            budget=Budget(trials=trials),
        ).run()
        assert study.best.config["prompt"] == "b" + "a" * (trials - 1)
        study.export(tmp_path / "trials.csv")
        study.report(tmp_path / "report.html")
    assert "baaaaa" in (tmp_path / "trials.csv").read_text()
