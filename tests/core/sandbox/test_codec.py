"""Values that cross, and bytes that want to be none."""

from __future__ import annotations

import datetime
import math
import struct
import subprocess
import sys
import time
from collections import Counter, OrderedDict, deque, namedtuple
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sharpen.core.sandbox.inside.codec import (
    MAX_DEPTH,
    CodecError,
    Opaque,
    Raised,
    Record,
    SizeError,
    decode,
    encode,
)
from sharpen.core.sandbox.job import same

keys = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.fractions(),
    st.dates(),
)
plain = st.one_of(
    keys,
    st.floats(),
    st.complex_numbers(),
    st.decimals(allow_nan=False),
    st.datetimes(),
    st.timedeltas(),
    st.times(),
    st.binary().map(bytearray),
    st.builds(range, st.integers(), st.integers(), st.integers(1, 9)),
)
values = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.lists(inner).map(deque),
        st.dictionaries(keys, inner),
        st.dictionaries(keys, inner).map(OrderedDict),
        st.sets(keys),
        st.frozensets(keys),
    ),
    max_leaves=30,
)


@given(values)
def test_values_and_their_types_come_back(value: Any) -> None:
    back = decode(encode(value, strict=True))
    assert same(back, value)
    assert type(back) is type(value)


@given(
    hnp.arrays(
        st.one_of(
            hnp.boolean_dtypes(),
            hnp.integer_dtypes(endianness="?"),
            hnp.floating_dtypes(endianness="?"),
            hnp.complex_number_dtypes(),
            hnp.datetime64_dtypes(),
            hnp.unicode_string_dtypes(),
            hnp.byte_string_dtypes(),
        ),
        hnp.array_shapes(min_dims=0, min_side=0),
    )
)
def test_arrays_keep_type_order_and_shape(array: Any) -> None:
    for given_array in (array, array.T):
        back = decode(encode(given_array, strict=True))
        assert type(back) is type(given_array)
        assert back.dtype == given_array.dtype
        assert back.shape == given_array.shape
        assert back.tobytes() == given_array.tobytes()
        assert not isinstance(back, np.ndarray) or back.flags.writeable


def test_numbers_of_numpy_stay_numpy() -> None:
    for value in (np.float64(1.5), np.int8(-3), np.bool_(True), np.str_("ä")):
        assert type(decode(encode(value))) is type(value)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ([], ()),
        (set(), frozenset()),
        (b"", ""),
        ({}, OrderedDict()),
        (np.float64(1), 1.0),
        (np.zeros(2), np.zeros((2, 1))),
        ({"a": 1}, {"a": True}),
        ([1, 2], [2, 1]),
    ],
)
def test_types_are_told_apart(a: Any, b: Any) -> None:
    assert encode(a) != encode(b)
    assert not same(a, b)
    assert same(a, decode(encode(a)))


def test_nan_is_itself_and_order_of_dicts_does_not_count() -> None:
    assert same(decode(encode(math.nan)), math.nan)
    assert same({1: 2, 3: 4}, {3: 4, 1: 2})
    assert same({1, 2, "x"}, {"x", 2, 1})


@dataclass
class Point:
    x: int
    y: list[int]


Pair = namedtuple("Pair", "a b")


def test_records_cross_by_the_names_of_their_fields() -> None:
    point, pair = decode(encode([Point(1, [2]), Pair(3, "4")], strict=True))
    assert isinstance(point, Record)
    assert (point.type_name, point.x, point.y) == ("Point", 1, [2])
    assert pair == (3, "4")
    assert list(pair) == [3, "4"]
    assert decode(encode(point)) == point
    with pytest.raises(AttributeError, match="no field 'z'"):
        _ = point.z


class Evil(str):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


class Color(IntEnum):
    RED = 7


class Plain(Enum):
    RED = 7


def test_subclasses_leave_their_methods_behind() -> None:
    back = decode(encode(Evil("x")))
    assert type(back) is str
    assert back == "x"
    assert back != "y"
    assert same(decode(encode(Color.RED)), 7)


def test_what_does_not_cross_equals_nothing() -> None:
    class Always:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    back = decode(encode([Always()]))[0]
    assert isinstance(back, Opaque)
    assert back.type_name == "Always"
    assert back != 1
    assert back != back
    assert not same(back, back)
    assert isinstance(decode(encode(i for i in range(3))), Opaque)
    assert isinstance(decode(encode(Plain.RED)), Opaque)
    assert isinstance(decode(encode(np.array([object()]))), Opaque)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([{"x": object()}], r"args\[0\]\['x'\]: <class 'object'>"),
        ([1, (2, [print])], r"args\[1\]\[1\]\[0\]: <class 'builtin_function"),
        ([Point(1, [lambda: 0])], r"args\[0\]\.y\[0\]: <class 'function'>"),  # type: ignore[list-item]
        ([{1: {2: Plain.RED}}], r"args\[0\]\[1\]\[2\]: <enum 'Plain'>"),
    ],
)
def test_a_refused_argument_is_named_by_its_path(value: Any, path: str) -> None:
    with pytest.raises(CodecError, match=path):
        encode(value, strict=True, where="args")


