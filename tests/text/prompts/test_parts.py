"""Templates, parsers, metrics, intervals and exemplars."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as hyp

from sharpen.core.errors import ConfigError, DataError, MissingFileError
from sharpen.core.lm import LM
from sharpen.core.lm.messages import ChatRequest, ChatResponse, ThreadedEngine
from sharpen.text.prompts.confidence import mcnemar, mean_interval, paired_difference
from sharpen.text.prompts.evaluator import Evaluator
from sharpen.text.prompts.exemplars import Nearest, vectors
from sharpen.text.prompts.label_scores import best_label, label_scores, mean_scores
from sharpen.text.prompts.metrics import judge, make_metric
from sharpen.text.prompts.parsers import make_parser
from sharpen.text.prompts.task import (
    Candidate,
    Example,
    Exemplar,
    PromptProgram,
    read_examples,
)
from sharpen.text.prompts.template import fields_of, render


@given(hyp.text(), hyp.text())
def test_values_are_put_in_as_they_are(before: str, value: str) -> None:
    before = before.replace("{{", "")
    assert render(before + "{{ x }}", {"x": value}) == before + value
    assert render("{{x}}{x}%s\\1", {"x": "{{y}}"}) == "{{y}}{x}%s\\1"
    assert fields_of("{{a}} {{b.c}} {{a}} {d}") == ["a", "b.c"]
    with pytest.raises(ConfigError, match="field 'y'"):
        render("{{y}}", {"x": 1})


@pytest.mark.parametrize(
    ("name", "reply", "expected"),
    [
        ("text", "  a\nb ", "a\nb"),
        ("text", " \n", None),
        ("line", "\n  first \nsecond", "first"),
        ("label", "I think NOT GOOD, not bad", "not good"),
        ("label", "goodness me", None),
        ("number", "2 apples and 1,234.5 pears", 1234.5),
        ("number", "none", None),
        ("regex:answer is (\\w+)", "the answer is 42.", "42"),
        ("regex:\\d+", "a 7", "7"),
        ("json:a", 'Sure: {"a": [1], "b": 2}', [1]),
        ("json:a", "no", None),
        ("tag:final", "<final> x </final>", "x"),
    ],
)
def test_predictions_are_read_out_of_replies(name: str, reply: str, expected: Any) -> None:
    assert make_parser(name, ["good", "bad", "not good"])(reply) == expected


@pytest.mark.parametrize("name", ["label", "regex:", "regex:(", "json", "poem", "text:a"])
def test_parsers_that_make_no_sense_are_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        make_parser(name)


def test_a_regular_expression_cannot_hang_a_run() -> None:
    parse = make_parser("regex:(a+)+$")
    assert parse("a" * 40 + "b") is None


@pytest.mark.parametrize(
    ("name", "predicted", "output", "score"),
    [
        ("exact", " YES ", "yes", 1.0),
        ("exact", "yes sir", "yes", 0.0),
        ("contains", "it is Paris.", "paris", 1.0),
        ("numeric", "3.0000001", 3, 1.0),
        ("numeric:0.1", 3.2, 3, 1.0),
        ("numeric", "three", 3, 0.0),
        ("f1", "the red fox", "a red fox runs", 4 / 7),
    ],
)
def test_metrics_are_their_formulas(name: str, predicted: Any, output: Any, score: float) -> None:
    feedback = judge(make_metric(name), predicted, Example({"input": ""}, output))
    assert feedback.score == pytest.approx(score)


def test_a_metric_of_a_file_may_speak(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "from sharpen.text import Feedback\n"
        "def near(predicted, example):\n"
        "    return Feedback(score=0.25, text=f'{predicted} is not {example.output}')\n"
        "def wrong(predicted, example):\n    return float('nan')\n"
    )
    example = Example({"input": ""}, "b")
    feedback = judge(make_metric("python:m.py:near", tmp_path), "a", example)
    assert (feedback.score, feedback.text) == (0.25, "a is not b")
    with pytest.raises(ConfigError, match="finite"):
        judge(make_metric("python:m.py:wrong", tmp_path), "a", example)
    with pytest.raises(MissingFileError):
        make_metric("python:none.py:f", tmp_path)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        make_metric("python:m.py:absent", tmp_path)
    with pytest.raises(ConfigError, match="there is no metric"):
        make_metric("bleu")


def test_intervals_are_wilsons_and_cover() -> None:
    # by hand: n = 10, 8 right, z = 1.96
    interval = mean_interval([1.0] * 8 + [0.0] * 2)
    assert (interval.low, interval.high) == (
        pytest.approx(0.4901625, abs=1e-6),
        pytest.approx(0.9433178, abs=1e-6),
    )
    assert mean_interval([1.0] * 5).high == 1.0
    rng = np.random.default_rng(0)
    covered = sum(
        (found := paired_difference(x + 0.3, x + rng.normal(size=40) * 0.5)).low
        <= 0.3
        <= found.high
        for x in rng.normal(size=(200, 40))
    )
    assert 170 <= covered <= 200
    with pytest.raises(DataError):
        mean_interval([])


def test_mcnemar_is_the_exact_binomial() -> None:
    from scipy.stats import binomtest

    rng = np.random.default_rng(1)
    for _ in range(20):
        a, b = rng.integers(2, size=(2, 30))
        wins, losses = int((a > b).sum()), int((a < b).sum())
        expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
        assert mcnemar(a.tolist(), b.tolist()) == pytest.approx(expected)


def test_likeness_is_the_cosine_of_tf_idf() -> None:
    texts = ["red fox jumps", "blue fox", "red red wine", "the sea"]
    x, _, _ = vectors(texts)
    weight = {
        w: 1 + math.log(5 / (1 + sum(w in t.split() for t in texts)))
        for w in {w for t in texts for w in t.split()}
    }
    for i, a in enumerate(texts):
        for j, b in enumerate(texts):
            va, vb = ({w: t.split().count(w) * weight[w] for w in weight} for t in (a, b))
            dot = sum(va[w] * vb[w] for w in weight)
            na, nb = (math.sqrt(sum(v * v for v in d.values())) for d in (va, vb))
            assert x[i] @ x[j] == pytest.approx(dot / na / nb)
    pool = [Exemplar({"input": text}, "", str(k)) for k, text in enumerate(texts)]
    near = Nearest(pool).find(Example({"input": "a red fox"}, "", "0"), 2)
    assert [one.id for one in near] == ["1", "2"] or [one.id for one in near] == ["2", "1"]
    assert "0" not in [one.id for one in near]  # never of the example itself


def test_labels_are_scored_by_their_first_tokens() -> None:
    top = [(" pos", 0.5), ("neg", 0.25), ("Positive", 0.1), ("p", 0.05), ("n", 0.01), ("x", 0.001)]
    content = [{"top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in top]}]
    response = ChatResponse(["pos"], raw={"choices": [{"logprobs": {"content": content}}]})
    scores = label_scores(response, ["positive", "negative", "neutral"])
    assert scores is not None
    assert math.exp(scores["positive"]) == pytest.approx(0.65)
    assert math.exp(scores["negative"]) == pytest.approx(0.25)  # "n" begins two labels
    assert math.exp(scores["neutral"]) == pytest.approx(0.001)  # the least that was told
    prior = mean_scores([scores, {"positive": 2.0, "negative": 0.0, "neutral": 0.0}])
    assert prior["positive"] == pytest.approx((scores["positive"] + 2) / 2)
    assert best_label(scores, {}) == "positive"
    assert best_label(scores, {"positive": 5.0}) == "negative"
    nothing = ChatResponse([""], raw={"choices": [{"logprobs": {"content": []}}]})
    assert label_scores(nothing, ["a", "b"]) is None
    with pytest.raises(ConfigError, match="tells no probabilities"):
        label_scores(ChatResponse(["a"]), ["a", "b"])


class Judge(ThreadedEngine):
    """Says yes as surely as the input's number is large, and nothing to some."""

    model = "judge"
    capabilities = {"logprobs"}  # noqa: RUF012

    def complete(self, request: ChatRequest) -> ChatResponse:
        number = float(request.prompt.split()[-1])
        if number < 0:
            return ChatResponse([""], raw={"choices": [{"logprobs": {"content": []}}]})
        top = [
            {"token": "yes", "logprob": math.log(0.5 + number / 2)},
            {"token": "no", "logprob": math.log(0.5 - number / 2)},
        ]
        raw = {"choices": [{"logprobs": {"content": [{"top_logprobs": top}]}}]}
        return ChatResponse(["yes"], model="judge", raw=raw)


