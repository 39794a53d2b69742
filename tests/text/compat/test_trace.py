"""Trace's names: the same calls, sections and values as trace-opt, and what is mended."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from benchmarks.text import trace_programs as programs
from benchmarks.text.textgrad_parity import trace_names

import sharpen.text as st
from sharpen.core.errors import ConfigError
from sharpen.core.lm import Scripted
from sharpen.text.compat import trace

RECORD = Path(__file__).parents[3] / "benchmarks" / "results" / "text_textgrad_parity.json"
OURS = programs.run(trace_names())
UNLIKE = {"trainable code", "exception"}
"""Whose outputs are written otherwise: names of calls, and the report of an error."""


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_sections_and_values_are_those_that_were_recorded_of_trace_opt(name: str) -> None:
    document = json.loads(RECORD.read_text())["results"]["trace-opt"]
    assert document["version"] == "0.1.3.8"
    ours, theirs = OURS[name], document["programs"][name]
    assert ours["calls"] == theirs["calls"]
    assert ours["values"] == theirs["values"]
    assert len(ours["sections"]) == len(theirs["sections"])
    for mine, other in zip(ours["sections"], theirs["sections"], strict=True):
        for section in ("Variables", "Inputs", "Others", "Outputs"):
            rows = [Counter((t, v) for t, _, v in one[section]) for one in (mine, other)]
            rows[1] -= Counter(key for key in rows[1] if key[0] == "ModelWrapper")  # the object
            if name not in UNLIKE:
                assert rows[0] == rows[1], section
            assert rows[0].total() == rows[1].total()


def test_a_name_stays_and_numbers_do_not_pile_up() -> None:
    x = trace.node(1, name="x", trainable=True, description="a count", constraint="positive")
    again = trace.node(x, trainable=True)
    assert isinstance(again, st.Parameter)
    assert (again.name, again.data, x.role) == ("x", 1, "a count")
    assert trace.node(again) is again


def test_functions_are_described_as_trace_writes_it() -> None:
    @trace.bundle("[shout] makes it\n  loud")
    def f(text: str) -> str:
        return text.upper()

    assert (f.operation.name, f.operation.doc) == ("shout", "makes it loud")
    assert f("a").data == "A"

    @trace.bundle()
    def plain(text: str) -> str:
        """Does nothing."""
        return text

    assert (plain.operation.name, plain.operation.doc) == ("plain", "Does nothing.")
    with pytest.raises(ConfigError, match=r"@bundle\(\)"):
        trace.bundle(lambda x: x)  # type: ignore[arg-type]


def test_clearing_the_graph_says_that_there_is_none(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="sharpen.text.compat.trace"):
        trace.GRAPH.clear()
    assert "nothing to do" in caplog.text


def test_a_wrong_type_is_refused_and_reported() -> None:
    flag = trace.node(True, name="flag", trainable=True)
    reply = '{"suggestion": {"flag": "False"}}'
    optimizer = trace.OptoPrime([flag], llm=Scripted([reply, '{"suggestion": {"flag": "maybe"}}']))
    optimizer.backward(flag.eq(1), "Turn it off.")
    assert optimizer.step().applied == {"flag": False}
    optimizer.zero_feedback()
    optimizer.backward(flag.eq(1), "Again.")
    assert "flag" in optimizer.step().rejected


@pytest.mark.parametrize("name", ["OptoPrime", "OPRO", "TextGrad"])
def test_every_optimizer_takes_llm(name: str) -> None:
    def model(prompt: str) -> str:
        return '{"suggestion": {"rule": "new"}} <NEW>new</NEW>'

    rule = trace.node("old", name="rule", trainable=True)
    optimizer: Any = getattr(trace, name)([rule], llm=model)
    with trace.stop_tracing():
        assert (rule + "!").is_root
    optimizer.zero_feedback()
    optimizer.backward(rule + "!", "Newer.")
    optimizer.step()
    assert rule.data == "new"


def test_memory_size_shows_earlier_pairs() -> None:
    seen: list[str] = []

    def model(prompt: str) -> str:
        seen.append(prompt)
        return json.dumps({"suggestion": {"rule": "x" * len(seen)}})

    rule = trace.node("old", name="rule", trainable=True)
    optimizer = trace.OptoPrime([rule], llm=model, memory_size=2, objective="Do it.")
    for _ in range(2):
        optimizer.zero_feedback()
        optimizer.backward(rule + "!", "Newer.")
        optimizer.step()
    assert "Do it." in seen[0]
    assert "Earlier values" not in seen[0]
    assert "Earlier values" in seen[1]
    assert rule.value == "xx"
