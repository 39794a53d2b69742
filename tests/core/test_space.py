import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from sharpen.core.collections import Permutation, Subset
from sharpen.core.conditions import Eq, Gt, P
from sharpen.core.config import parse_yaml
from sharpen.core.errors import ConfigError, SpaceError
from sharpen.core.parameters import Bool, Categorical, Fixed, Float, Int
from sharpen.core.space import Space, random_stream
from sharpen.core.text_parameter import Text
from sharpen.testing.search import mixed_space

SPACE = mixed_space()
points = st.lists(st.floats(0, 1), min_size=SPACE.dimensions, max_size=SPACE.dimensions)


@given(points)
def test_decoded_configurations_are_active_consistent_and_encode_back(point: list[float]) -> None:
    (config,) = SPACE.decode([point])
    assert ("depth" in config) == (config["kind"] == "b")
    assert ("width" in config) == (config["kind"] == "b" and config["depth"] > 4)
    encoded = SPACE.encode([config])
    assert encoded.x.shape == encoded.mask.shape == (1, SPACE.dimensions)
    assert [n for n, c in SPACE.columns.items() if encoded.mask[0, c].all()] == list(config)
    assert encoded.mask.sum() == sum(SPACE[n].width for n in config)
    assert bool(np.all(encoded.x[~encoded.mask] == 0.5))
    (again,) = SPACE.decode(encoded.x)
    assert {k: again[k] for k in again if k not in ("x", "lr")} == {
        k: config[k] for k in config if k not in ("x", "lr")
    }
    assert again["x"] == pytest.approx(config["x"], abs=1e-15)
    assert again["lr"] == pytest.approx(config["lr"], rel=1e-13)


EDGES = Space(
    low=Float(0.1, 0.7, step=0.2),
    count=Int(3, 900, log=True),
    stride=Int(-4, 9, step=3),
    weighted=Categorical("a", "b", "c", weights=[1, 5, 2]),
    even=Categorical("x", "y", "z"),
    real=Float(-3, 7.7).active_if(P("count") > 30),
    child=Float(1e-3, 9.0, log=True).active_if(P("real") > 1.5),
    odd=Int(0, 4).active_if(Eq("weighted", "b")),
    order=Permutation(["p", "q", "r"]).active_if(Eq("weighted", "b")),
    some=Subset(4, min=2, max=3),
).forbid(P("real") + P("low") > 6, P("odd") * P("real") < -1, "weighted == 'a' and even == 'y'")


@given(st.sampled_from([SPACE, EDGES]), st.integers(0, 2**32), st.integers(0, 60))
def test_settling_all_at_once_is_settling_each_to_the_bit(
    space: Space, seed: int, count: int
) -> None:
    drawn = np.random.default_rng(seed).random((count, space.dimensions))
    # Bin edges and equal keys too.
    drawn = np.where(drawn < 0.3, np.round(drawn * 12) / 12, drawn)
    before = drawn.copy()
    one, all_at_once = random_stream(seed, 1), random_stream(seed, 1)
    configs = [space.settle(row, one) for row in drawn]
    expected = space.encode(configs)
    settled, encoded = space.settle_all(drawn, all_at_once)
    assert space.decode(settled) == configs
    assert np.array_equal(encoded.x, expected.x)
    assert np.array_equal(encoded.mask, expected.mask)
    assert np.array_equal(drawn, before)
    assert one.random() == all_at_once.random()


@given(points, st.randoms())
def test_canonical_form_does_not_depend_on_key_order_or_number_types(
    point: list[float], random: Any
) -> None:
    (config,) = SPACE.decode([point])
    keys = list(config)
    random.shuffle(keys)
    shuffled = {k: np.float64(config[k]) if k in ("x", "size") else config[k] for k in keys}
    assert SPACE.canonical(shuffled) == SPACE.canonical(config)
    assert SPACE.digest(shuffled) == SPACE.digest(config)
    stored = json.loads(SPACE.canonical(config))
    assert {name: SPACE[name].check(value) for name, value in stored.items()} == config


@given(points, points)
def test_digests_differ_when_configurations_do(a: list[float], b: list[float]) -> None:
    first, second = SPACE.decode([a, b])
    assert (SPACE.digest(first) == SPACE.digest(second)) == (first == second)


