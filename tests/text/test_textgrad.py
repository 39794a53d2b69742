"""Textual gradients: calls, what travels, and what is set."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

import sharpen.text as st
from sharpen.core.errors import ConfigError
from sharpen.core.lm.errors import BudgetExhausted
from sharpen.core.lm.messages import ChatRequest, text_of


class Author:
    """Replies by what it is asked for, and counts."""

    def __init__(self, new: str = "improved") -> None:
        self.counts = {"forward": 0, "judge": 0, "criticism": 0, "rewrite": 0, "reduce": 0}
        self.new = new
        self.prompts: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, request: ChatRequest) -> str:
        first = text_of(request.messages[0])
        with self._lock:
            self.prompts.append(request.prompt)
            if "write feedback for one of its inputs" in first:
                kind = "criticism"
            elif "You improve one value" in first:
                kind = "rewrite"
            elif "Several operations use" in first:
                kind = "reduce"
            elif first == "Judge it.":
                kind = "judge"
            else:
                kind = "forward"
            self.counts[kind] += 1
            number = self.counts[kind]
        if kind == "rewrite":
            return f"Here: <NEW>{self.new}</NEW>"
        return f"{kind} {number}"


def test_three_examples_take_the_calls_of_the_paper() -> None:
    author = Author()
    lm = st.LM(st.Scripted(author))
    system = st.Parameter("You answer.", "system", role="the system prompt")
    answer, judge = st.LLM(lm, system), st.TextLoss("Judge it.", lm)
    optimizer = st.TextGrad([system], lm, concurrency=1)
    loss = st.textsum([judge(answer(question)) for question in ("a", "b", "c")])
    assert (author.counts["forward"], author.counts["judge"]) == (3, 3)
    optimizer.zero_feedback()
    loss.backward()
    report = optimizer.step()
    assert author.counts == {"forward": 3, "judge": 3, "criticism": 6, "rewrite": 1, "reduce": 0}
    assert report.applied == {"system": "improved"}
    assert report.calls == 7
    rewrite = author.prompts[-1]
    assert [f"Feedback {k}:\ncriticism {k + 3}" in rewrite for k in (1, 2, 3)] == [True] * 3
    assert "which is the system prompt" in "".join(author.prompts)


def test_feedback_on_an_output_is_addressed_in_what_is_asked() -> None:
    author = Author()
    rule = st.Parameter("r", "rule")

    @st.op
    def shout(text: str) -> str:
        """Makes it loud."""
        return text.upper()

    out = shout(rule)
    out.backward("Too loud {format} {0}.", st.TextualPropagator(st.Scripted(author)))
    assert author.counts["criticism"] == 1
    prompt = author.prompts[0]
    assert "Feedback on the output:\nToo loud {format} {0}." in prompt
    assert "Operation: shout (Makes it loud.)" in prompt
    assert "Input 'rule' (the input in question):\nr" in prompt
    assert "Output:\nR" in prompt
    assert rule.messages[0][0].text == "criticism 1"
    report = st.TGD([rule], st.Scripted(author)).step()  # what backward brought is used
    assert report.applied == {"rule": "improved"}
    assert author.counts["criticism"] == 1


def test_words_grow_linearly_with_depth() -> None:
    lm = st.Scripted([])
    x = st.Parameter("word", "x")
    y: st.Node = x
    for _ in range(18):
        y = st.textsum([y, y])
    propagator = st.TextualPropagator(lm)
    y.backward("shorter", propagator)
    merged = propagator.merge(x, x.messages)
    assert [one.text for one in merged] == ["shorter"]  # 2^18 paths, one message

    author = Author()
    z: st.Node = st.Parameter("word", "z")
    start = z

    @st.op
    def both(left: str, right: str) -> str:
        return left

    for _ in range(12):
        z = both(z, z)
    z.backward("shorter", st.TextualPropagator(st.Scripted(author), max_grad_tokens=50))
    assert author.counts["criticism"] == 24  # one for each edge
    assert isinstance(start, st.Parameter)
    assert all(len(one.text) < 300 for message in start.messages for one in message)


def test_summaries_cost_one_call_where_several_meet() -> None:
    author = Author()
    x = st.Parameter("word", "x")
    first, second = x.call("upper"), x.call("lower")
    out = st.textsum([first, second])
    propagator = st.TextualPropagator(st.Scripted(author), reduce="summarize")
    out.backward("hm", propagator)
    assert author.counts["criticism"] == 2
    assert st.TGD([x], st.Scripted(author), propagator=propagator).step().applied
    assert author.counts["reduce"] == 1
    assert "- criticism 1\n- criticism 2" in author.prompts[2] or (
        "- criticism 2\n- criticism 1" in author.prompts[2]
    )


def test_a_metric_needs_no_model() -> None:
    author = Author()
    rule = st.Parameter("aaa", "rule")
    loss = st.MetricLoss(lambda text, most: st.Feedback(score=most - len(text), text="too long"))
    out = loss(rule, 2)
    out.backward()
    report = st.TGD([rule], st.Scripted(author)).step()
    assert report.calls == 1
    assert "too long\nScore: -1 (higher is better)" in author.prompts[0]


def test_constraints_are_checked_and_broken_replies_asked_again() -> None:
    replies = ["no tags", "<NEW>one two three</NEW>", "<NEW>one two</NEW>"]
    rule = st.Parameter(
        "x", "rule", constraint="at most 2 words", check=lambda s: len(s.split()) <= 2
    )
    lm = st.Scripted(replies)
    (rule + "!").backward("f", st.TextualPropagator(st.Scripted(Author())))
    report = st.TGD([rule], lm, retries=2, constraints=["be kind"]).step()
    assert report.applied == {"rule": "one two"}
    assert report.calls == 3
    first = lm.requests[0].prompt
    assert "- be kind\n- at most 2 words" in first
    assert "no value between <NEW> and </NEW>" in lm.requests[1].prompt
    assert "breaks its rule: at most 2 words" in lm.requests[2].prompt

    rule.messages[:] = [(st.TextGradient(text="g"),)]
    report = st.TGD([rule], st.Scripted(["<NEW>a b c</NEW>"] * 2)).step()
    assert not report.applied
    assert "at most 2 words" in report.rejected["rule"]
    assert rule.value == "one two"


def test_memory_and_momentum_show_what_was() -> None:
    lm = st.Scripted([f"<NEW>v{k}</NEW>" for k in (1, 2, 3)])
    rule = st.Parameter("v0", "rule")
    optimizer = st.TGD([rule], lm, memory=1, momentum=2)
    for k in range(3):
        rule.messages[:] = [(st.TextGradient(text=f"g{k}"),)]
        optimizer.step()
    prompt = lm.requests[2].prompt
    assert "Feedback of earlier steps, oldest first:\ng1" in prompt
    assert "g0" not in prompt
    assert "Earlier values, oldest first:\n- v0\n- v1" in prompt
    state = json.loads(json.dumps(optimizer.state_dict()))
    other = st.Parameter("v0", "rule")
    lm = st.Scripted(["<NEW>v4</NEW>"])
    again = st.TGD([other], lm, memory=1, momentum=2)
    again.load_state_dict(state)
    other.messages[:] = [(st.TextGradient(text="g3"),)]
    again.step()
    assert "oldest first:\ng2" in lm.requests[0].prompt
    assert "- v1\n- v2" in lm.requests[0].prompt


def test_a_parameter_without_criticism_is_left_alone() -> None:
    good, bad = st.Parameter("good", "good"), st.Parameter("bad", "bad")

    @st.op(backward=lambda said, out, good, bad: (None, f"bad: {said}"))
    def join(good: str, bad: str) -> str:
        return good + bad

    author = Author("better")
    join(good, bad).backward("mend it")
    report = st.TGD([good, bad], st.Scripted(author)).step()
    assert report.applied == {"bad": "better"}
    assert author.counts["rewrite"] == 1


def test_edges_are_asked_for_at_once_and_in_order() -> None:
    class Slow(Author):
        def __call__(self, request: ChatRequest) -> str:
            # the first edges wait longest
            time.sleep(0.05 if "q0" in request.prompt else 0.0)
            return f"about {next(w for w in request.prompt.split() if w.startswith('q'))}"

    slow, author = Slow(), Author()
    rule = st.Parameter("rule", "rule")

    @st.op
    def use(question: str, rule: str) -> str:
        return f"{question} {rule}"

    out = st.textsum([use(f"q{k}", rule) for k in range(6)])
    out.backward("hm", st.TextualPropagator(st.Scripted(slow), concurrency=6))
    texts = [one.text for message in rule.messages for one in message]
    assert texts == [f"about q{k}" for k in (5, 4, 3, 2, 1, 0)]
    assert author.counts["forward"] == 0


def test_a_budget_that_ends_while_feedback_travels_changes_nothing() -> None:
    lm = st.LM(st.Scripted(Author()), budget={"max_calls": 3})
    rule = st.Parameter("rule", "rule")
    out = st.textsum(
        [rule.call("upper"), rule.call("lower"), rule.call("title"), rule.call("strip")]
    )
    out.backward("hm")
    report = st.TGD([rule], lm).step()
    assert "max_calls" in report.stopped
    assert lm.usage.calls == 3
    assert rule.value == "rule"


def test_a_budget_that_ends_in_a_program_is_not_feedback() -> None:
    lm = st.LM(st.Scripted(Author()), budget={"max_calls": 1})
    answer = st.LLM(lm, st.Parameter("s", "system"))
    answer("a")
    with pytest.raises(BudgetExhausted):
        answer("b")


@pytest.mark.parametrize(
    "options", [{"tags": ("<A>", "<A>")}, {"memory": -1}, {"momentum": -2}, {"retries": -1}]
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        st.TGD([st.Parameter("a")], st.Scripted([]), **options)
    with pytest.raises(ConfigError):
        st.TextualPropagator(st.Scripted([]), reduce="mean")  # type: ignore[arg-type]


@pytest.mark.parametrize("said", ["NOTHING", "nothing.", "", "  \n"])
def test_what_is_good_as_it_is_is_left_alone_and_costs_no_rewrite(said: str) -> None:
    asked: list[str] = []

    def model(request: ChatRequest) -> str:
        first = text_of(request.messages[0])
        asked.append(first)
        if "write feedback for one of its inputs" in first:
            return said if "'good'" in request.prompt.splitlines()[-2] else "Change it."
        return "<NEW>new</NEW>"

    good, bad = st.Parameter("fine", "good"), st.Parameter("poor", "bad")

    @st.op
    def joined(good: str, bad: str) -> str:
        return good + bad

    joined(good, bad).backward("Only one of them is poor.")
    report = st.TGD([good, bad], st.LM(st.Scripted(model))).step()
    assert report.applied == {"bad": "new"}
    assert len(asked) == 3


def test_nothing_is_said_of_what_is_behind_an_input_that_is_good_as_it_is() -> None:
    asked: list[str] = []

    def model(request: ChatRequest) -> str:
        asked.append(request.prompt)
        return "NOTHING"

    @st.op
    def loud(text: str) -> str:
        return text.upper()

    x = st.Parameter("x", "x")
    loud(loud(loud(x))).backward("Hm.", st.TextualPropagator(st.Scripted(model)))
    assert len(asked) == 1
    assert not x.messages
