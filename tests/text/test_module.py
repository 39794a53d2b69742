"""Programs as objects: what is found, saved and loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sharpen.text as st
from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError, StorageError
from sharpen.core.parameters import Float, Int


@st.op(trainable=True)
def double(x: int) -> int:
    """Twice."""
    return x * 2


class Step(st.Module):
    def __init__(self, rule: str) -> None:
        self.rule = st.Parameter(rule, role="instruction")

    @st.op(trainable=True, trust="inline")  # proposed code calls methods of the object
    def shape(self, text: str) -> str:
        """Shapes a text."""
        return text.strip()

    def forward(self, text: str) -> Any:
        return self.rule + self.shape(text)


class Program(st.Module):
    def __init__(self) -> None:
        self.first = Step("a")
        self.steps = [Step("b"), Step("c")]
        self.by_name = {"x": st.Parameter(0.5, space=Float(0.0, 1.0)), "n": 3}
        self.pair = (st.Parameter(2, space=Int(0, 9)), "no parameter")
        self.system = st.Parameter("You answer.", "other name")
        lm = st.LM(st.Scripted(lambda request: "yes"))
        self.answer = st.LLM(lm, self.system)
        self.again = st.LLM(lm, st.Parameter("Once more."))
        self.double = double
        self.shared = self.first.rule

    def forward(self, text: str) -> Any:
        return self.first(text)


PATHS = [
    *("first.shape.code", "first.rule", "steps.0.shape.code", "steps.0.rule"),
    *("steps.1.shape.code", "steps.1.rule", "by_name.x", "pair.0", "system"),
    *("again.system", "double.code"),
]


def test_parameters_are_found_by_path_and_each_once() -> None:
    program = Program()
    assert list(program.named_parameters()) == PATHS
    assert program.named_parameters()["steps.1.rule"] is program.steps[1].rule
    assert program.named_parameters()["double.code"] is double.parameter  # type: ignore[attr-defined]
    assert len(program.clients()) == 1
    assert program.named_parameters()["system"].name == "other name"
    assert not any(p.frozen for p in program.parameters())
    program.steps[0].freeze()
    frozen = [path for path, p in program.named_parameters().items() if p.frozen]
    assert frozen == ["steps.0.shape.code", "steps.0.rule"]
    program.freeze()
    program.freeze(False)
    assert not any(p.frozen for p in program.parameters())


def test_a_module_that_holds_itself_ends() -> None:
    step: Any = Step("a")
    step.parent = step
    step.list = [step, [step]]
    step.list.append(step.list)
    assert list(step.named_parameters()) == ["shape.code", "rule"]


def test_objects_of_a_class_have_code_of_their_own() -> None:
    one, other = Step("1 "), Step("2 ")
    code = "def shape(self, text):\n    return text.upper() + str(len(self.parameters()))\n"
    one.load_state_dict({"shape.code": code}, strict=False)
    assert one(" a ").value == "1  A 2"
    assert other(" a ").value == "2 a"
    out = one("b")
    out.backward("hm")
    named = one.named_parameters()
    assert len(named["shape.code"].pending) == len(named["rule"].pending) == 1


def test_values_are_set_together_or_not_at_all() -> None:
    program = Program()
    before = program.state_dict()
    for state, message in (
        ({**before, "by_name.x": 2.0, "system": "new"}, "by_name.x|must be"),
        ({**before, "steps.1.rul": "r"}, "Did you mean"),
        ({"system": "new"}, "no value is given for first.shape.code"),
    ):
        with pytest.raises(ConfigError, match=message):
            program.load_state_dict(state)
        assert program.state_dict() == before
    program.load_state_dict({"pair.0": "7"}, strict=False)
    assert program.pair[0].value == 7
    assert list(program.pair[0].history) == [2]


def test_other_values_are_held_for_a_while() -> None:
    program = Program()
    with program.holding({"system": "other", "pair.0": 5}):
        assert program.system.value == "other"
    assert (program.system.value, program.pair[0].value) == ("You answer.", 2)
    assert not program.system.history
    with pytest.raises(RuntimeError), program.holding({"system": "other"}):
        raise RuntimeError
    assert program.system.value == "You answer."
    for values in ({"system": "other", "pair.0": 99}, {"nothing": 1}):
        with pytest.raises(ConfigError), program.holding(values):
            pass
        assert program.system.value == "You answer."


def test_a_file_brings_all_values_back(tmp_path: Path) -> None:
    program = Program()
    program.load_state_dict({"system": "ä€😀 line\nline", "pair.0": 4}, strict=False)
    path = tmp_path / "program.json"
    program.save(path)
    assert Program().load(path).state_dict() == program.state_dict()
    assert [p.name for p in tmp_path.iterdir()] == ["program.json"]
    program.load_state_dict({"pair.0": 8}, strict=False)
    program.save(path)
    assert json.loads(path.read_text())["values"]["pair.0"] == 8


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, MissingFileError, "no file"),
        ("{", FileFormatError, "JSON"),
        ("[1]", FileFormatError, "names no schema"),
        ('{"schema": "sharpen.text.module/9"}', FileFormatError, "another version"),
        ('{"schema": "pickle"}', FileFormatError, "'pickle'.*save"),
        ('{"schema": "sharpen.text.module/1", "values": 3}', FileFormatError, "no object"),
        ('{"schema": "sharpen.text.module/1", "values": {"a": 3}}', ConfigError, "json: .*'a'"),
    ],
)
def test_files_that_cannot_be_loaded_say_why(
    tmp_path: Path, content: str | None, error: type[Exception], message: str
) -> None:
    path = tmp_path / "program.json"
    if content is not None:
        path.write_text(content)
    program = Program()
    before = program.state_dict()
    with pytest.raises(error, match=message):
        program.load(path)
    assert program.state_dict() == before


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(StorageError):
        Program().save(tmp_path / "file" / "program.json")
    assert (tmp_path / "file").read_text() == "old"
    with pytest.raises(ConfigError, match="needs a method forward"):
        st.Module()()