def test_uniform_points_give_uniform_marginals() -> None:
    space = Space(n=Int(-2, 2), s=Float(0, 1, step=0.25), x=Float(1, 100, log=True), b=Bool())
    configs = space.decode(np.random.default_rng(0).random((4000, 4)))
    for name in ("n", "s", "b"):
        _, counts = np.unique([c[name] for c in configs], return_counts=True)
        assert len(counts) == space[name].cardinality
        assert chisquare(counts).pvalue > 1e-3
    assert kstest([math.log(c["x"], 100) for c in configs], "uniform").pvalue > 1e-3


def test_samples_are_valid_repeatable_and_avoid_what_is_forbidden() -> None:
    configs = SPACE.sample(200, seed=3)
    assert configs == SPACE.sample(200, seed=3) != SPACE.sample(200, seed=4)
    for config in configs:
        assert SPACE.validate(config) == config
        assert config["x"] + config["grid"] <= 1.5


def test_forbidden_clauses_that_leave_little_are_met_by_repair_and_nothing_is_an_error() -> None:
    corner = Space(x=Float(0, 1), y=Float(0, 1), z=Float(0, 1)).forbid("x > 0.01", "z < 0")
    config = corner.settle([0.9, 0.7, 0.2], random_stream(0, 5))
    assert config["x"] <= 0.01
    assert (config["y"], config["z"]) == (0.7, 0.2)
    with pytest.raises(SpaceError, match="feasible volume too small"):
        Space(x=Float(0, 1)).forbid("x >= 0").sample()


def test_validate_lists_every_problem_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        SPACE.validate({"x": 7, "lr": "fast", "kinds": "a", "flag": 1})
    for part in ("x must be", "lr must be", "'kinds'. Did you mean 'kind'?", "flag must be"):
        assert part in str(caught.value)
    good = SPACE.default()
    assert SPACE.validate(good) == good
    with pytest.raises(ConfigError, match=r"depth is given but inactive: it needs kind == 'b'"):
        SPACE.validate({**good, "depth": 3})
    with pytest.raises(ConfigError, match="depth is missing"):
        SPACE.validate({**good, "kind": "b"})
    with pytest.raises(ConfigError, match=r"forbidden: \(x \+ grid\) > 1.5"):
        SPACE.validate({**good, "x": 1.0, "grid": 1.0})


def test_plain_data_reads_back_as_an_equal_space() -> None:
    data = json.loads(json.dumps(SPACE.to_dict()))
    again = Space.from_dict(data)
    assert again == SPACE
    assert hash(again) == hash(SPACE)
    assert again.fingerprint == SPACE.fingerprint
    assert again != Space(x=Float(0, 1))
    assert again.sample(5) == SPACE.sample(5)
    with pytest.raises(SpaceError, match="schema"):
        Space.from_dict({**data, "schema": "sharpen.space/9"})


def test_a_grid_is_the_product_of_the_axes_without_repetition() -> None:
    space = Space(
        x=Float(0, 1), n=Int(1, 3), kind=Categorical("a", "b"), d=Bool().active_if(Eq("kind", "b"))
    )
    grid = space.grid(3)
    expected = [
        {"x": x, "n": n, "kind": kind, **({"d": d} if d is not None else {})}
        for x, n, (kind, d) in itertools.product(
            [0.0, 0.5, 1.0], [1, 2, 3], [("a", None), ("b", False), ("b", True)]
        )
    ]
    key = space.canonical
    assert sorted(map(key, grid)) == sorted(map(key, expected))
    assert len(space.forbid("n > 1").grid(3)) == 9


def test_cardinality_and_mapping() -> None:
    assert Space(a=Int(1, 3), b=Bool(), c=Fixed(1)).cardinality == 6
    assert SPACE.cardinality == math.inf
    assert list(SPACE)[:2] == ["x", "lr"]
    assert "Space(x, lr" in repr(SPACE)
    assert SPACE.is_conditional
    assert Space({"train.lr": Float(0, 1)}, seed=Int(0, 3)).default() == {
        "train.lr": 0.5,
        "seed": 2,
    }


def test_freezing_holds_a_value_and_keeps_conditions_and_clauses() -> None:
    frozen = SPACE.freeze(kind="b", depth=6)
    for config in frozen.sample(20):
        assert (config["kind"], config["depth"]) == ("b", 6)
        assert "width" in config
    assert frozen.forbidden == SPACE.forbidden
    with pytest.raises(ConfigError, match="depth must be"):
        SPACE.freeze(depth=99)
    with pytest.raises(ConfigError, match="Did you mean 'depth'"):
        SPACE.freeze(dept=3)


