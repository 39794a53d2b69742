"""OptoPrime and OPRO: the prompt, byte for byte, and what is made of replies."""

from __future__ import annotations

import json
from typing import Any

import pytest

import sharpen.text as st
from sharpen.core.errors import ConfigError
from sharpen.core.lm.messages import text_of
from sharpen.core.parameters import Float


@st.op
def scale(text: str, times: int) -> str:
    """Repeats a text."""
    return text * times


def program() -> tuple[st.Parameter, st.Parameter, st.Node]:
    style = st.Parameter("Be brief. ", "style", constraint="at most 5 words")
    times = st.Parameter(2, "times")
    blanket = st.node("x").call("upper")
    joined = scale(style, times=times) + blanket
    return style, times, joined


PROBLEM = """\
#Instruction
Improve it.

#Code
scale_0 = scale(text=style, times=times)
add_0 = add(x=scale_0, y=upper_0)

#Documentation
scale: Repeats a text.
add: the sum x + y

#Variables
(str) style = Be brief.
(int) times = 2

#Constraints
style: at most 5 words

#Inputs
(str) upper_0 = X

#Others
(str) scale_0 = Be brief. Be brief.

#Outputs
(str) add_0 = Be brief. Be brief. X

#Feedback
Too much.
Score: 0.5 (higher is better)"""


def plain(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines())


def reply(**values: Any) -> str:
    return json.dumps({"reasoning": "so", "answer": "", "suggestion": values})


def test_the_prompt_has_nine_sections_and_then_the_memory() -> None:
    lm = st.Scripted([reply(times=1), "TERMINATE"])
    style, times, out = program()
    optimizer = st.OptoPrime([style, times], lm, objective="Improve it.", memory=3)
    out.backward(st.Feedback(score=0.5, text="Too much."))
    report = optimizer.step()
    system, user = (text_of(message) for message in lm.requests[0].messages)
    assert plain(user) == f"{PROBLEM}\n\nYour reply:"
    assert '"suggestion"' in system
    assert report.applied == {"times": 1}
    assert (report.reasoning, report.calls) == ("so", 1)
    assert report.tokens > 100

    optimizer.zero_feedback()
    again = scale(style, times)
    again.backward("Better.")
    report = optimizer.step()
    assert report.terminated
    assert not report.applied
    user = text_of(lm.requests[1].messages[-1])
    earlier = {
        "variables": {"style": "Be brief. ", "times": 2},
        "feedback": "Too much.\nScore: 0.5",
    }
    assert json.dumps(earlier)[:-2] in user
    assert user.count("Too much.") == 1
    assert times.value == 1


def test_two_runs_of_a_program_give_the_same_prompt() -> None:
    prompts = []
    for _ in range(2):
        for _ in range(7):
            scale("a", 1)
        lm = st.Scripted(["TERMINATE"])
        style, times, out = program()
        out.backward("Hm.")
        st.OptoPrime([style, times], lm).step()
        prompts.append([text_of(message) for message in lm.requests[0].messages])
    assert prompts[0] == prompts[1]


def test_several_outputs_are_shown_side_by_side() -> None:
    lm = st.Scripted(["TERMINATE"])
    style = st.Parameter("Be brief. ", "style")
    for question, said in (("a", "good"), ("b", "bad")):
        (style + question).backward(said)
    st.OptoPrime([style], lm).step()
    user = text_of(lm.requests[0].messages[-1])
    assert "#Code\nadd_0 = add(x=style, y=y)\n\n" in user
    assert "#Inputs\n[1]\n(str) y = a\n[2]\n(str) y = b\n" in user
    assert "#Feedback\n[1]\ngood\n[2]\nbad\n" in user


def test_sections_can_be_masked_and_values_are_cut() -> None:
    lm = st.Scripted(["TERMINATE"] * 3)
    long = st.Parameter("v" * 5000, "long")
    out = long + "w" * 5000
    out.backward("f" * 30, retain=True)
    st.OptoPrime([long], lm, mask=["#Code", "feedback"], value_limit=100).step()
    user = text_of(lm.requests[0].messages[-1])
    assert "#Code\n\n#Documentation" in user
    assert "f" * 30 not in user
    assert "v" * 5000 in user  # variables are whole
    assert f"{'w' * 50} [... 4900 characters left out ...] {'w' * 50}" in user

    st.OptoPrime([long], lm, max_prompt_tokens=1900).step()
    user = text_of(lm.requests[1].messages[-1])
    assert len(user) < 1900 * 3 + 100
    assert "v" * 5000 in user
    with pytest.raises(ConfigError, match="max_prompt_tokens=1000"):
        st.OptoPrime([long], lm, max_prompt_tokens=1000).step()
    with pytest.raises(ConfigError, match="section Kode"):
        st.OptoPrime([long], lm, mask=["Kode"]).step()


@pytest.mark.parametrize(
    "text",
    [
        reply(style="S", times=7),
        "Let me think {about it}.\n```json\n" + reply(style="S", times="7") + "\n```\nDone.",
        "{'reasoning': 'it\\'s', 'suggestion': {'style': 'S', 'times': 7,},}",
        '{"suggestion": {}} no: {"suggestion": {"STYLE": "S", "times": 7.0}}',
        '{"suggestion": {"#style": "```\nS\n```", "Times": 7}}',
        '<answer>a</answer><variable name="style">S</variable><variable name=times>7</variable>',
    ],
)
def test_replies_are_read_in_many_forms(text: str) -> None:
    style, times, out = program()
    out.backward("Hm.")
    report = st.OptoPrime([style, times], st.Scripted([text]), retries=0).step()
    assert report.applied == {"style": "S", "times": 7}, report
    assert (style.value, times.value) == ("S", 7)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I would shorten it.",
        '{"reasoning": "a", "suggestion": {"style": "cut off he',
        '{"suggestion": ["style"]}',
        '{"suggestion": {"times": NaN}}',
        "[" * 5000,
        '{"a":' * 3000,
        "x" * 3_000_000,
    ],
)
def test_replies_that_cannot_be_read_change_nothing(text: str) -> None:
    style, times, out = program()
    out.backward("Hm.")
    lm = st.Scripted([text, text])
    report = st.OptoPrime([style, times], lm, retries=1).step()
    assert not report.applied
    assert "reply" in report.rejected
    assert report.calls == 2
    assert "could not be read" in text_of(lm.requests[1].messages[-1])
    assert (style.value, times.value) == ("Be brief. ", 2)


