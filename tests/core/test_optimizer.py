from importlib.metadata import EntryPoint
from typing import Any

import pytest

from sharpen.core import optimizer as optimizer_module
from sharpen.core.conditions import Eq
from sharpen.core.errors import ConfigError, DependencyNotInstalled
from sharpen.core.optimizer import Candidate, Capabilities, find_optimizer, suitable
from sharpen.core.parameters import Bool, Float
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search import Random, Sobol

SPACE = Space(x=Float(-5, 5))


class Plain(Random):
    capabilities = Capabilities(conditional=False, forbidden=False, max_dimensions=2)


def test_optimizers_are_found_by_name_and_by_what_they_can() -> None:
    assert find_optimizer("random").__name__ == "Random"
    with pytest.raises(ConfigError, match="Did you mean 'random'"):
        find_optimizer("randon")
    assert {"random", "sobol"} <= set(suitable(SPACE, [Objective("a"), Objective("b")]))
    wide = Space({f"x{i}": Float(0, 1) for i in range(21_202)})
    assert "sobol" not in suitable(wide, [Objective("a")])
    with pytest.raises(ConfigError, match=r"cannot handle 21202 parameters.*Able to: .*random"):
        find_optimizer("sobol")(wide)


def test_a_candidates_result_knows_whether_it_is_feasible() -> None:
    candidate = Candidate(number=0, config={"x": 1.0}, constraints=(Constraint("m", "<=", 1.0),))
    assert candidate.result({"value": 1.0, "m": 0.5}).feasible
    assert not candidate.result({"value": 1.0, "m": 2.0}).feasible


@pytest.mark.parametrize(
    ("space", "objectives", "constraints", "lacks"),
    [
        (SPACE, [Objective("a"), Objective("b")], [], "2 objectives"),
        (SPACE, [Objective("a")], [Constraint("m")], "constraints"),
        (Space(x=Bool(), y=Bool().active_if(Eq("x", True))), [Objective("a")], [], "conditional"),
        (SPACE.forbid("x > 1"), [Objective("a")], [], "forbidden combinations"),
        (Space(a=Bool(), b=Bool(), c=Bool()), [Objective("a")], [], "3 parameters"),
    ],
)
def test_what_an_optimizer_cannot_handle_is_refused_and_others_are_named(
    space: Space, objectives: Any, constraints: Any, lacks: str
) -> None:
    with pytest.raises(ConfigError, match=rf"cannot handle {lacks}.*Able to: .*random"):
        Plain(space, objectives, constraints)


def test_misuse_is_explained() -> None:
    optimizer = Random(SPACE)
    with pytest.raises(ConfigError, match="n >= 1"):
        optimizer.ask(0)
    with pytest.raises(ConfigError, match="nothing to recommend"):
        optimizer.recommend()
    with pytest.raises(ConfigError, match="use the Pareto set"):
        Random(SPACE, [Objective("a"), Objective("b")]).recommend()
    with pytest.raises(ConfigError, match="state is of 'random', not of 'sobol'"):
        Sobol(SPACE).load_state_dict(optimizer.state_dict())


def test_an_optimizer_whose_package_is_missing_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    point = EntryPoint("gone", "sharpen_no_such_package:Gone", "sharpen.optimizers")
    monkeypatch.setattr(optimizer_module.metadata, "entry_points", lambda group: [point])
    with pytest.raises(DependencyNotInstalled, match=r"sharpen_no_such_package.*sharpen\[search\]"):
        find_optimizer("gone")