@given(points, st.integers(0, 2**32))
def test_neighbors_are_allowed_different_and_one_parameter_away(point: list[float], n: int) -> None:
    config = SPACE.settle(point, random_stream(n, 0))
    found = SPACE.neighbors(config, 8, seed=n)
    assert len({SPACE.canonical(c) for c in [config, *found]}) == len(found) + 1 == 9
    assert SPACE.neighbors(config, 3, seed=n) == found[:3]
    for near in found:
        assert SPACE.validate(near) == near
        # Parameters that both have: one moved, unless it took others out or brought them in.
        differ = [name for name in near if name in config and near[name] != config[name]]
        assert len(differ) == 1
        for name in near.keys() - config.keys():
            assert near[name] == SPACE[name].default_value()


def test_neighbors_are_near_and_as_many_as_there_are() -> None:
    space = Space(x=Float(0, 10), n=Int(0, 9), kind=Categorical("a", "b", "c")).forbid(
        "kind == 'c'"
    )
    center = {"x": 5.0, "n": 5, "kind": "a"}
    found = space.neighbors(center, 400, scale=0.02)
    moves = np.array([c["x"] - 5.0 for c in found if c["x"] != 5.0])
    assert 0.15 < moves.std() < 0.25  # 0.02 of the range
    assert {c["n"] for c in found} == {4, 5, 6}
    assert {c["kind"] for c in found} == {"a", "b"}
    small = Space(kind=Categorical("a", "b", "c"), one=Fixed(1))
    assert len(small.neighbors(small.default(), 50)) == 2
    assert Space(one=Fixed(1)).neighbors({"one": 1}, 3) == []
    with pytest.raises(ConfigError, match="kind is missing"):
        small.neighbors({"one": 1})


def test_a_subspace_has_what_its_names_depend_on_or_says_what_lacks() -> None:
    space = Space(
        a=Int(1, 4), b=Int(1, 4), kind=Bool(), c=Int(1, 4).active_if(Eq("kind", True))
    ).forbid("a + b > 7", "a == 3")
    part = space.subspace(iter(["b", "a"]))
    assert part == Space(a=Int(1, 4), b=Int(1, 4)).forbid("a + b > 7", "a == 3")
    assert space.subspace(["c", "kind"]).forbidden == ()
    with pytest.raises(SpaceError, match=r"clause .*a \+ b.* needs b, left out"):
        space.subspace(["a"])
    with pytest.raises(SpaceError, match="'c' is active if kind == True: it needs kind"):
        space.subspace(["c"])
    with pytest.raises(ConfigError, match=r"unknown parameter 'kinds'.*Did you mean 'kind'"):
        space.subspace(["kinds"])


@given(points, points)
def test_a_union_holds_both_with_their_conditions_and_clauses(
    one: list[float], two: list[float]
) -> None:
    joined = SPACE.union(SPACE, prefix="other")
    rng = random_stream(0, 0)
    first, second = SPACE.settle(one, rng), SPACE.settle(two, rng)
    both = {**first, **{f"other.{name}": value for name, value in second.items()}}
    assert joined.validate(both) == both
    assert Space.from_dict(joined.to_dict()) == joined
    assert len(joined.forbidden) == 2 * len(SPACE.forbidden)


