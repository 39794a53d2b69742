import json

import pytest
from hypothesis import given

from drawn_spaces import drawn_spaces
from sharpen.core.conditions import Eq
from sharpen.core.errors import ConfigError, SpaceError
from sharpen.core.parameters import Bool, Categorical, Fixed, Float, Int, Ordinal
from sharpen.core.space import Space
from sharpen.core.spaces import from_optuna, to_optuna, without
from sharpen.testing.search import mixed_space

KINDS = ["float", "log float", "stepped float", "int", "log int", "stepped int", "bool", "fixed"]


@given(drawn_spaces([*KINDS, "words", "numbers"]))
def test_what_is_written_reads_back_equal(space: Space) -> None:
    assert from_optuna(to_optuna(space)) == space


@pytest.mark.peer
def test_optuna_reads_and_writes_the_same() -> None:
    optuna = pytest.importorskip("optuna")
    d = optuna.distributions
    space = Space(
        x=Float(0, 1, step=0.25),
        lr=Float(1e-5, 1, log=True),
        n=Int(1, 9, step=2),
        kind=Categorical("a", 3, 0.5),
        flag=Bool(),
    )
    read = {name: d.json_to_distribution(text) for name, text in to_optuna(space).items()}
    assert read == {
        "x": d.FloatDistribution(0, 1, step=0.25),
        "lr": d.FloatDistribution(1e-5, 1, log=True),
        "n": d.IntDistribution(1, 9, step=2),
        "kind": d.CategoricalDistribution(["a", 3, 0.5]),
        "flag": d.CategoricalDistribution([False, True]),
    }
    assert from_optuna({n: d.distribution_to_json(v) for n, v in read.items()}) == space


def test_everything_that_is_lost_is_named_at_once() -> None:
    with pytest.raises(SpaceError) as caught:
        to_optuna(mixed_space())
    for part in ("'order' (a Permutation)", "active_if of 'depth'", "the forbidden clause"):
        assert part in str(caught.value)
    space = Space(
        a=Categorical("x", "y", weights=[1, 2], default="y", description="d"),
        b=Ordinal([1, 2]),
        c=Categorical((1, 2), 3),
    )
    with pytest.raises(SpaceError, match="default of 'a'; description of 'a'; weights of 'a'; 'b'"):
        to_optuna(space)
    plain = without(space, "default", "description", "weights").subspace(["a"])
    assert from_optuna(to_optuna(plain)) == Space(a=Categorical("x", "y"))
    with pytest.raises(SpaceError, match="a choice that is a tuple"):
        to_optuna(space.subspace(["c"]))


def test_only_what_changes_no_configuration_may_be_dropped() -> None:
    space = Space(a=Bool(), b=Int(1, 9, log=True, unit="MB").active_if(Eq("a", True)))
    assert without(space, "log", "unit")["b"] == Int(1, 9).active_if(Eq("a", True))
    with pytest.raises(SpaceError, match="not 'active_if'"):
        without(space, "active_if")


def test_what_is_no_parameter_is_refused() -> None:
    def one(name: str, **attributes: object) -> dict[str, str]:
        return {"p": json.dumps({"name": name, "attributes": attributes})}

    assert from_optuna(one("IntDistribution", low=3, high=3))["p"] == Fixed(3)
    with pytest.raises(ConfigError, match="'p' has the choice None"):
        from_optuna(one("CategoricalDistribution", choices=[None, 1]))
    with pytest.raises(ConfigError, match="'p' has the distribution Gamma"):
        from_optuna(one("Gamma", low=0))
