import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError, SpaceError
from sharpen.core.parameters import Bool, Categorical, Fixed, Float, Int, Ordinal, Parameter

floats = st.builds(
    lambda low, width: Float(low, low + width),
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e6),
)
log_floats = st.builds(
    lambda low, ratio: Float(low, low * ratio, log=True), st.floats(1e-9, 1e6), st.floats(1.1, 1e9)
)
stepped = st.builds(
    lambda low, step, n: Float(low / 4, low / 4 + step * n, step=step),
    st.integers(-100, 100),
    st.sampled_from([0.1, 0.25, 0.5, 3.0]),
    st.integers(1, 50),
)
ints = st.builds(
    lambda low, width, step: Int(low, low + width, step=min(step, width)),
    st.integers(-(10**9), 10**9),
    st.integers(1, 2**40),
    st.integers(1, 7),
)
log_ints = st.builds(
    lambda low, width: Int(low, low + width, log=True), st.integers(1, 10**6), st.integers(1, 2**40)
)
scalars = st.one_of(st.text(max_size=5), st.integers(-9, 9), st.booleans())
choices = st.lists(scalars, min_size=2, max_size=6, unique_by=lambda v: (type(v), v))
categoricals = choices.flatmap(
    lambda values: st.one_of(
        st.just(Categorical(*values)),
        st.lists(st.floats(0.01, 10), min_size=len(values), max_size=len(values)).map(
            lambda w: Categorical(*values, weights=w)
        ),
    )
)
parameters = st.one_of(
    floats,
    log_floats,
    stepped,
    ints,
    log_ints,
    categoricals,
    choices.map(Ordinal),
    st.just(Bool()),
    scalars.map(Fixed),
)
units = st.floats(0, 1)


@given(parameters, units)
def test_every_value_is_allowed_and_comes_back_from_its_coordinate(
    parameter: Parameter, u: float
) -> None:
    value = parameter.from_unit(u)
    assert parameter.check(value) == value
    coordinate = parameter.to_unit(value)
    assert 0 <= coordinate <= 1
    again = parameter.from_unit(coordinate)
    if isinstance(parameter, Float) and parameter.step is None:
        # Rounding of the two scalings; relative to the value on a logarithmic axis.
        scale = value if parameter.log else max(abs(parameter.low), abs(parameter.high))
        assert again == pytest.approx(value, abs=1e-13 * scale * (30 if parameter.log else 4))
    else:
        assert again == value
        assert type(again) is type(value)


@given(parameters, units)
def test_a_coordinate_moves_by_at_most_half_a_bin(parameter: Parameter, u: float) -> None:
    if isinstance(parameter, Fixed):
        return
    moved = abs(parameter.to_unit(parameter.from_unit(u)) - u)
    widths, rounding = [1 / parameter.cardinality], 1e-9
    if isinstance(parameter, Float) and not parameter.log:  # a narrow range far from zero
        rounding += 1e-15 * abs(parameter.low) / (parameter.high - parameter.low)
    if isinstance(parameter, Categorical) and parameter.weights:
        widths = [max(parameter.weights) / math.fsum(parameter.weights)]
    if isinstance(parameter, Int) and parameter.log:
        span = math.log((parameter.high + 0.5) / (parameter.low - 0.5))
        # A bin is skewed on this axis: its longer part is below the integer.
        widths = [2 * math.log(parameter.low / (parameter.low - 0.5)) / span]
    assert moved <= widths[0] / 2 + rounding


@given(parameters)
def test_the_ends_of_the_interval_are_the_ends_of_the_range(parameter: Parameter) -> None:
    first, last = parameter.from_unit(0.0), parameter.from_unit(1.0)
    if isinstance(parameter, (Float, Int)):
        assert first == parameter.low
        assert parameter.low < last <= parameter.high
        if getattr(parameter, "step", 1) in (None, 1):
            assert last == pytest.approx(parameter.high, rel=1e-12)
    elif isinstance(parameter, Categorical):
        assert (first, last) == (parameter.choices[0], parameter.choices[-1])


@pytest.mark.parametrize(
    ("parameter", "share"),
    [
        (Int(1, 4), [0.25] * 4),
        (Int(0, 6, step=3), [1 / 3] * 3),
        (Float(0.1, 0.5, step=0.1), [0.2] * 5),
        (Categorical("a", "b", "c", weights=[1, 2, 5]), [1 / 8, 2 / 8, 5 / 8]),
        (Bool(), [0.5, 0.5]),
        (Ordinal([16, 32, 64]), [1 / 3] * 3),
        (Int(1, 3, log=True), list(np.diff(np.log([0.5, 1.5, 2.5, 3.5])) / math.log(7))),
    ],
)
def test_a_uniform_coordinate_gives_each_value_its_share(
    parameter: Parameter, share: list[float]
) -> None:
    values = [parameter.from_unit((i + 0.5) / 50_000) for i in range(50_000)]
    distinct = sorted(set(values), key=values.index)
    assert len(distinct) == len(share) == parameter.cardinality
    got = [values.count(value) / 50_000 for value in distinct]
    assert got == pytest.approx(share, abs=1e-4)


