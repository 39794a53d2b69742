"""Programs as problems, and studies of them."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sharpen.text as st
from sharpen.core.errors import ConfigError
from sharpen.core.executor import Local
from sharpen.core.lm.messages import ChatRequest, text_of
from sharpen.core.parameters import Categorical, Float, Int
from sharpen.core.problem import Problem, TrialContext, evaluate
from sharpen.core.study import Budget, Study
from sharpen.core.threads import Threads


class Line(st.Module):
    """A slope, an offset, a way to round, and a word."""

    def __init__(self) -> None:
        self.slope = st.Parameter(1.0, space=Float(0.0, 4.0))
        self.offset = st.Parameter(0, space=Int(-3, 3))
        self.round = st.Parameter("no", kind="choice", space=Categorical("no", "up"))
        self.word = st.Parameter("about", constraint="one word")

    def forward(self, x: float) -> Any:
        return line(x, self.slope, self.offset, self.round, self.word)


@st.op
def line(x: float, slope: float, offset: int, round: str, word: str) -> float:
    """A point of the line."""
    if slope > 3.9:
        raise ValueError("too steep")
    return slope * x + offset + (round == "up") * 0.5 - len(word) / 100


DATA = [(float(x), 2.0 * x + 1) for x in range(6)]


def distance(response: float, reference: float) -> float:
    return -abs(response - reference)


def test_an_evaluation_gives_score_words_programs_and_cost() -> None:
    module = Line()
    problem = st.TextProblem(module, DATA, distance, shown=2)
    assert isinstance(problem, Problem)
    assert list(problem.space) == ["slope", "offset", "round", "word"]
    assert problem.objectives[0].direction == "max"
    config = {"slope": 2.0, "offset": 0, "round": "no", "word": "x"}
    feedback = evaluate(problem, config)
    assert feedback.objectives["score"] == pytest.approx(-1.01)
    assert feedback.info["per_example"] == pytest.approx([-1.01] * 6)
    assert feedback.info["examples"] == list(range(6))
    assert [one.body.splitlines()[0] for one in feedback.text] == [
        "ID [0]: Expected: 1.0",
        "ID [1]: Expected: 3.0",
        "Score: -1.01, the mean of 6 examples",
    ]
    program = feedback.info["programs"][0]
    assert program["code"][0].startswith("line_0 = line(x=x, slope=slope, offset=offset")
    assert program["variables"] == ["slope", "offset", "round", "word"]
    assert feedback.cost["calls"] == feedback.cost["tokens"] == feedback.cost["usd"] == 0
    assert module.slope.value == 1.0
    json.dumps(dict(feedback.info))


def test_a_minibatch_is_drawn_by_the_seed_and_its_noise_is_told() -> None:
    problem = st.TextProblem(Line(), DATA, distance, minibatch=3)
    config = problem.space.default()
    draws = {seed: tuple(problem.drawn(seed)) for seed in range(30)}
    assert draws == {seed: tuple(problem.drawn(seed)) for seed in range(30)}
    assert len(set(draws.values())) > 10
    assert all(len(set(draw)) == 3 for draw in draws.values())
    seen = [problem.evaluate(config, TrialContext(seed=seed)) for seed in range(300)]
    means = [one.objectives["score"] for one in seen]
    whole = np.mean(st.TextProblem(Line(), DATA, distance).evaluate(config).info["per_example"])
    # 300 means of 3 of 6: their spread is the standard error that each estimates.
    assert np.mean(means) == pytest.approx(whole, abs=4 * np.std(means) / 300**0.5)
    told = np.sqrt(np.mean([one.std["score"] ** 2 for one in seen]))
    assert told == pytest.approx(np.std(means), rel=0.15)
    assert not st.TextProblem(Line(), DATA, distance).evaluate(config).std


def test_the_number_of_examples_is_a_fidelity_whose_samples_are_nested() -> None:
    problem = st.TextProblem(Line(), DATA, distance, least=2)
    assert problem.fidelity is not None
    assert (problem.fidelity.low, problem.fidelity.high) == (2, 6)
    samples = [set(problem.drawn(7, k)) for k in (2, 4, 6)]
    assert [len(one) for one in samples] == [2, 4, 6]
    assert samples[0] < samples[1] < samples[2]
    study = Study(
        st.TextProblem(numbers(), DATA, distance, least=2),
        optimizer="asha",
        store="sqlite://",
        budget=Budget(trials=12),
    ).run()
    assert {len(t.feedback.info["examples"]) for t in study.trials() if t.feedback} > {2}


def test_errors_have_a_score_or_end_the_trial() -> None:
    steep = {"slope": 4.0, "offset": 0, "round": "no", "word": "x"}
    feedback = st.TextProblem(Line(), DATA, distance, on_error=-9.0).evaluate(steep)
    assert feedback.objectives == {"score": -9.0}
    assert feedback.text[0].kind == "error"
    assert "too steep" in feedback.text[0].body
    assert "> 4" in feedback.text[0].body or "raise ValueError" in feedback.text[0].body
    feedback = st.TextProblem(Line(), DATA, distance, on_error=None).evaluate(steep)
    assert feedback.status == "failed"
    assert "too steep" in str(feedback.error)


def test_guides_say_why_and_may_judge_too() -> None:
    def guide(query: float, response: float, reference: float) -> Any:
        return -abs(response - reference), f"at {query:g}: {response:.3g}"

    config = Line().state_dict()
    feedback = st.TextProblem(Line(), DATA[:1], guide=guide).evaluate(config)
    assert feedback.objectives["score"] == pytest.approx(-1.05)
    assert feedback.text[0].body.startswith("at 0: -0.05\nScore: -1.05")
    words = st.TextProblem(Line(), DATA[:1], distance, guide=lambda *_: "why")
    assert words.evaluate(config).text[0].body.startswith("why\nScore")
    with pytest.raises(ConfigError, match="words without a score"):
        st.TextProblem(Line(), DATA, guide=lambda *_: "why").evaluate(config)
    with pytest.raises(ConfigError, match="score and words"):
        st.TextProblem(Line(), DATA, guide=lambda *_: (1, 2, 3)).evaluate(config)


def test_a_program_may_be_its_own_score() -> None:
    class Valley(st.Module):
        def __init__(self) -> None:
            self.x = st.Parameter(1.0, space=Float(-4.0, 4.0))

        def forward(self) -> st.Node:
            return -((self.x - 2.0) ** 2.0)

    problem = st.TextProblem(Valley())
    study = Study(
        problem, optimizer=st.SearchProposer, store="sqlite://", budget=Budget(trials=60)
    ).run()
    assert study.best.config["x"] == pytest.approx(2.0, abs=1e-3)


def test_configurations_near_and_between_others_can_be_evaluated() -> None:
    problem = st.TextProblem(Line(), DATA, distance)
    first, second = problem.sample(2, seed=3)
    near = problem.neighbors(first, 6, phrases=["More or less."], seed=1)
    assert len(near) == 6
    for config in (*near, problem.crossover(first, second, seed=2)):
        assert problem.space.validate(config) == config
        assert np.isfinite(problem.evaluate(config).objectives["score"])


class Gate(st.Module):
    """Runs on when two examples run at once."""

    def __init__(self) -> None:
        self.word = st.Parameter("w")
        self.barrier = threading.Barrier(2)

    def forward(self, x: str) -> Any:
        self.barrier.wait(20)
        return self.word + x


class AsyncGate(Gate):
    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        self.both = asyncio.Event()

    async def forward(self, x: str) -> Any:
        self.waiting += 1
        if self.waiting % 2 == 0:
            self.both.set()
        await asyncio.wait_for(self.both.wait(), 20)
        return self.word + x


@pytest.mark.parametrize("kind", [Gate, AsyncGate])
def test_examples_run_at_once_and_in_order(kind: type[Gate]) -> None:
    data = [(str(k), f"w{k}") for k in range(4)]
    problem = st.TextProblem(kind(), data, lambda a, b: float(a == b), concurrency=2)
    feedback = problem.evaluate({"word": "w"})
    assert feedback.info["per_example"] == [1.0] * 4
    assert [p["outputs"][0][2] for p in feedback.info["programs"]] == ["w0", "w1", "w2", "w3"]


def model(request: ChatRequest) -> str:
    """Answers as the rule says; improves rules; criticizes."""
    first, last = text_of(request.messages[0]), text_of(request.messages[-1])
    if "write feedback" in first:
        return "Say please."
    if "improve one value" in first:
        return "<NEW>Answer, please.</NEW>" if "Say please." in last else "<NEW>?</NEW>"
    if "#Instruction" in last:
        return json.dumps({"suggestion": {"answer.system": "Answer, please."}})
    return "right" if "please" in first else "wrong"


class Asks(st.Module):
    def __init__(self) -> None:
        rule = st.Parameter("Answer.", role="the system prompt")
        self.answer = st.LLM(
            st.LM(st.Scripted(model), prices={"scripted": {"prompt": 1.0, "completion": 1.0}}), rule
        )

    def forward(self, question: str) -> st.Node:
        return self.answer(question)


@pytest.mark.parametrize("kind", ["OptoPrime", "OPRO", "TextGrad"])
def test_a_study_runs_those_that_read(kind: str, tmp_path: Path) -> None:
    lm = st.LM(st.Scripted(model))
    problem = st.TextProblem(
        Asks(),
        [("a", "right"), ("b", "right")],
        lambda a, b: float(a == b),
        propagator=st.TextualPropagator(lm) if kind == "TextGrad" else None,
    )
    study = Study(
        problem,
        optimizer=getattr(st, kind).maker(lm),
        store=f"sqlite:///{tmp_path}/s.db",
        budget=Budget(trials=3),
    ).run()
    values = [trial.value for trial in study.trials()]
    assert values == [0.0, 1.0, 1.0]
    first = study.trials()[0].feedback
    assert first is not None
    assert first.cost["calls"] == 2
    assert first.cost["tokens"] > 4
    assert first.cost["usd"] == pytest.approx(first.cost["tokens"] * 1e-6)
    asks = lm.usage.calls
    again = Study(
        problem,
        optimizer=getattr(st, kind).maker(lm),
        store=f"sqlite:///{tmp_path}/s.db",
        budget=Budget(trials=3),
    ).run()
    assert lm.usage.calls == asks
    assert again.best.config == {"answer.system": "Answer, please."}


def test_a_budget_of_calls_ends_a_study_and_keeps_the_best() -> None:
    lm = st.LM(st.Scripted(model), budget={"max_calls": 1})
    problem = st.TextProblem(Asks(), [("a", "right")], lambda a, b: float(a == b))
    study = Study(
        problem, optimizer=st.OptoPrime.maker(lm), store="sqlite://", budget=Budget(trials=6)
    ).run()
    assert [trial.value for trial in study.trials()] == [0.0] + [1.0] * 5
    spent = Study(
        st.TextProblem(Asks(), [("a", "right")], lambda a, b: float(a == b)),
        optimizer=st.OptoPrime.maker(st.LM(st.Scripted(lambda request: "TERMINATE"))),
        store="sqlite://",
        dedup="reevaluate",
        budget=Budget(trials=50, cost={"calls": 4}),
    ).run()
    assert len(spent.trials()) == 4


def numbers() -> Line:
    module = Line()
    module.word.freeze()
    return module


@pytest.mark.parametrize("name", ["random", "tpe", "ga", "de", "gp", "search-proposer"])
def test_search_runs_on_the_numbers_and_choices(name: str) -> None:
    problem = st.TextProblem(numbers(), DATA, distance)
    assert list(problem.space) == ["slope", "offset", "round"]
    maker: Any = st.SearchProposer if name == "search-proposer" else name
    trials = 20 if name == "gp" else 80
    study = Study(problem, optimizer=maker, store="sqlite://", budget=Budget(trials=trials)).run()
    start = problem.evaluate(problem.space.default()).objectives["score"]
    assert study.best.value > start + 1.0
    assert len(study.trials()) == trials


@pytest.mark.parametrize("executor", [Local(2), Threads(3)])
def test_trials_run_side_by_side(executor: Any) -> None:
    problem = st.TextProblem(Line(), DATA, distance)
    study = Study(
        problem,
        optimizer=st.SearchProposer,
        store="sqlite://",
        budget=Budget(trials=24),
        executor=executor,
    ).run()
    assert len(study.trials()) == 24
    for trial in study.trials():
        assert trial.is_ok
        assert trial.value == problem.evaluate(trial.config).objectives["score"]


def test_a_killed_study_pays_for_no_call_twice(tmp_path: Path, repository: Path) -> None:
    def run(kill_after: int) -> subprocess.CompletedProcess[str]:
        script = repository / "tests/text/killed_study.py"
        line = [sys.executable, str(script), str(tmp_path), str(kill_after)]
        return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)

    for kill_after in (3, 7, 12):
        assert run(kill_after).returncode == -signal.SIGKILL
    done = run(0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[-4.0, -3.0, -2.0, -1.0, 0.0, -1.0, -2.0]")
    paid = (tmp_path / "paid.txt").read_text().splitlines()
    assert len(paid) == len(set(paid)) == 7 * 2 + 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": []}, "needs an example"),
        ({"minibatch": 7}, "minibatch=7"),
        ({"least": 0}, "least=0"),
        ({"minibatch": 2, "least": 2}, "not both"),
        ({"concurrency": 0}, "concurrency"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        st.TextProblem(Line(), **{"dataset": DATA, "metric": distance, **options})
    with pytest.raises(ConfigError, match="no parameter"):
        st.TextProblem(Line().freeze(), DATA, distance)