def test_depth_and_cycles() -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    assert decode(encode(value)) == value
    with pytest.raises(CodecError, match="more than 200 deep"):
        encode([value])
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(CodecError, match="within itself"):
        encode(loop)


def test_size() -> None:
    assert len(encode(b"x" * 95, max_bytes=100)) == 100
    for value in (b"x" * 96, ["xxxxxxxx"] * 10, 1 << 1000):
        with pytest.raises(SizeError, match="more than 100 bytes"):
            encode(value, max_bytes=100)
    shared: list[Any] = []
    for _ in range(60):
        shared = [shared, shared]  # 2**60 lists once it is written out
    with pytest.raises(SizeError):
        encode(shared, max_bytes=1 << 16)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_an_error(data: bytes) -> None:
    try:
        value = decode(data)
    except CodecError:
        return
    encode(value)


@given(values, st.data())
def test_damaged_bytes_are_a_value_or_an_error(value: Any, data: st.DataObject) -> None:
    whole = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    for damaged in (bytes(whole), cut):
        try:
            decode(damaged)
        except CodecError:
            continue


def sized(tag: bytes, count: int, rest: bytes = b"") -> bytes:
    return tag + struct.pack("<I", count) + rest


HOSTILE = {
    "a list of four billion values": sized(b"l", 2**32 - 1),
    "a text longer than the bytes": sized(b"s", 2**31),
    "depth": sized(b"l", 1) * 100_000 + b"N",
    "an object array": sized(b"A", 2, b"|O") + struct.pack("<IQI", 1, 1, 8) + b"\0" * 8,
    "a huge array": sized(b"A", 3, b"|u1") + struct.pack("<IQQI", 2, 2**63, 2**63, 0),
    "an array of the wrong size": sized(b"A", 3, b"<i8") + struct.pack("<IQI", 1, 2, 8) + b"\0" * 8,
    "no type of an array": sized(b"A", 3, b"zzz") + struct.pack("<II", 0, 0),
    "an unknown type": sized(b"X", 6, b"object") + b"N",
    "a module": sized(b"X", 9, b"os.system") + sized(b"s", 2, b"id"),
    "a number that is none": sized(b"X", 7, b"Decimal") + encode("1" * 100_000 + "x"),
    "a date that is none": sized(b"X", 4, b"date") + encode("x"),
    "zero as denominator": sized(b"X", 8, b"Fraction") + encode((1, 0)),
    "a list as key": sized(b"d", 1, encode([1]) + b"N"),
    "text that is no UTF-8": sized(b"s", 1, b"\xff"),
    "bytes after the value": b"NN",
    "nothing": b"",
    "colliding keys": encode(dict.fromkeys(i * (2**61 - 1) for i in range(1000))),
    "colliding elements": encode({i * (2**61 - 1) for i in range(1000)}),
    "more values than are counted": sized(b"l", 5_000_000, b"N" * 5_000_000),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_bytes_are_refused_quickly(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode(data)


def test_colliding_keys_of_any_number_cost_no_square() -> None:
    data = sized(b"d", 200_000, b"".join(encode(i * (2**61 - 1)) + b"N" for i in range(200_000)))
    begin = time.process_time()
    with pytest.raises(CodecError, match="collide"):
        decode(data)
    assert time.process_time() - begin < 10  # the square takes many minutes


def test_exceptions_that_were_caught_cross() -> None:
    assert decode(encode(Raised("ValueError", "no"))) == Raised("ValueError", "no")
    assert Raised("A", "") != Raised("B", "")
    assert decode(encode(Counter("aab"))) == Counter("aab")
    assert decode(encode(Decimal("7" * 500))) == Decimal("7" * 500)
    assert decode(encode(Decimal("1.50"))).as_tuple() == Decimal("1.50").as_tuple()
    assert decode(encode(Fraction(1, 3))) == Fraction(1, 3)
    assert decode(encode(datetime.timedelta(1, 2, 3))) == datetime.timedelta(1, 2, 3)


def test_what_runs_inside_needs_the_standard_library_alone() -> None:
    program = (
        "import sys\n"
        "import sharpen.core.sandbox.inside.supervisor\n"
        "print(*{m.partition('.')[0] for m in sys.modules})\n"
        "print(*[m for m in sys.modules if m.startswith('sharpen')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    tops, ours = (line.split() for line in done.stdout.splitlines())
    foreign = set(tops) - set(sys.stdlib_module_names) - {"sharpen", "__main__", "sitecustomize"}
    assert not {t for t in foreign if not t.startswith(("_", "distutils"))}
    inside = "sharpen.core.sandbox"
    assert {m for m in ours if not m.startswith(f"{inside}.inside")} == {
        *("sharpen", "sharpen._version", "sharpen.core", "sharpen.core.lazy", inside)
    } & set(ours)
