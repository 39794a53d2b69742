"""Loops over minibatches and candidates, and several replies of which one is taken."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import sharpen.text as st
from sharpen.core.errors import ConfigError
from sharpen.core.lm.errors import BudgetExhausted
from sharpen.core.lm.messages import ChatRequest, text_of
from sharpen.core.parameters import Float

Reply = Callable[[str, int], str]


class Word(st.Module):
    """Gives its word; the judge knows what each word is worth on each example."""

    def __init__(self) -> None:
        self.word = st.Parameter("a")

    def forward(self, question: str) -> Any:
        return self.word + question


def worth(table: dict[str, float]) -> Any:
    """A metric that reads the word out of the response; others are worth 0."""
    return lambda response, reference: table.get(response.rstrip("0123456789"), 0.0)


EXAMPLES = [(str(k), None) for k in range(8)]


def script(reply: Reply) -> st.LM:
    """A model that replies to the word that it is shown, and to how often that was."""
    seen: dict[str, int] = {}

    def model(request: ChatRequest) -> str:
        (word,) = re.findall(r"^\(str\) word = (.*)$", text_of(request.messages[-1]), re.MULTILINE)
        seen[word] = seen.get(word, 0) + 1
        return json.dumps({"suggestion": {"word": reply(word, seen[word] - 1)}})

    return st.LM(st.Scripted(model))


def test_a_minibatch_keeps_what_is_no_worse() -> None:
    table = {"a": 0.3, "bad": 0.1, "same": 0.3, "good": 0.8}
    proposals = ["bad", "same", "good", "bad", "bad"]

    def loop(**options: Any) -> st.TrainResult:
        left = iter(proposals)
        module = Word()
        problem = st.TextProblem(module, EXAMPLES, worth(table))
        lm = script(lambda word, count: next(left))
        result = st.Minibatch(problem, st.OptoPrime(module, lm), batch=2, **options).train(5)
        assert module.word.value == result.best["word"]
        return result

    result = loop()
    assert [step.accepted for step in result.steps] == [False, True, True, False, False]
    assert [step.values["word"] for step in result.steps] == ["a", "same", "good", "good", "good"]
    assert (result.start, result.score) == (0.3, 0.8)
    assert result.examples == 2 + 5 * 2 * 2  # the first look, and two looks a turn
    free = loop(ensure_improvement=False)
    assert [step.values["word"] for step in free.steps] == proposals
    assert json.loads(json.dumps(result.to_dict()))["best"] == {"word": "good"}


def test_a_validation_refuses_what_helps_the_minibatch_alone() -> None:
    module = Word()
    problem = st.TextProblem(module, EXAMPLES, worth({"a": 0.3, "learned by heart": 1.0}))
    valid = st.TextProblem(module, EXAMPLES[:3], worth({"a": 0.3, "learned by heart": 0.2}))
    optimizer = st.OptoPrime(module, script(lambda word, count: "learned by heart"))
    result = st.Minibatch(problem, optimizer, batch=2, validation=valid).train(3)
    assert result.best == {"word": "a"}
    assert result.examples == 3 + 3 * (2 + 2) + 3  # each configuration is validated once


def test_basic_search_takes_the_best_of_several() -> None:
    replies = {"a": ["x", "y", "z"], "y": ["x"] * 3}
    table = {"a": 0.3, "x": 0.1, "y": 0.5, "z": 0.4}
    module = Word()
    problem = st.TextProblem(module, EXAMPLES, worth(table))
    optimizer = st.OptoPrime(module, script(lambda word, count: replies[word][count % 3]))
    result = st.BasicSearch(problem, optimizer, proposals=3, batch=1).train(2)
    assert [step.values["word"] for step in result.steps] == ["y", "y"]
    assert [step.accepted for step in result.steps] == [True, False]
    # The first, x, y, z on all eight; the minibatches of one.
    assert result.examples == 4 * 8 + 2


def test_a_beam_gets_past_what_stops_basic_search() -> None:
    table = {"a": 0.3, "dead end": 0.6, "detour": 0.4, "goal": 1.0}
    replies = {
        "a": ["dead end", "detour"],
        "dead end": ["dead end", "a"],
        "detour": ["goal", "a"],
        "goal": ["goal", "goal"],
    }
    found = {}
    for kind, options in ((st.BasicSearch, {}), (st.BeamSearch, {"width": 2})):
        module = Word()
        problem = st.TextProblem(module, EXAMPLES, worth(table))
        optimizer = st.OptoPrime(module, script(lambda word, count: replies[word][count % 2]))
        result = kind(problem, optimizer, proposals=2, batch=1, **options).train(3)
        found[kind.__name__] = result.best["word"]
    assert found == {"BasicSearch": "dead end", "BeamSearch": "goal"}


def test_confidence_bounds_find_the_best_under_noise() -> None:
    rng = np.random.default_rng(0)
    noise = {k: rng.normal(0, 0.5) for k in range(200)}

    def metric(response: str, reference: int) -> float:
        return response.count("b") * 0.4 - response.count("c") * 0.4 + noise[reference]

    module = Word()
    problem = st.TextProblem(module, [("", k) for k in range(200)], metric)
    lm = script(lambda word, count: (word + "bc"[count % 2])[:6])
    trainer = st.UCBSearch(problem, st.OptoPrime(module, lm), batch=10, capacity=4)
    result = trainer.train(40)
    assert result.best["word"] == "abbbbb"
    assert len(trainer._arms) <= 4
    assert 10 + 10 * 40 < result.examples <= 10 + 2 * 10 * 40


@pytest.mark.parametrize("kind", [st.Minibatch, st.BasicSearch, st.BeamSearch, st.UCBSearch])
def test_every_loop_improves_with_search_alone(kind: Any) -> None:
    class Line(st.Module):
        def __init__(self) -> None:
            self.slope = st.Parameter(0.0, space=Float(-4.0, 4.0))

        def forward(self, x: float) -> Any:
            return self.slope * x

    def play(seed: int) -> st.TrainResult:
        module = Line()
        data = [(x, 3 * x) for x in (0.5, 1.0, 2.0, 3.0, 4.0)]
        problem = st.TextProblem(module, data, lambda y, want: -abs(y - want))
        optimizer = st.SearchProposer(module, method="cmaes", seed=seed)
        trainer: st.Minibatch = kind(problem, optimizer, batch=3, seed=seed)
        return trainer.train(25)

    result = play(1)
    assert abs(result.best["slope"] - 3) < 0.3
    assert result.to_dict() == play(1).to_dict()


def test_the_budget_of_a_model_ends_a_loop_with_the_best() -> None:
    table = {"a": 0.3, "b": 0.5, "c": 0.9}
    module = Word()
    problem = st.TextProblem(module, EXAMPLES, worth(table))
    following = {"a": "b", "b": "c", "c": "c"}
    inner = script(lambda word, count: following[word])
    lm = st.LM(inner.engine, budget={"max_calls": 1})
    result = st.Minibatch(problem, st.OptoPrime(module, lm), batch=2).train(9)
    assert result.best == {"word": "b"}
    assert "max_calls" in result.stopped
    assert len(result.steps) == 2

    class Asks(Word):
        def __init__(self) -> None:
            super().__init__()
            self.lm = st.LLM(st.LM(st.Scripted(lambda r: "x"), budget={"max_calls": 6}))

        def forward(self, question: str) -> Any:
            return self.lm(self.word + question)

    asks = Asks()
    problem = st.TextProblem(asks, EXAMPLES, lambda *_: 1.0)
    optimizer = st.OptoPrime(asks, script(lambda word, count: f"{word}b"))
    result = st.Minibatch(problem, optimizer, batch=1).train(9)
    assert result.cost["calls"] == 6
    assert "max_calls" in result.stopped
    with pytest.raises(BudgetExhausted):  # nothing was found yet
        st.Minibatch(problem, optimizer, batch=1).train(9)


def test_replies_are_chosen_by_evaluation_or_by_the_model() -> None:
    table = {"a": 0.3, "b": 0.5, "c": 0.9}

    def model(request: ChatRequest) -> str:
        last = text_of(request.messages[-1])
        if "Several proposals" in last:
            assert '[1] {"word": "b"}\n[2] {"word": "c"}\n' in last
            return "I take number 2."
        return json.dumps({"suggestion": {"word": "c" if request.temperature > 0.7 else "b"}})

    for evaluate, calls in ((lambda config: table[config["word"]], 3), (None, 4)):
        word = st.Parameter("a", "word")
        optimizer = st.OptoPrimeMulti([word], st.Scripted(model), evaluate=evaluate)
        (word + "").backward("Say more.")
        report = optimizer.step()
        assert report.applied == {"word": "c"}
        assert report.calls == calls
        assert optimizer.proposals == [{"word": "b"}, {"word": "c"}]


def test_models_take_turns_and_broken_replies_do_not_count() -> None:
    good = st.LM(st.Scripted(lambda r: '{"suggestion": {"word": "b"}}'))
    broken = st.LM(st.Scripted(lambda r: "nothing"))
    word = st.Parameter("a", "word")
    optimizer = st.OptoPrimeMulti([word], [good, broken], temperatures=(0.0, 0.0, 0.0), retries=0)
    (word + "").backward("Say more.")
    report = optimizer.step()
    assert report.applied == {"word": "b"}
    assert (good.usage.calls, broken.usage.calls) == (2, 1)
    (word + "").backward("Say more.")
    nothing = st.OptoPrimeMulti([word], broken, retries=0)
    report = nothing.step()
    assert not report.applied
    assert "reply" in report.rejected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch=0"),
        ({"width": 0}, "width=0"),
        ({"proposals": 0}, "proposals=0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    module = Word()
    problem = st.TextProblem(module, EXAMPLES, worth({}))
    optimizer = st.SearchProposer(module)
    with pytest.raises(ConfigError, match=message):
        st.BeamSearch(problem, optimizer, **options)
    with pytest.raises(ConfigError, match="capacity=0"):
        st.UCBSearch(problem, optimizer, capacity=0)
    with pytest.raises(ConfigError, match="another space"):
        st.Minibatch(problem, st.SearchProposer([st.Parameter("b", "word")]))
    with pytest.raises(ConfigError, match="steps=0"):
        st.Minibatch(problem, optimizer).train(0)
    with pytest.raises(ConfigError, match="temperatures"):
        st.OptoPrimeMulti(module, st.Scripted([]), temperatures=())
