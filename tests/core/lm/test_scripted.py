import re
from pathlib import Path
from typing import Any

import pytest

from sharpen.core.errors import ConfigError, MissingFileError
from sharpen.core.lm import ChatRequest, Scripted, UnexpectedPrompt, open_engine


def test_replies_come_one_after_another_and_no_more() -> None:
    engine = Scripted(["a", "b", "c"])
    assert engine.complete(ChatRequest("1")).text == "a"
    assert engine.complete(ChatRequest("2", n=2)).texts == ["b", "c"]
    with pytest.raises(UnexpectedPrompt, match="3 replies, and call 3 asks for another: '3'"):
        engine.complete(ChatRequest("3"))
    assert [request.prompt for request in engine.requests] == ["1", "2", "3"]


def test_the_first_rule_that_applies_replies() -> None:
    engine = Scripted(
        [
            (r"^sum (\d+)", lambda request: str(sum(map(int, re.findall(r"\d+", request.prompt))))),
            (lambda request: request.temperature > 0, "hot"),
            (re.compile("sum"), "cold"),
        ]
    )
    assert engine.complete(ChatRequest("sum 2 3")).text == "5"
    assert engine.complete(ChatRequest("the sum", temperature=1.0)).text == "hot"
    assert engine.complete(ChatRequest("the sum")).text == "cold"


def test_an_unexpected_prompt_is_shown_beside_the_nearest() -> None:
    engine = Scripted({"Line one\nCapital of France?": "Paris", "Weather?": "Rain"})
    assert engine.complete(ChatRequest("Weather?")).text == "Rain"
    with pytest.raises(UnexpectedPrompt) as error:
        engine.complete(ChatRequest("Line one\nCapital of Italy?"))
    assert "-Capital of France?\n+Capital of Italy?" in str(error.value)
    assert "-Line one" not in str(error.value)
    lenient = Scripted({"Weather?": "Rain"}, strict=False)
    assert lenient.complete(ChatRequest("else")).text == ""


def test_tokens_are_words_and_max_tokens_cuts() -> None:
    engine = Scripted([("", "one  two\nthree four")])
    whole = engine.complete(ChatRequest("a b c"))
    assert whole.usage is not None
    assert (whole.usage.prompt, whole.usage.completion, whole.finish_reasons) == (3, 4, ["stop"])
    cut = engine.complete(ChatRequest("a b c", max_tokens=3))
    assert (cut.text, cut.finish_reasons) == ("one  two\nthree", ["length"])


def test_scripts_of_equal_data_share_a_scope_and_functions_do_not() -> None:
    assert Scripted(["a"]).scope == Scripted(["a"]).scope != Scripted(["b"]).scope
    assert Scripted([("a", "b")]).scope != Scripted({"a": "b"}).scope
    assert Scripted(lambda request: "a").scope != Scripted(lambda request: "a").scope
    named = [Scripted(lambda request: "a", model="m") for _ in range(2)]
    assert named[0].scope == named[1].scope


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([("(", "x")], "pattern '\\(' of a script is wrong"),
        ([("a", 1)], "a reply must be a text"),
        ([("a", "b"), "c"], "a script must be"),
        ([(1, "x")], "a rule begins with a pattern"),
    ],
)
def test_what_is_no_script_is_refused(script: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Scripted(script)


def test_files_hold_scripts(tmp_path: Path) -> None:
    file = tmp_path / "lm.yaml"
    file.write_text("- {match: 'capital of \\w+', reply: Paris}\n- {match: '', reply: No idea}\n")
    engine = open_engine(f"scripted:{file}")
    assert engine.complete(ChatRequest("the capital of France")).text == "Paris"
    assert engine.complete(ChatRequest("?")).text == "No idea"
    file.write_text('["a", "b"]')
    assert open_engine(f"scripted:{file}").complete(ChatRequest("?")).text == "a"


@pytest.mark.parametrize(
    "text", ["", "7", "[]", "- [a]", "- {match: a}", "- {match: a, reply: 1}", "a: 1", "- 1"]
)
def test_files_that_hold_something_else_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "lm.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        open_engine(f"scripted:{file}")
    with pytest.raises(MissingFileError):
        open_engine("scripted:nowhere.yaml")


def test_addresses_of_no_engine_are_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'scripted'"):
        open_engine("scriptd:x")
    with pytest.raises(ConfigError, match="local:"):
        open_engine("gpt")
    with pytest.raises(ConfigError, match="takes no option 'speed'"):
        open_engine("scripted:x", speed=1)