def test_values_are_checked_one_by_one_or_all_together() -> None:
    for atomic in (False, True):
        style, times, out = program()
        rate = st.Parameter(0.5, "rate", space=Float(0.0, 1.0))
        frozen = st.Parameter("a", "frozen")
        out = out + rate.call("hex") + frozen
        frozen.freeze()
        out.backward("Hm.")
        lm = st.Scripted([reply(style="S", times=2.5, rate=3, unknown=1, frozen="b")])
        report = st.OptoPrime([style, times, rate, frozen], lm, atomic=atomic).step()
        assert report.applied == ({} if atomic else {"style": "S"})
        refused = {"times", "rate", "unknown", "frozen"} | ({"style"} if atomic else set())
        assert set(report.rejected) == refused
        assert "whole number" in report.rejected["times"]
        assert style.value == ("Be brief. " if atomic else "S")


def test_steps_without_feedback_or_budget_say_so() -> None:
    style, times, out = program()
    lm = st.LM(st.Scripted([reply(times=3)]), budget={"max_calls": 1})
    optimizer = st.OptoPrime([style, times], lm)
    assert "no feedback" in optimizer.step().stopped
    assert lm.usage.calls == 0
    st.node(1).backward("on nothing")
    assert "no feedback" in optimizer.step().stopped
    out.backward("Hm.", retain=True)
    assert optimizer.step().applied == {"times": 3}
    report = optimizer.step()
    assert "max_calls" in report.stopped
    assert times.value == 3


def test_state_goes_on_where_it_was() -> None:
    style, times, out = program()
    out.backward("Hm.", retain=True)
    first = st.OptoPrime([style, times], st.Scripted([reply(times=9)]), memory=2)
    first.step()
    state = json.loads(json.dumps(first.state_dict()))
    lm = st.Scripted(["TERMINATE"])
    other_style, other_times, other_out = program()
    second = st.OptoPrime([other_style, other_times], lm, memory=2)
    second.load_state_dict(state)
    assert other_times.value == 9
    other_out.backward("And?")
    second.step()
    assert '"feedback": "Hm."' in text_of(lm.requests[0].messages[-1])
    with pytest.raises(ConfigError, match="OptoPrime"):
        st.OPRO([style, times], lm).load_state_dict(state)
    with pytest.raises(ConfigError, match="parameters style, times"):
        st.OptoPrime([style], lm).load_state_dict(state)


def test_opro_shows_the_best_pairs_last_and_no_program() -> None:
    lm = st.Scripted([reply(times=k) for k in (3, 4, 5)])
    style, times, _ = program()
    optimizer = st.OPRO([style, times], lm, top=2)
    for score in (0.2, 0.9, 0.1):
        optimizer.zero_feedback()
        scale(style, times).backward(score)
        optimizer.step()
    user = text_of(lm.requests[-1].messages[-1])
    assert "#Code" not in user
    pairs = [json.loads(line) for line in user.splitlines() if line.startswith("{")]
    assert [pair["score"] for pair in pairs] == [0.2, 0.9]
    assert [pair["variables"]["times"] for pair in pairs] == [2, 3]
    assert "style: at most 5 words" in user


@pytest.mark.parametrize(
    ("parameters", "options", "message"),
    [
        ([], {}, "at least one parameter"),
        ([st.node(1)], {}, "changes parameters"),
        ([st.Parameter(1)] * 2, {}, "twice"),
        ([st.Parameter(1)], {"format": "yaml"}, "json or xml"),
        ([st.Parameter(1)], {"memory": -1}, "memory=-1"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    parameters: list[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        st.OptoPrime(parameters, st.Scripted([]), **options)


def test_a_loop_keeps_the_program_of_the_last_values_alone() -> None:
    lm = st.Scripted(lambda request: reply(times=len(request.prompt) % 7))
    style, times, _ = program()
    for start in ("last", "best"):
        optimizer = st.OptoPrime([style, times], lm, start=start)
        for k in range(12):
            optimizer.zero_feedback()
            scale(style, times).backward(float(k == 4))
            optimizer.step()
        kept = [
            number
            for number, trial in optimizer.history.items()
            if trial.feedback is not None and trial.feedback.info.get("programs")
        ]
        assert kept == [11 if start == "last" else 4]
        assert len(optimizer.history) == 12


def test_the_best_values_are_improved_on_where_asked() -> None:
    lm = st.Scripted(lambda request: reply(times=5))
    style, times, _ = program()
    optimizer = st.OptoPrime([style, times], lm, start="best")
    for score in (0.9, 0.1):
        optimizer.zero_feedback()
        scale(style, times).backward(score)
        report = optimizer.step()
        assert report.applied == ({"times": 5} if score == 0.9 else {})
    assert "(int) times = 2" in text_of(lm.requests[1].messages[-1])
    optimizer.restore_best()
    assert times.value == 2
