"""Searches for prompts against a model whose best prompt is known."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sharpen.text as st
from sharpen.core.errors import ConfigError, DataError
from sharpen.core.lm.errors import BudgetExhausted
from sharpen.text.prompts.evaluator import Evaluator
from sharpen.text.prompts.gepa import pareto_weights
from sharpen.text.prompts.metrics import make_metric
from sharpen.text.prompts.optimize import EXEMPLARS, INSTRUCTIONS, optimize_prompt, plan
from sharpen.text.prompts.oracle import Oracle
from sharpen.text.prompts.parsers import make_parser
from sharpen.text.prompts.task import Candidate, Exemplar, PromptProgram

WEIGHTS = {"steps": 0.2, "short": 0.1, "json": -0.1, "rhyme": -0.2, "polite": 0.0}
SEED = "Answer yes or no. (rhyme)"
PROGRAM = PromptProgram(
    template="{{instruction}}\n\n{{exemplars}}\n\n{{input}}",
    exemplar="{{input}} -> {{output}}",
    parser=make_parser("label", ["yes", "no"]),
)


def search(oracle: Oracle, **options: Any) -> Any:
    examples = oracle.examples(80)
    given = {
        "lm": oracle,
        "train": examples[:20],
        "test": examples[50:],
        "budget": 16,
        "concurrency": 1,
        **options,
    }
    return optimize_prompt(PROGRAM, SEED, examples[20:50], make_metric("exact"), **given)


def chance(oracle: Oracle, result: Any) -> float:
    shown = [one.input["input"][-2] for one in result.candidate.exemplars]
    return oracle.chance(result.candidate.instruction, shown)


@pytest.mark.parametrize(
    ("io", "eo"),
    [
        *((io, "none") for io in INSTRUCTIONS),
        *(("none", eo) for eo in EXEMPLARS),
        *(("gepa", "mutation"), ("ape", "nearest"), ("mipro", "random_search")),
    ],
)
def test_every_way_keeps_its_budget_and_never_makes_worse(io: str, eo: str) -> None:
    oracle = Oracle(WEIGHTS, seed=3)
    options = {
        "io": io,
        "eo": eo,
        "instructions": ["Answer yes or no.", "Answer yes or no. (steps)"],
    }
    result = search(oracle, **options)
    assert result.judgements <= result.allowed == 16 * 30
    assert result.history[0].candidate.instruction == SEED
    assert result.best.score >= result.first.score
    assert result.best.score == max(one.score for one in result.history)
    assert len({one.candidate.key for one in result.history}) == len(result.history)
    assert search(Oracle(WEIGHTS, seed=3), **options).to_dict() == result.to_dict()
    if io not in ("none", "select"):
        assert result.improved


@pytest.mark.parametrize("io", ["ape", "opro", "protegi", "promptagent", "gepa", "mipro", "select"])
def test_instructions_become_better_on_average(io: str) -> None:
    found, first = [], []
    for seed in range(6):
        oracle = Oracle(WEIGHTS, seed=seed, skill=0.5)
        wanted = ["Answer yes or no.", "Answer yes or no. (short)", "Answer yes or no. (json)"]
        result = search(oracle, io=io, eo="none", budget=24, seed=seed, instructions=wanted)
        found.append(chance(oracle, result))
        first.append(oracle.chance(SEED))
    assert np.mean(found) > np.mean(first) + 0.15


def test_exemplars_help_and_both_help_more() -> None:
    def mean(**options: Any) -> float:
        oracles = [Oracle(WEIGHTS, seed=seed, exemplar_weight=0.3) for seed in range(6)]
        return float(np.mean([chance(o, search(o, budget=24, **options)) for o in oracles]))

    none, shown = mean(io="none", eo="none"), mean(io="none", eo="mutation")
    both = mean(io="gepa", eo="mutation")
    assert none + 0.1 < shown < both


def test_an_example_never_sees_itself_and_the_test_is_kept_apart() -> None:
    oracle = Oracle(WEIGHTS)
    examples = oracle.examples(6)
    pool = tuple(Exemplar(e.input, str(e.output), e.id) for e in examples)
    evaluator = Evaluator(PROGRAM, st.LM(oracle), make_metric("exact"))
    for candidate in (Candidate("", pool), Candidate("", pool, nearest=3)):
        for example in examples:
            assert example.id not in [one.id for one in evaluator.shown_to(candidate, example)]
    with pytest.raises(DataError, match="2 of 3 test examples"):
        search(oracle, test=oracle.examples(3, first=18 + 30)[:3])
    with pytest.warns(UserWarning, match="no test examples"):
        search(oracle, test=None, eo="random", budget=2)


def test_what_was_judged_is_not_judged_again() -> None:
    oracle = Oracle(WEIGHTS)
    lm = st.LM(oracle)
    evaluator = Evaluator(PROGRAM, lm, make_metric("exact"), concurrency=4)
    examples = oracle.examples(10)
    first = evaluator(Candidate(SEED), examples[:6])
    both = evaluator(Candidate(SEED), examples)
    assert lm.usage.calls == 10
    assert both.scores[:6] == first.scores
    assert evaluator.missing(Candidate(SEED), examples) == 0


def test_a_budget_of_calls_ends_the_search_with_the_best_so_far() -> None:
    oracle = Oracle(WEIGHTS, seed=1)
    lm = st.LM(oracle, budget={"max_calls": 100})
    result = search(oracle, lm=lm, io="gepa", eo="none")
    assert lm.usage.calls == 100
    assert "max_calls" in result.stopped
    assert result.tested is None
    assert len(result.history) >= 1
    with pytest.raises(BudgetExhausted):
        search(oracle, lm=st.LM(oracle, budget={"max_calls": 10}))


def test_replies_without_a_prediction_are_counted() -> None:
    lm = st.Scripted(lambda request: "yes" if "case 1 " in request.prompt else "???")
    examples = Oracle(WEIGHTS).examples(4)
    evaluation = Evaluator(PROGRAM, st.LM(lm), make_metric("exact"))(Candidate("x"), examples)
    assert evaluation.unparsed == 3
    assert sum(evaluation.scores) <= 1


def test_plans_tell_the_calls_before_they_are_made() -> None:
    examples = Oracle(WEIGHTS).examples(50)
    planned = plan(examples[:30], examples[30:], io="ape", eo="mutation", budget=10, io_share=0.3)
    assert (planned.judgements, planned.test, planned.instruction_judgements) == (300, 40, 90)
    assert "300 calls" in str(planned)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"io": "gepe"}, "Did you mean 'gepa'"),
        ({"eo": "best"}, "eo='best'"),
        ({"budget": 0}, "budget=0"),
        ({"budget": 1, "io": "ape"}, "too small to be split"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search(Oracle(WEIGHTS), **options)
    plain = PromptProgram(template="{{instruction}} {{input}}")
    with pytest.raises(ConfigError, match="exemplars"):
        optimize_prompt(
            plain, "a", Oracle(WEIGHTS).examples(3), make_metric("exact"), lm=Oracle(WEIGHTS)
        )


def test_pareto_weights_are_their_definition() -> None:
    draw = random.Random(0)
    for _ in range(200):
        scores = [[draw.choice((0, 0.5, 1)) for _ in range(6)] for _ in range(draw.randint(1, 7))]
        fronts = [
            {c for c in range(len(scores)) if scores[c][i] == max(row[i] for row in scores)}
            for i in range(6)
        ]
        weights = pareto_weights(scores)
        for front in fronts:  # every example keeps someone of its front
            assert front & set(weights)
        for kept in weights:  # and nobody is kept that is not needed
            assert any(front & set(weights) == {kept} for front in fronts)
        assert weights == {c: sum(c in front for front in fronts) for c in weights}


@pytest.mark.peer
def test_pareto_weights_are_those_of_gepa() -> None:
    gepa_utils = pytest.importorskip("gepa.gepa_utils")
    draw = random.Random(1)
    for _ in range(200):
        scores = [[draw.choice((0, 0.5, 1)) for _ in range(6)] for _ in range(draw.randint(1, 7))]
        fronts = {
            i: {c for c in range(len(scores)) if scores[c][i] == max(row[i] for row in scores)}
            for i in range(6)
        }
        means = [float(np.mean(row)) for row in scores]
        kept = gepa_utils.remove_dominated_programs(fronts, scores=means)
        theirs: dict[int, int] = {}
        for programs in kept.values():
            for program in programs:
                theirs[program] = theirs.get(program, 0) + 1
        assert pareto_weights(scores) == theirs


SCRIPT = """
import sys, time
import sharpen.text as st
from tests.text.prompts.test_optimize import *
class Slow(Oracle):
    def complete(self, request):
        time.sleep(0.004)
        with open(sys.argv[1] + "/calls", "a") as f:
            f.write(request.digest() + "\\n")
        return super().complete(request)
lm = st.LM(Slow(WEIGHTS, seed=2), cache=sys.argv[1] + "/replies.sqlite")
result = search(lm.engine, lm=lm, io="gepa", eo="mutation", run_dir=sys.argv[1])
print(result.summary())
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    def begin() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)])

    draw = random.Random(0)
    kills = 0
    for _ in itertools.count():
        process = begin()
        try:
            process.wait(timeout=1.2 + draw.random() if kills < 5 else 60)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    assert process.returncode == 0
    calls = (tmp_path / "calls").read_text().split()
    assert len(calls) - len(set(calls)) <= kills  # at most the call under way at each kill
    result = json.loads((tmp_path / "result.json").read_text())
    whole = search(Oracle(WEIGHTS, seed=2), io="gepa", eo="mutation").to_dict()
    for found in (result, whole):
        found.pop("usage")
    assert result == json.loads(json.dumps(whole))
    assert not list(tmp_path.glob("*.tmp"))