def test_a_union_may_be_active_in_part() -> None:
    inner = Space(b=Bool(), c=Int(0, 3).active_if(Eq("b", True))).forbid("c == 2")
    space = Space(kind=Categorical("x", "y")).union(inner, active_if=Eq("kind", "y"))
    assert space.default() == {"kind": "x"}
    assert space.validate({"kind": "y", "b": True, "c": 1})
    for wrong in ({"kind": "x", "b": True}, {"kind": "y", "b": False, "c": 1}):
        with pytest.raises(ConfigError, match="inactive"):
            space.validate(wrong)
    with pytest.raises(ConfigError, match="forbidden"):
        space.validate({"kind": "y", "b": True, "c": 2})
    with pytest.raises(SpaceError, match="both spaces have b, c"):
        space.union(inner)
    with pytest.raises(SpaceError, match="active_if names 'sort'"):
        space.union(inner, prefix="z", active_if=Eq("sort", "y"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Space(), "needs a parameter"),
        (lambda: Space({"a b": Bool()}), "no name"),
        (lambda: Space(a=3), "Use Float"),  # type: ignore[arg-type]
        (lambda: Space(a=Bool().active_if(Eq("bb", 1)), b=Bool()), "names 'bb'.*Did you mean"),
        (
            lambda: Space(
                a=Bool().active_if(Eq("b", True)),
                b=Bool().active_if(Eq("c", True)),
                c=Bool().active_if(Eq("a", True)),
            ),
            "circle: a -> b -> c -> a",
        ),
        (lambda: Space(a=Bool()).forbid("b == 1"), "names 'b'"),
        (lambda: Space(a=Bool()).forbid(3), "forbid takes"),  # type: ignore[arg-type]
        (lambda: Space(a=Bool()).decode([[0.5, 0.5]]), "shape"),
        (lambda: Space(a=Bool()).decode([[1.5]]), "from 0 to 1"),
    ],
)
def test_a_wrong_space_says_what_is_wrong(make: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        make()


def test_conditions_on_an_inactive_parent_leave_the_child_inactive() -> None:
    space = Space(
        kind=Categorical("a", "b"),
        depth=Int(1, 9).active_if(Eq("kind", "b")),
        width=Int(1, 9).active_if(~Gt("depth", 3)),
        either=Bool().active_if(Gt("depth", 3) | Eq("kind", "a")),
    )
    assert space.active({"kind": "a", "depth": 9, "width": 1, "either": True}) == {
        "kind": "a",
        "either": True,
    }
    assert list(space.active({"kind": "b", "depth": 2, "width": 1, "either": True})) == [
        "kind",
        "depth",
        "width",
    ]
    assert (P("depth") + 1 > 3).holds({"kind": "a"}) is None


YAML = """\
space:
  x: {type: float, low: 1e-5, high: 1, log: true, unit: s, description: rate}
  n: {type: int, low: 1, high: 8, default: 2}
  kind: {type: categorical, choices: [a, b], weights: [1, 2]}
  size: {type: ordinal, values: [1, 2, 4]}
  on: {type: bool, active_if: "kind == 'b'"}
  pair: {type: categorical, choices: [[1, 2], [3, 4]]}
  v: {type: fixed, value: 3}
"""


def test_a_space_is_read_from_yaml() -> None:
    document = parse_yaml(YAML, file="study.yaml")
    space = Space.parse(document.data["space"], path=("space",), marks=document.marks)
    assert space == Space(
        x=Float(1e-5, 1, log=True, unit="s", description="rate"),
        n=Int(1, 8, default=2),
        kind=Categorical("a", "b", weights=[1, 2]),
        size=Space.parse({"size": {"type": "ordinal", "values": [1, 2, 4]}})["size"],
        on=Bool().active_if(Eq("kind", "b")),
        pair=Categorical((1, 2), (3, 4)),
        v=Fixed(3),
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x: {type: flaot, low: 0, high: 1}", "study.yaml:2: .*Did you mean 'float'"),
        ("x: {type: float, lo: 0, high: 1}", "study.yaml:2: unknown key 'lo'"),
        ("x: {type: float, low: 2, high: 1}", "study.yaml:2: .*low=2.0 must be less"),
        ("x: {type: categorical, choices: [a]}", "study.yaml:2: .*two values"),
        ("x: {type: bool, active_if: 'y =='}", "study.yaml:2: .*active_if"),
        ("x: {type: bool, active_if: 3}", "study.yaml:2: .*must be text"),
        ("x: {type: bool, active_if: 'y == 1'}", "names 'y'"),
        ("x: 3", "study.yaml:2: .*mapping such as"),
    ],
)
def test_errors_in_yaml_carry_file_and_line(line: str, message: str) -> None:
    document = parse_yaml(f"space:\n  {line}\n", file="study.yaml")
    with pytest.raises(SpaceError, match=message):
        Space.parse(document.data["space"], path=("space",), marks=document.marks)
    with pytest.raises(SpaceError, match="mapping of parameters"):
        Space.parse([], path=("space",), marks=document.marks)


def test_a_text_has_no_neighbors_and_stays_as_it_is() -> None:
    space = Space(rule=Text(default="Be brief."), n=Int(1, 9))
    near = space.neighbors({"rule": "Be kind.", "n": 5}, 4)
    assert len(near) == 4
    assert {one["rule"] for one in near} == {"Be kind."}
    assert Space(rule=Text(default="a")).neighbors({"rule": "b"}, 3) == []
