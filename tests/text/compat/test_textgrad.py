"""TextGrad's names: the same calls and values as textgrad, and what is mended."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from benchmarks.text import textgrad_programs as programs

from sharpen.core.errors import ConfigError
from sharpen.core.lm import LM, Scripted
from sharpen.core.lm.messages import ChatRequest, text_of
from sharpen.text.compat import textgrad as tg
from sharpen.text.compat.textgrad.variable import _BACKWARD

RECORD = Path(__file__).parents[3] / "benchmarks" / "results" / "text_textgrad_parity.json"
OURS = programs.run(tg)


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours["values"] == theirs["values"]
    assert Counter(ours["calls"]) == Counter(theirs["calls"])
    for one in (ours, theirs):  # a step begins when all has been criticized
        kinds = [call.split()[0] for call in one["calls"]]
        assert "criticize" not in kinds[kinds.index("rewrite") : kinds.index("rewrite") + 1]
    for kind in ("answer", "judge", "rewrite"):  # these have one order in both
        rows = [[call for call in one["calls"] if call.startswith(kind)] for one in (ours, theirs)]
        assert rows[0] == rows[1]


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_calls_and_values_are_those_that_were_recorded_of_textgrad(name: str) -> None:
    document = json.loads(RECORD.read_text())
    assert document["results"]["version"] == "0.1.8"
    compare(OURS[name], document["results"]["textgrad"][name])


@pytest.mark.peer
@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_calls_and_values_are_those_of_textgrad(name: str) -> None:
    textgrad = pytest.importorskip("textgrad")
    compare(OURS[name], programs.run(textgrad)[name])


def test_memory_is_shown_and_sums_bring_no_empty_feedback() -> None:
    assert OURS["memory"]["notes"]["past_shown"] == 2
    assert all(row["notes"]["empty_feedback"] == 0 for row in OURS.values())


class Author(tg.EngineLM):
    """Replies by what it is asked for."""

    model_string = "author"

    def __init__(self) -> None:
        self.prompts: list[tuple[str, str | None]] = []

    def generate(self, prompt: str, system_prompt: str | None = None, **_: Any) -> str:
        self.prompts.append((prompt, system_prompt))
        if "write feedback for one of" in (system_prompt or ""):
            return f"criticism {len(self.prompts)}"
        if "You improve one value" in (system_prompt or ""):
            return f"<IMPROVED_VARIABLE> better {len(self.prompts)} </IMPROVED_VARIABLE>"
        if prompt.startswith("Several operations"):
            return "summary"
        return f"reply {len(self.prompts)}"


def variable(text: str = "text", **options: Any) -> tg.Variable:
    return tg.Variable(text, role_description="a role", **options)


def test_an_answer_can_be_optimized_after_its_loss_was_taken() -> None:
    engine = Author()
    system = tg.Variable("Answer.", role_description="the system prompt")
    answer = tg.BlackboxLLM(engine, system)(variable("q", requires_grad=False))
    loss = tg.TextLoss("Judge.", engine)(answer)
    loss.backward(engine)
    assert [one.text for one in answer.gradients] == ["criticism 3"]
    assert [one.text for one in system.gradients] == ["criticism 4"]
    report = tg.TGD([answer], engine=engine).step()
    assert answer.value == "better 5"
    assert report.calls == 1
    assert engine.prompts[0] == ("q", "Answer.")


def test_aggregate_reaches_all_and_is_summarized() -> None:
    engine = Author()
    texts = [variable("a"), variable("b")]
    rule = variable("rule")
    loss = tg.TextLoss(rule, engine)
    total = tg.aggregate([loss(one) for one in texts])
    assert total.value == "reply 1\nreply 2"
    total.backward(engine)
    assert all(len(one.gradients) == 1 for one in texts)
    assert [one.text for one in rule.gradients] == ["summary"]


def test_texts_are_joined_and_criticism_passes() -> None:
    engine = Author()
    a, b = variable("a"), variable("b", requires_grad=False)
    joined = a + b
    assert (joined.value, joined.requires_grad) == ("ab", True)
    tg.TextLoss("Judge.", engine)(joined).backward(engine)
    assert a.get_gradient_text() == "criticism 2"
    assert not (b + b).requires_grad
    a.reset_gradients()
    assert a.gradients == []
    assert variable(" ".join(map(str, range(30)))).get_short_value(2) == "0 1 (...) 28 29"


def test_fields_are_judged_by_their_roles() -> None:
    engine = Author()
    instruction = variable("Compare.", requires_grad=False)
    evaluate = tg.MultiFieldTokenParsedEvaluation(
        instruction, ["guess", "right"], engine, parse_tags=("<A>", "</A>")
    )
    guess = variable("{4}")
    judged = evaluate([guess, variable("{5}", requires_grad=False)])
    prompt, system = engine.prompts[0]
    assert prompt == "Compare.\n**guess**: {4}\n**right**: {5}"
    assert "compares two variables" in str(system)
    judged.backward(engine)
    assert len(guess.gradients) == 1
    assert evaluate.parse_output(variable("x <A> 1 </A>")) == "1"
    with pytest.raises(ConfigError, match="nothing between <A>"):
        evaluate.parse_output(variable("x"))


def test_an_answer_to_a_choice_is_judged_at_test_time() -> None:
    engine = Author()
    answer = variable("B, since {x}")
    judged = tg.MultiChoiceTestTime("Be strict.", engine)("A or B?", answer)
    prompt, system = engine.prompts[0]
    assert prompt == "Be strict.\nQuestion: A or B?\nAnswer: B, since {x}"
    assert "multiple choice" in str(system)
    judged.backward(engine)
    assert len(answer.gradients) == 1
    assert judged.role_description == "evaluation of the a role"


def test_a_plain_function_is_criticized_by_its_purpose() -> None:
    engine = Author()
    same = tg.StringBasedFunction(
        lambda guess, right: int(guess.value == right.value), "whether the guess is right"
    )
    guess = variable("4")
    out = same({"guess": guess, "right": variable("5", requires_grad=False)}, "a verdict")
    assert out.value == "0"
    out.backward(engine)
    assert "whether the guess is right" in engine.prompts[0][0]
    assert len(guess.gradients) == 1


def test_momentum_shows_earlier_values() -> None:
    engine = Author()
    text = variable("first")
    optimizer = tg.TextualGradientDescentwithMomentum(engine, [text], momentum_window=2)
    loss = tg.TextLoss("Judge.", engine)
    for _ in range(2):
        optimizer.zero_grad()
        loss(text).backward(engine)
        optimizer.step()
    assert "Earlier values, oldest first:\n- first" in engine.prompts[-1][0]


def test_a_reply_without_tags_leaves_the_value() -> None:
    text = variable("first")
    tg.TextLoss("Judge.", Author())(text).backward(Author())
    optimizer = tg.TGD([text], engine=Scripted(lambda request: "I would not know."))
    report = optimizer.step()
    assert text.value == "first"
    assert "no value between" in report.rejected["parameter_0"]


def test_modules_have_parameters() -> None:
    engine = Author()

    class Two(tg.Module):
        def __init__(self) -> None:
            self.first = tg.BlackboxLLM(engine, variable("one"))
            self.second = tg.BlackboxLLM(engine, variable("two"))

        def forward(self, x: tg.Variable) -> tg.Variable:
            return self.second(self.first(x))

    two = Two()
    assert [one.value for one in two.parameters()] == ["one", "two"]
    assert [role for role, _ in two.named_parameters()] == ["a role", "a role"]
    tg.TextLoss("Judge.", engine)(two(variable("q", requires_grad=False))).backward(engine)
    assert all(one.gradients for one in two.parameters())
    two.zero_grad()
    assert not any(one.gradients for one in two.parameters())


def test_the_backward_engine_is_taken_where_none_is_given() -> None:
    with pytest.raises(ConfigError, match="no engine"):
        tg.TextLoss("Judge.")
    engine = Author()
    tg.set_backward_engine(engine)
    try:
        with pytest.raises(ConfigError, match="set already"):
            tg.set_backward_engine(engine)
        tg.set_backward_engine(engine, override=True)
        text = variable()
        tg.TextLoss("Judge.")(text).backward()
        tg.TGD([text]).step()
        assert text.value.startswith("better")
    finally:
        _BACKWARD.set(None)


def test_names_of_models_lead_to_the_server_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHARPEN_LLM_BASE_URL", "http://127.0.0.1:9/v1")
    for name in ("gpt-4o", "experimental:gpt-4o"):
        assert tg.get_engine(name).model == "gpt-4o"
    engine = tg.Variable("x", role_description="r")
    with pytest.raises(ConfigError, match="language model"):
        tg.TextLoss("Judge.", engine)


@pytest.mark.parametrize(
    "given", [{"value": 1.5}, {"value": b"png"}, {"image_path": "a.png"}, {"predecessors": [1]}]
)
def test_values_that_are_no_text_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        tg.Variable(role_description="r", **given)
    assert tg.Variable(3, role_description="r").value == "3"


def test_a_system_prompt_that_is_none_is_not_sent() -> None:
    seen: list[ChatRequest] = []

    def reply(request: ChatRequest) -> str:
        seen.append(request)
        return "ok"

    tg.BlackboxLLM(LM(Scripted(reply)))(variable("None {x}"))
    assert [text_of(m) for m in seen[0].messages] == ["None {x}"]
