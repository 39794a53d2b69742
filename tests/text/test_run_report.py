"""Pictures and reports of programs."""

from __future__ import annotations

from pathlib import Path

import pytest

import sharpen.text as st
from sharpen.core.errors import ConfigError
from sharpen.text.errors import ExecutionError


@st.op
def greet(rule: str, name: str) -> str:
    """Say hello."""
    return f"{rule}, {name}!"


def test_a_tape_draws_what_it_noted() -> None:
    rule = st.Parameter('Say "hi" <now>', "rule")
    with st.Tape() as tape:
        greet(rule, "Ada")
        greet(rule, "Bo")
        drawing = tape.draw()
    assert drawing.to_mermaid().splitlines() == [
        "flowchart TD",
        '  n0(["rule = Say  hi   now "])',
        '  n1[/"name = Ada"/]',
        '  n2["greet_0 = Say  hi   now , Ada!"]',
        '  n3[/"name_1 = Bo"/]',
        '  n4["greet_1 = Say  hi   now , Bo!"]',
        "  n0 --> n2",
        "  n1 --> n2",
        "  n0 --> n4",
        "  n3 --> n4",
    ]
    picture = drawing.to_svg()
    assert picture.count("<rect") == 5
    assert "greet: Say hello." in picture
    assert "<now>" not in picture


def test_the_picture_of_a_large_program_is_the_part_that_parameters_reach() -> None:
    x = st.node(1.0)
    for _ in range(300):
        x = x + 1.0
    a = st.Parameter(2.0, "a")
    small = st.Drawing(x * a)
    assert len(small.nodes) == 3
    assert small.left_out == 0
    for _ in range(300):
        a = a * 2.0
    large = st.Drawing(a)
    assert len(large.nodes) == 200
    assert large.left_out == 401


def test_nothing_to_draw_is_told() -> None:
    with st.Tape() as tape, pytest.raises(ConfigError, match="nothing to draw"):
        tape.draw()


def test_errors_stand_out() -> None:
    @st.op
    def broken(x: int) -> float:
        return x / 0

    with pytest.raises(ExecutionError) as caught:
        broken(st.Parameter(1, "x"))
    drawing = st.Drawing(caught.value.node)
    assert 'n1{{"' in drawing.to_mermaid()
    assert "#c0392b" in drawing.to_svg()


def test_a_report_has_every_version_its_score_and_what_changed(tmp_path: Path) -> None:
    rule = st.Parameter("Good morning", "rule")
    replies = ['{"suggestion": {"rule": "Hello\\nthere"}}', '{"suggestion": {"rule": "Bye<>"}}']
    lm = st.LM(st.Scripted(replies))
    optimizer = st.OptoPrime([rule], lm)
    output = None
    for score, words in ((0.25, "too long"), (0.75, "better & shorter"), (0.5, "wrong")):
        output = greet(rule, "Ada")
        optimizer.zero_feedback()
        optimizer.backward(output, st.Feedback(score=score, text=words))
        if score != 0.5:
            optimizer.step()
    page = tmp_path / "report.html"
    st.write_report(page, optimizer, output=output, lm=lm, title="Greeting")
    text = page.read_text()
    for wanted in (
        "Greeting",
        "OptoPrime",
        "<svg",
        "better &amp; shorter",
        "-Good morning",
        "+Hello\n+there",
        "<td class='number'>0.75</td>",
        "prompt_tokens",
    ):
        assert wanted in text
    assert "Bye&lt;&gt;" in text  # judged as the best was, but not as good
    assert "Bye<>" not in text
