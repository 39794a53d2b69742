"""Replies that are not what was asked for: all that was meant is set, or nothing at all."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as hyp
from tests.text.malformed_replies import CODE, SUGGESTIONS, TAGGED

import sharpen.text as st
from sharpen.core.lm import ReplyError
from sharpen.text.reply import between, parse_suggestion

BEFORE = {"style": "as it was", "times": 2, "flag": True}


@st.op(trainable=True)
def steps(n: int) -> int:
    return n


def parameters() -> dict[str, st.Parameter]:
    made = {name: st.Parameter(value, name) for name, value in BEFORE.items()}
    source = steps.parameter.value  # type: ignore[attr-defined]
    code = st.Parameter(source, "steps_code", kind="code", check=steps.parameter.check)  # type: ignore[attr-defined]
    return made | {"steps_code": code}


def step(reply: str, **options: Any) -> tuple[st.StepReport, dict[str, Any], dict[str, Any]]:
    """The report of one step, values before it, and values after it."""
    made = parameters()
    before = {name: one.value for name, one in made.items()}

    @st.op
    def use(**values: Any) -> str:
        return str(values)

    use(**made).backward("Hm.")
    optimizer = st.OptoPrime(list(made.values()), st.Scripted(lambda _: reply), **options)
    report = optimizer.step()
    return report, before, {name: one.value for name, one in made.items()}


def test_the_corpus_is_large() -> None:
    assert len(SUGGESTIONS) >= 60
    assert len({reply for reply, _ in SUGGESTIONS}) == len(SUGGESTIONS)


@pytest.mark.parametrize(("reply", "wanted"), SUGGESTIONS, ids=range(len(SUGGESTIONS)))
def test_all_that_was_meant_is_set_or_nothing(reply: str, wanted: dict[str, Any]) -> None:
    report, before, after = step(reply, retries=0)
    assert report.applied == wanted
    assert after == {**before, **wanted}
    said_nothing = not wanted and not report.terminated and reply != '{"suggestion": {}}'
    assert bool(report.rejected) == (said_nothing or "colour" in reply)
    assert all(report.rejected.values())
    assert all(len(why) < 2000 for why in report.rejected.values())
    assert report.calls == 1


@pytest.mark.parametrize(("reply", "wanted"), TAGGED)
def test_a_value_between_tags_is_whole_or_none(reply: str, wanted: str | None) -> None:
    if wanted is None:
        with pytest.raises(ReplyError):
            between(reply, "<NEW>", "</NEW>")
    else:
        assert between(reply, "<NEW>", "</NEW>") == wanted


VALUES = hyp.fixed_dictionaries(
    {},
    optional={
        "style": hyp.text(alphabet="ab {}[]\"'\\\n<>/#`“”…,:", max_size=30),
        "times": hyp.integers(-99, 99),
        "flag": hyp.booleans(),
        "steps_code": hyp.just(CODE),
    },
).filter(bool)


@given(VALUES, hyp.sampled_from(["", "Well: ", "```json\n", "<think>{</think>"]), hyp.data())
def test_a_prefix_of_a_reply_sets_nothing(values: dict[str, Any], around: str, data: Any) -> None:
    reply = around + json.dumps({"reasoning": "r", "suggestion": values}, ensure_ascii=False)
    whole = parse_suggestion(reply).values
    assert set(whole) == set(values)
    cut = data.draw(hyp.integers(len(around), len(reply) - 1))
    with pytest.raises(ReplyError):
        parse_suggestion(reply[:cut])


@given(VALUES, hyp.integers(0, 400), hyp.text(alphabet="{}[]\"'\\\n</NEW>variable=", max_size=6))
def test_a_damaged_reply_never_ends_in_another_error(
    values: dict[str, Any], at: int, noise: str
) -> None:
    text = json.dumps({"suggestion": values}, ensure_ascii=False)
    tags = "".join(f'<variable name="{k}">{v}</variable>' for k, v in values.items())
    for reply in (text, tags):
        damaged = reply[:at] + noise + reply[at:]
        with contextlib.suppress(ReplyError):
            found = parse_suggestion(damaged)
            assert all(isinstance(name, str) for name in found.values)
        with contextlib.suppress(ReplyError):
            assert isinstance(between(damaged, "<NEW>", "</NEW>"), str)


@given(hyp.text(alphabet="<NEW/> ab\n`", max_size=40))
def test_what_stands_between_tags_pairs(text: str) -> None:
    try:
        value = between(text, "<NEW>", "</NEW>")
    except ReplyError:
        return
    assert value.count("<NEW>") == value.count("</NEW>")
    assert value.strip("`\n ") in text


def test_a_rewriter_takes_a_value_whole_or_asks_again() -> None:
    rule = st.Parameter("old", "rule")
    rule.messages[:] = [(st.TextGradient(text="shorter"),)]
    lm = st.Scripted(["<NEW>a</NEW> b</NEW>", "<think><NEW></think><NEW>no</NEW> <NEW>new</NEW>"])
    report = st.TGD([rule], lm).step()
    assert report.applied == {"rule": "new"}
    assert "one </NEW> too many" in lm.requests[1].prompt