def test_stepped_values_are_what_the_user_writes() -> None:
    parameter = Float(0.1, 0.5, step=0.1)
    assert [parameter.from_unit((k + 0.5) / 5) for k in range(5)] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert parameter.check(0.1 + 0.2) == 0.3
    assert Float(0.2, 0.3, step=0.1).cardinality == 2
    assert Float(-6.25, -6.25 + 0.1, step=0.1).cardinality == 2


def test_values_are_cast_to_the_parameters_type() -> None:
    assert Int(1, 5).check(3.0) == 3
    assert type(Int(1, 5).check(np.int64(3))) is int
    assert type(Float(1, 5).check(np.float32(3))) is float
    assert Bool().check(np.bool_(True)) is True
    assert Categorical((1, 2), (3, 4)).check([3, 4]) == (3, 4)
    assert Categorical(1, True, "1").check(True) is True
    assert Ordinal([1, 2]).check(2.0) == 2


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        (Float(0, 1), 1.5, "from 0.0 to 1.0"),
        (Float(0, 1), float("nan"), "number"),
        (Float(0, 1), True, "number"),
        (Float(0, 1), "0.5", "number"),
        (Float(0, 1, step=0.25), 0.3, "multiple of 0.25"),
        (Int(1, 5), 2.5, "integer from 1 to 5"),
        (Int(1, 5), 9, "integer from 1 to 5"),
        (Int(0, 6, step=3), 2, "multiple of 3"),
        (Categorical("a", "b"), "c", "one of 'a', 'b'"),
        (Categorical(0, 1), True, "one of 0, 1"),
        (Ordinal([1, 2]), 3, "one of 1, 2"),
        (Bool(), 1, "true or false"),
        (Fixed("v"), "w", "one of 'v'"),
    ],
)
def test_a_wrong_value_says_what_is_allowed(parameter: Parameter, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parameter.check(value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Float(1, 1), "less than"),
        (lambda: Float("a", 1), "low must be a finite number"),  # type: ignore[arg-type]
        (lambda: Float(0, math.inf), "high must be"),
        (lambda: Float(0, 1, log=True), "low > 0"),
        (lambda: Float(1, 2, log=True, step=0.1), "exclude"),
        (lambda: Float(0, 1, step=2), "step=2"),
        (lambda: Float(0, 1, step=1e-16), "too many"),
        (lambda: Float(0, 1, default=2), "default must be from"),
        (lambda: Int(1.5, 3), "integer"),  # type: ignore[arg-type]
        (lambda: Int(3, 1), "less than"),
        (lambda: Int(0, 3, log=True), "low >= 1"),
        (lambda: Int(0, 3, step=9), "step=9"),
        (lambda: Int(0, 2**60), "too wide"),
        (lambda: Categorical("a"), "two values"),
        (lambda: Categorical("a", "a"), "twice"),
        (lambda: Categorical("a", None), "choice is text"),
        (lambda: Categorical("a", math.nan), "finite"),
        (lambda: Categorical("a", "b", weights=[1]), "1 weights for 2"),
        (lambda: Categorical("a", "b", weights=[1, 0]), "positive"),
        (lambda: Categorical("a", "b", default="c"), "default must be one of"),
        (lambda: Float(0, 1).active_if("x"), "active_if takes"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_parameter_says_how_to_mend_it(make: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        make()


def test_defaults_are_the_middle_or_the_first_or_what_is_given() -> None:
    assert Float(0, 4).default_value() == 2
    assert Float(1, 100, log=True).default_value() == pytest.approx(10)
    assert Int(1, 9).default_value() == 5
    assert Categorical("a", "b").default_value() == "a"
    assert Bool().default_value() is False
    assert Bool(default=True).default_value() is True
    assert Ordinal([1, 2, 3], default=3).default_value() == 3
    assert Fixed(7).default_value() == 7
    assert Categorical("a", "b", default="b").default_value() == "b"


def test_a_grid_has_all_values_where_there_are_few_enough() -> None:
    assert Int(1, 64, log=True).values_on_grid(64) == list(range(1, 65))
    assert Int(0, 9, step=3).values_on_grid(50) == [0, 3, 6, 9]
    coarse = Int(1, 64, log=True).values_on_grid(8)
    assert coarse == sorted(set(coarse))
    assert 4 <= len(coarse) <= 8
    assert Float(0, 1).values_on_grid(3) == [0.0, 0.5, 1.0]
    assert Float(0, 1, step=0.25).values_on_grid(9) == [0, 0.25, 0.5, 0.75, 1]
