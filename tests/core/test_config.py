import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.config import (
    apply_overrides,
    digest,
    dump_yaml,
    from_dict,
    load_yaml,
    parse_yaml,
    to_dict,
)
from sharpen.core.errors import ConfigError, MissingFileError


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    every: int = 5
    where: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    rate: float = 1e-3
    steps: int = 10
    method: Literal["full", "lora"] = "full"
    names: tuple[str, ...] = ()
    pair: tuple[int, float] = (1, 2.0)
    inner: Inner = field(default_factory=Inner)
    mixed: int | Literal["auto"] = "auto"
    table: dict[str, float] = field(default_factory=dict)
    nested: list[Inner] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps={self.steps} must be at least 1.")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("on", "on"),
        ("yes", "yes"),
        ("off", "off"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0o17", 15),
        ("0x1F", 31),
        ("010", 10),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2026-01-01", "2026-01-01"),
        (".inf", float("inf")),
        ("-.INF", -float("inf")),
        ("'3'", "3"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    got = parse_yaml(f"k: {text}\n").data["k"]
    assert got == value
    assert type(got) is type(value)


def test_a_repeated_key_is_an_error_with_both_lines() -> None:
    with pytest.raises(ConfigError, match=r"f\.yaml:3: the key 'a' is given twice.*line 1"):
        parse_yaml("a: 1\nb: 2\na: 3\n", file="f.yaml")


def test_an_unknown_key_names_the_nearest_and_the_line(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("rate: 1\nstepz: 3\n")
    document = load_yaml(path)
    with pytest.raises(ConfigError, match=r"c\.yaml:2: unknown key 'stepz'.*Did you mean 'steps'"):
        from_dict(Outer, document.data, marks=document.marks)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: many", r"x:1: steps must be an integer, got 'many'"),
        ("steps: 1.5", "steps must be an integer"),
        ("steps: true", "steps must be an integer"),
        ("rate: fast", "rate must be a number"),
        ("method: lara", r"one of full, lora, got 'lara'. Did you mean 'lora'"),
        ("names: one", "names must be a list"),
        ("pair: [1]", "pair must be a list"),
        ("inner: 3", "inner must be a mapping"),
        ("inner: {evry: 1}", r"unknown key 'evry' in inner.*'every'"),
        ("mixed: maybe", "mixed must be an integer or one of auto"),
        ("nested: [{every: x}]", r"nested.0.every must be an integer"),
        ("rate: 1\nsteps: 0", r"x:2: .*steps=0 must be at least 1"),
        ("table: {a: b}", "table.a must be a number"),
    ],
)
def test_wrong_values_say_where_what_and_what_is_allowed(text: str, message: str) -> None:
    document = parse_yaml(text, file="x")
    with pytest.raises(ConfigError, match=message):
        from_dict(Outer, document.data, marks=document.marks)


def test_an_integral_float_is_an_integer_and_an_integer_a_float() -> None:
    built = from_dict(Outer, {"steps": 1e3, "rate": 2})
    assert built.steps == 1000
    assert isinstance(built.steps, int)
    assert isinstance(built.rate, float)


configs = st.builds(
    Outer,
    rate=st.floats(allow_nan=False),
    steps=st.integers(1, 10**9),
    method=st.sampled_from(["full", "lora"]),
    names=st.lists(st.text(), max_size=3).map(tuple),
    pair=st.tuples(st.integers(), st.floats(allow_nan=False)),
    inner=st.builds(Inner, every=st.integers(), where=st.none() | st.just(Path("a/b"))),
    mixed=st.integers() | st.just("auto"),
    table=st.dictionaries(st.text(min_size=1, max_size=5), st.floats(allow_nan=False), max_size=3),
    nested=st.lists(st.builds(Inner, every=st.integers()), max_size=2),
)


@given(configs)
def test_a_config_survives_plain_data_and_yaml(config: Outer) -> None:
    assert from_dict(Outer, to_dict(config)) == config
    assert from_dict(Outer, parse_yaml(dump_yaml(to_dict(config))).data) == config


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), plain, max_size=4))
def test_dumped_yaml_reads_back_equal(data: dict[str, object]) -> None:
    assert parse_yaml(dump_yaml(data)).data == (data or {})


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_our_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert parse_yaml(text, file="f").marks.file == "f"


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for i in range(1, 9):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]")
    with pytest.raises(ConfigError, match="too large"):
        parse_yaml("\n".join(lines))


def test_tags_are_refused() -> None:
    with pytest.raises(ConfigError, match="tag"):
        parse_yaml("a: !!python/object/apply:os.system [x]\nb: !x 1")


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"a: [1, 2", b"a: b: c", b"[" * 5000, b"? [a]\n: 1"]
)
def test_damaged_files_are_config_errors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_yaml(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none\.yaml"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_yaml(tmp_path)


def test_overrides_set_nested_values_and_name_themselves_in_errors() -> None:
    document = parse_yaml("train: {lr: 1}\nlist: [{bits: 8}]", file="r.yaml")
    changed = apply_overrides(document, ["train.lr=3e-4", "list.0.bits=4", "new.key=[1, 2]"])
    assert changed.data == {"train": {"lr": 3e-4}, "list": [{"bits": 4}], "new": {"key": [1, 2]}}
    assert document.data["train"] == {"lr": 1}
    broken = apply_overrides(parse_yaml("", file="f"), {"steps": "x"})
    with pytest.raises(ConfigError, match="override steps: steps must be an integer"):
        from_dict(Outer, broken.data, marks=broken.marks)


@pytest.mark.parametrize(
    "text", ["train.lr", "=3", "a..b=1", "list.7=1", "list.x=1", "train.lr.x=1"]
)
def test_malformed_overrides_are_refused(text: str) -> None:
    document = parse_yaml("train: {lr: 1}\nlist: [1]")
    with pytest.raises(ConfigError, match="override"):
        apply_overrides(document, [text])


def test_digest_ignores_key_order_and_sees_every_value() -> None:
    assert digest({"a": 1, "b": [1.5, None]}) == digest({"b": [1.5, None], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5})
    assert len(digest({})) == 32
    with pytest.raises(ValueError, match="Out of range"):
        digest({"a": float("nan")})
