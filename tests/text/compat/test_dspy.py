"""DSPy's names: signatures, prompts, programs of them, and optimizers over the prompt search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as hyp

from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError
from sharpen.core.lm import LM, ReplyError, Scripted
from sharpen.core.lm.messages import ChatRequest, text_of
from sharpen.text.compat import dspy
from sharpen.text.prompts.oracle import Oracle


class Answer(dspy.Signature):
    """Answer by the context."""

    question: str = dspy.InputField()
    context: list[str] = dspy.InputField(desc="what is known")
    metres: float = dspy.OutputField(desc="how far")
    sure: bool = dspy.OutputField()
    unit: Literal["m", "km"] = dspy.OutputField()


def test_a_line_and_a_class_say_the_same() -> None:
    line = "question, context: list[str] -> metres: float, sure: bool, unit: Literal['m', 'km']"
    made: Any = dspy.Signature(line, "Answer by the context.")
    for one in (made, Answer):
        assert one.instructions == "Answer by the context."
        assert list(one.input_fields) == ["question", "context"]
        assert list(one.output_fields) == ["metres", "sure", "unit"]
        assert one.output_fields["unit"].labels == ("m", "km")
        kinds = [field.kind for field in one.fields.values()]
        assert kinds == ["text", "json", "float", "bool", "choice"]
    assert dspy.Signature("a -> b").instructions == "Given a, write b."  # type: ignore[call-arg, attr-defined]
    other = Answer.with_instructions("New.")
    assert (other.instructions, Answer.instructions) == ("New.", "Answer by the context.")
    assert other.fields == Answer.fields


@pytest.mark.parametrize(
    "line",
    [
        *("a", "a -> ", "-> b", "a -> b -> c", "a, a -> b", "a -> a", "a b -> c", "a: Set -> b"),
        *("a: __import__('os') -> b", "a -> b: Literal[x]", "a -> b: str()", "output -> b"),
        *("instruction -> b", "exemplars, a -> b", "a -> b: list[", "a -> 1b"),
    ],
)
def test_lines_that_are_no_signature_are_refused(line: str) -> None:
    with pytest.raises(ConfigError):
        dspy.Signature(line)  # type: ignore[call-arg]


def test_classes_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="no type of a field"):
        type("Bad", (dspy.Signature,), {"__annotations__": {"a": object}, "a": dspy.InputField()})
    with pytest.raises(ConfigError, match="needs an input and an output"):
        type("Bad", (dspy.Signature,), {"__annotations__": {"a": str}, "a": dspy.InputField()})


REPLY = "<metres>1.5</metres>\n<sure>yes</sure><unit>KM</unit>"
FOUND = {"metres": 1.5, "sure": True, "unit": "km"}


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        (REPLY, FOUND),
        ("Thus: <metres>9</metres> no, " + REPLY, FOUND),
        ('```json\n{"metres": 1.5, "sure": true, "unit": "km"}\n```', FOUND),
        ("<think><metres></think>" + REPLY, FOUND),
        (REPLY.replace("1.5", "about 1.5"), None),
        (REPLY.replace("yes", "perhaps"), None),
        (REPLY.replace("KM", "mile"), None),
        (REPLY.replace("1.5", "NaN"), None),
        (REPLY[:-8], None),
        ("<metres>1.5</metres>", None),
        ("1.5", None),
        ("", None),
    ],
)
def test_replies_are_read_by_their_types_or_not_at_all(reply: str, wanted: Any) -> None:
    assert Answer.parse(reply) == wanted


@pytest.mark.parametrize(
    ("line", "reply", "wanted"),
    [
        ("q -> n: int", "The answer is 1,204.", 1204),
        ("q -> n: int", "The answer is 1.5.", None),
        ("q -> n: Literal['yes', 'no']", "I would say No, rather.", "no"),
        ("q -> n: Literal[1, 2]", "<n>2</n>", 2),
        ("q -> n", "N: just text with {braces}", "just text with {braces}"),
        ("q -> n", '<n>{"n": "x"}</n>', '{"n": "x"}'),
        ("q -> n: list[int]", "<n>[1, 2]</n>", [1, 2]),
        ("q -> n: list", "<n>one</n>", None),
        ("q -> n: dict", '<n>{"a": 1}</n>', {"a": 1}),
        ("q -> n: bool", "<n>False</n>", False),
    ],
)
def test_a_single_output_is_read_without_tags_too(line: str, reply: str, wanted: Any) -> None:
    found = dspy.Signature(line).parse(reply)  # type: ignore[call-arg, attr-defined]
    assert found == (None if wanted is None else {"n": wanted})


@given(
    hyp.fixed_dictionaries(
        {
            "metres": hyp.floats(allow_nan=False, allow_infinity=False),
            "sure": hyp.booleans(),
            "unit": hyp.sampled_from(["m", "km"]),
        }
    )
)
def test_what_is_rendered_is_read_back(values: dict[str, Any]) -> None:
    assert Answer.parse(Answer.render(values)) == values


def test_a_prompt_has_instructions_form_exemplars_and_inputs() -> None:
    engine = Scripted([REPLY])
    predict = dspy.Predict(Answer, lm=LM(engine))
    predict.demos = [
        dspy.Example(question="q0", context=["c"], metres=2.0, sure=False, unit="m"),
        dspy.Example(question="q1", context=[], metres=3.0, sure=True, unit="m"),
    ]
    found = predict(question="q1", context=[])
    assert found.toDict() == FOUND
    assert (found.metres, found["unit"]) == (1.5, "km")
    assert text_of(engine.requests[0].messages[0]) == (
        "Answer by the context.\n\nReply in this form:\n<metres>how far; a number</metres>\n"
        "<sure>true or false</sure>\n<unit>m or km</unit>\n\n"
        "Question: q0\nContext: ['c']\nReply:\n<metres>2.0</metres>\n<sure>false</sure>\n"
        "<unit>m</unit>\n\nQuestion: q1\nContext: []\nReply:"  # never a solution of its own
    )


def test_what_cannot_be_read_is_asked_for_again_a_bounded_number_of_times() -> None:
    engine = Scripted(["no", "<n>4</n>", "no", "no"])
    predict = dspy.Predict("q -> n: int", lm=engine)
    assert predict(q="a").n == 4
    assert "could not be read" in engine.requests[1].prompt
    with pytest.raises(ReplyError, match="the reply has no n"):
        predict(q="b")
    assert len(engine.requests) == 4


def test_reasoning_comes_first_and_models_are_configured() -> None:
    engine = Scripted(lambda _: "<reasoning>because</reasoning><answer>4</answer>")
    think = dspy.ChainOfThought("question -> answer: int")
    with pytest.raises(ConfigError, match="no model"):
        think(question="x")
    with dspy.context(lm=engine):
        found = think(question="2 + 2?")
    assert (found.reasoning, found.answer) == ("because", 4)
    assert engine.requests[0].prompt.index("<reasoning>") < engine.requests[0].prompt.index("<ans")
    with pytest.raises(ConfigError, match="expected the inputs question"):
        think(query="x")
    with pytest.raises(AttributeError, match="there are: reasoning, answer"):
        _ = found.other


def test_models_are_named_as_in_dspy(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = dspy.LM("openai/small", api_base="http://127.0.0.1:9/v1", api_key="k", temperature=0.5)
    assert lm.model == "small"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert dspy.LM("openai/other").model == "other"


def test_examples_say_what_their_inputs_are() -> None:
    one = dspy.Example(q="a", n=1)
    with pytest.raises(ConfigError, match="with_inputs"):
        one.inputs()
    one = one.with_inputs("q")
    assert (one.inputs().toDict(), one.labels().toDict()) == ({"q": "a"}, {"n": 1})


class Two(dspy.Module):
    def __init__(self) -> None:
        self.steps = [dspy.Predict("q -> draft"), {"last": dspy.Predict("draft -> n: int")}]

    def forward(self, q: str) -> Any:
        draft = self.steps[0](q=q).draft  # type: ignore[operator]
        return self.steps[1]["last"](draft=draft)  # type: ignore[index]


def two_steps(request: ChatRequest) -> str:
    last = request.prompt.splitlines()[-2]
    if last.startswith("Q:"):
        return f"<draft>draft of {last[3:]}</draft>"
    return f"<n>{last[-1]}</n>"


def examples(count: int, wrong: int = 99) -> list[Any]:
    rows = [dspy.Example(q=f"q{k}", n=k if k < wrong else -1) for k in range(count)]
    return [one.with_inputs("q") for one in rows]


def right(example: Any, found: Any, trace: Any = None) -> bool:
    return bool(example.n == found.n)


def test_a_program_is_evaluated_in_order_and_on_threads() -> None:
    with dspy.context(lm=Scripted(two_steps)):
        found = dspy.Evaluate(devset=examples(8, wrong=6), metric=right, num_threads=4)(Two())
    assert found.score == 75.0
    assert [row[0].q for row in found.results] == [f"q{k}" for k in range(8)]
    broken = dspy.Predict("q -> n: int", lm=Scripted(lambda _: "none"), retries=0)
    found = dspy.Evaluate(devset=examples(2), metric=right)(broken)
    assert found.score == 0
    assert all(isinstance(row[1], ReplyError) for row in found.results)


def test_bootstrapping_shows_every_prompt_what_it_wrote_where_all_was_right() -> None:
    program = Two()
    with dspy.context(lm=Scripted(two_steps)):
        made = dspy.BootstrapFewShot(right, max_bootstrapped_demos=2, max_labeled_demos=3).compile(
            program, trainset=[*examples(1, wrong=0), *examples(4)[1:]]
        )
    first, last = made.predictors()
    assert [dict(one.input) for one in first.demos] == [{"q": "q1"}, {"q": "q2"}]
    assert [one.output for one in last.demos] == ["<n>1</n>", "<n>2</n>"]
    assert [name for name, _ in made.named_predictors()] == ["steps.0", "steps.1.last"]
    assert not any(one.demos for one in program.predictors())
    labelled = dspy.LabeledFewShot(k=2).compile(dspy.Predict("q -> n"), trainset=examples(5))
    assert len(labelled.demos) == 2
    with pytest.raises(ConfigError, match="other prompts"):
        dspy.BootstrapFewShot(right).compile(program, teacher=first, trainset=[])


def test_programs_are_saved_as_one_plain_file(tmp_path: Path) -> None:
    program = Two()
    first, _ = program.predictors()
    first.signature = first.signature.with_instructions("Draft.")
    first.demos = [{"q": "a", "draft": "b"}]
    program.save(tmp_path / "p.json")
    again = Two().load(tmp_path / "p.json")
    assert again.predictors()[0].signature.instructions == "Draft."
    assert again.predictors()[0].demos == first.demos
    with pytest.raises(FileFormatError, match="this program has self"):
        dspy.Predict("q -> n").load(tmp_path / "p.json")
    for text in ("{", "[]", '{"schema": "x", "prompts": {}}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(FileFormatError):
            Two().load(tmp_path / "bad.json")
    with pytest.raises(MissingFileError):
        Two().load(tmp_path / "none.json")
    assert json.loads((tmp_path / "p.json").read_text())["prompts"]["steps.0"]["exemplars"]


class Cases(Oracle):
    """The oracle behind the form that signatures ask for."""

    def answer(self, prompt: str) -> str:
        plain = prompt.replace("\nReply:\n", " -> ").replace("Input: ", "")
        plain = plain.replace("<label>yes or no</label>", "")
        for word in ("yes", "no"):
            plain = plain.replace(f"<label>{word}</label>", word)
        return f"<label>{super().answer(plain)}</label>"


@pytest.mark.parametrize("name", ["MIPROv2", "GEPA", "BootstrapFewShotWithRandomSearch"])
def test_optimizers_search_for_the_prompt_that_runs(name: str) -> None:
    oracle = Cases({"steps": 0.3, "short": 0.2, "rhyme": -0.2}, seed=3, exemplar_weight=0.3)
    rows = [
        dspy.Example(input=one.input["input"], label=one.output).with_inputs("input")
        for one in oracle.examples(90)
    ]
    signature = dspy.Signature(  # type: ignore[call-arg]
        "input -> label: Literal['yes', 'no']", "Answer yes or no. (rhyme)"
    )
    program = dspy.Predict(signature, lm=oracle)

    def metric(example: Any, found: Any, trace: Any = None) -> Any:
        is_right = float(example.label == found.label)
        return dspy.Prediction(score=is_right, feedback=f"right is {example.label}")

    optimizer: Any = getattr(dspy, name)(metric, seed=1, num_threads=1)
    made = optimizer.compile(program, trainset=rows[:30], valset=rows[30:60])
    assert made.result.judgements <= made.result.allowed
    check = dspy.Evaluate(devset=rows[60:], metric=metric, num_threads=1)
    assert check(made).score > check(program).score + 10
    again = dspy.Evaluate(devset=rows[30:60], metric=metric, num_threads=1)(made)
    assert again.score == pytest.approx(100 * made.result.best.score)  # the same prompt runs
    assert program.signature.instructions == "Answer yes or no. (rhyme)"


def test_searches_say_what_they_cannot_do() -> None:
    with pytest.raises(ConfigError, match="of one prompt; this has 2"):
        dspy.MIPROv2(right).compile(Two(), trainset=examples(3))
    with pytest.raises(ConfigError, match="no model"):
        dspy.GEPA(right).compile(dspy.Predict("q -> n"), trainset=examples(3))
    with pytest.raises(ConfigError, match="auto must be"):
        dspy.MIPROv2(right, auto="huge")
    with pytest.raises(ConfigError, match="num_trials"):
        dspy.MIPROv2(right, auto=None).compile(dspy.Predict("q -> n"), trainset=examples(3))
    with pytest.raises(ConfigError, match="no examples"):
        dspy.Evaluate(devset=[], metric=right)