def test_decisions_are_calibrated_and_silence_is_no_answer() -> None:
    program = PromptProgram(
        template="{{instruction}} {{input}}", decision="calibrated", labels=["yes", "no"]
    )
    rows = [("0.2", "no"), ("0.4", "no"), ("0.6", "yes"), ("0.8", "yes"), ("-1", "yes")]
    examples = [Example({"input": x}, y, str(i)) for i, (x, y) in enumerate(rows)]
    evaluator = Evaluator(program, LM(Judge()), make_metric("exact"), batch=examples)
    evaluation = evaluator(Candidate("Sure?"), examples)
    # All lean to yes; less the mean, half of them to no.
    assert evaluation.scores == [1, 1, 1, 1, 0]
    assert evaluation.unparsed == 1
    assert "ended before its first token" in evaluation.outcomes[4].feedback


def test_programs_show_exemplars_and_leave_no_gaps() -> None:
    program = PromptProgram(
        template="{{instruction}}\n\n{{exemplars}}\n\nQ: {{input}}\nA:",
        exemplar="Q: {{input}}\nA: {{output}}",
        system="Be {{instruction}}",
    )
    shown = [Exemplar({"input": "1"}, "one", "a"), Exemplar({"input": "2"}, "two", "b")]
    messages = program.messages(Candidate("brief"), {"input": "3"}, shown)
    assert messages[0] == {"role": "system", "content": "Be brief"}
    assert messages[1]["content"] == "brief\n\nQ: 1\nA: one\n\nQ: 2\nA: two\n\nQ: 3\nA:"
    assert program.messages(Candidate("brief"), {"input": "3"}, [])[1]["content"] == (
        "brief\n\nQ: 3\nA:"
    )
    with pytest.raises(ConfigError, match="instruction"):
        PromptProgram(template="{{input}}")
    with pytest.raises(ConfigError, match="two labels"):
        PromptProgram(template="{{instruction}}", decision="scores", labels=["a"])


def test_examples_are_read_with_their_place() -> None:
    rows = [{"input": "a", "output": 1}, {"input": {"q": "b"}, "output": 2, "id": "x"}]
    first, second = read_examples(rows)
    assert dict(first.input) == {"input": "a"}
    assert second.id == "x"
    for wrong, message in (
        ([*rows, {"input": "c"}], "row 3"),
        ([*rows, rows[0]], "row 3: the same example as row 1"),
        ([], "no examples"),
        ([1], "row 1"),
    ):
        with pytest.raises(DataError, match=message):
            read_examples(wrong)
    candidate = Candidate("i", (Exemplar({"input": "a"}, "b", "c"),), 2)
    assert Candidate.from_dict(candidate.to_dict()) == candidate
    assert candidate.key != Candidate("i").key
