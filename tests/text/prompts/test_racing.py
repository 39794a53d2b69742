"""Races among prompts, and the two stages in turns."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hyp

import sharpen.text as st
from sharpen.core.errors import ConfigError
from sharpen.core.lm.messages import ChatRequest, text_of
from sharpen.text.prompts.evaluator import Evaluator
from sharpen.text.prompts.metrics import make_metric
from sharpen.text.prompts.mipro import trials_of
from sharpen.text.prompts.optimize import optimize_prompt
from sharpen.text.prompts.oracle import Oracle
from sharpen.text.prompts.parsers import make_parser
from sharpen.text.prompts.racing import halving, ucb
from sharpen.text.prompts.search import BudgetSpent, Search
from sharpen.text.prompts.task import Candidate, Exemplar, PromptProgram

PROGRAM = PromptProgram(
    template="{{instruction}}\n\n{{exemplars}}\n\n{{input}}",
    exemplar="{{input}} -> {{output}}",
    parser=make_parser("label", ["yes", "no"]),
)
WEIGHTS = {"good": 0.4, "bad": -0.2, "more": 0.2}


class Noting(Oracle):
    """Notes on which case which instruction was asked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(WEIGHTS, **options)
        self.asked: list[tuple[str, str]] = []

    def complete(self, request: ChatRequest) -> Any:
        text = text_of(request.messages[-1])
        self.asked.append((text.splitlines()[0], text.splitlines()[-1]))
        return super().complete(request)


def searching(oracle: Oracle, units: int, seed: int = 0) -> Search:
    examples = oracle.examples(80)
    evaluator = Evaluator(PROGRAM, st.LM(oracle), make_metric("exact"), concurrency=1)
    first = Candidate("Answer.")
    return Search(evaluator, None, first, examples[:40], examples[40:], units=units, seed=seed)


@given(hyp.integers(1, 17), hyp.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_halving_judges_half_as_many_on_twice_as_much(count: int, last: int) -> None:
    oracle = Noting()
    search = searching(oracle, units=10_000)
    race = halving(search, [Candidate(f"c{k}") for k in range(count)], search.val, last=last)
    assert sorted(one.instruction for one in race.ranked) == sorted(f"c{k}" for k in range(count))
    judged = Counter(instruction for instruction, _ in oracle.asked)
    assert [judged[one.instruction] for one in race.ranked] == list(race.judged)
    assert list(race.judged) == sorted(race.judged, reverse=True)
    assert race.judged[0] == len(search.val)
    assert race.judged.count(len(search.val)) <= max(last, 1)
    assert search.spent == sum(race.judged)  # what was judged counts on
    cases = {i: [case for j, case in oracle.asked if j == i] for i in judged}
    longest = max(cases.values(), key=len)
    assert all(longest[: len(own)] == own for own in cases.values())  # common examples


def test_halving_keeps_the_best_and_costs_less_than_judging_all() -> None:
    names = ["(bad)", "", "(good) (more)", "(more)", "(bad) (more)", "(good)", "x", "y"]
    found = []
    for seed in range(20):
        search = searching(Noting(seed=seed), units=10_000)
        race = halving(search, [Candidate(f"Answer. {name}") for name in names], search.val)
        found.append(race.ranked[0].instruction)
        assert search.spent <= len(names) * len(search.val) / 2
    assert sum("(good)" in one for one in found) >= 18


def test_ucb_plays_the_promising_ones_more_on_common_minibatches() -> None:
    shares = []
    for seed in range(10):
        oracle = Noting(seed=seed)
        search = searching(oracle, units=10_000, seed=seed)
        names = ["(bad)", "(good) (more)", ""]
        candidates = [Candidate(f"Answer. {n}") for n in names]
        race = ucb(search, candidates, batch=5, plays=24, c=0.5)
        assert sum(race.judged) == 5 * 24
        judged = {one.instruction: n for one, n in zip(race.ranked, race.judged, strict=True)}
        assert min(judged.values()) >= 5
        shares.append(judged["Answer. (good) (more)"] / (5 * 24))
        cases = {
            one.instruction: [case for i, case in oracle.asked if i == one.instruction]
            for one in candidates
        }
        firsts = [own[:5] for own in cases.values()]
        assert firsts[0] == firsts[1] == firsts[2]
    assert np.mean(shares) > 0.5


def test_a_race_ends_with_the_budget() -> None:
    search = searching(Noting(), units=50)
    with pytest.raises(BudgetSpent):
        halving(search, [Candidate(f"c{k}") for k in range(8)], search.val)
    assert search.spent <= 50
    search = searching(Noting(), units=23)
    with pytest.raises(BudgetSpent):
        ucb(search, [Candidate("a"), Candidate("b")], batch=5, plays=9)
    assert search.spent <= 23


def test_candidates_with_exemplars_can_race() -> None:
    search = searching(Noting(), units=10_000)
    shown = (Exemplar({"input": "[case 900 of kind a]"}, "yes", "e"),)
    race = halving(search, [Candidate("c", shown), Candidate("c"), Candidate("c")], search.val)
    assert len(race.ranked) == 2


def run(seed: int, **options: Any) -> Any:
    oracle = Oracle(WEIGHTS, seed=seed, exemplar_weight=0.3)
    examples = oracle.examples(60)
    given = {"io": "ape", "eo": "mutation", "budget": 20, "k": 4, **options}
    return optimize_prompt(
        PROGRAM,
        "Answer yes or no. (bad)",
        examples[20:40],
        make_metric("exact"),
        lm=oracle,
        train=examples[:20],
        test=examples[40:],
        seed=seed,
        concurrency=1,
        **given,
    )


@pytest.mark.parametrize("rounds", [2, 3])
@pytest.mark.parametrize("io", ["ape", "gepa", "mipro", "opro", "protegi", "promptagent"])
def test_stages_take_turns_within_the_budget(io: str, rounds: int) -> None:
    result = run(1, io=io, rounds=rounds)
    assert result.judgements <= result.allowed == 20 * 20
    assert result.best.score == max(one.score for one in result.history)
    kinds = [bool(one.candidate.exemplars) for one in result.history]
    first_shown = kinds.index(True)
    later = {one.candidate.instruction for one in result.history[first_shown:]}
    # instructions are written again under exemplars; protegi judges in full only who wins a race
    assert len(later) > 1 or io == "protegi"
    assert run(1, io=io, rounds=rounds).to_dict() == result.to_dict()


def test_turns_are_no_worse_than_one_after_the_other() -> None:
    once, twice = ([run(seed, rounds=n).best.score for seed in range(8)] for n in (1, 2))
    assert np.mean(twice) > np.mean(once) - 0.05


@pytest.mark.parametrize(
    "options", [{"rounds": 0}, {"rounds": 2, "eo": "none"}, {"rounds": 20, "budget": 20}]
)
def test_turns_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="rounds="):
        run(0, **options)


def test_mipro_makes_as_many_trials_as_dspy_does_of_its_own_accord() -> None:
    # light, medium, heavy of DSPy 3.4.1 for one predictor with demos
    assert [trials_of(n, 2) for n in (6, 12, 18)] == [10, 18, 27]
    assert [trials_of(n, 1) for n in (6, 12, 18)] == [9, 18, 27]


@pytest.mark.parametrize(
    "reply",
    [
        "I would not change it.",
        "<PROMPT>cut off",
        "<PROMPT>use the tag </PROMPT> at the end</PROMPT>",
        "<PROMPT></PROMPT>",
        "x" * 200_000,
    ],
)
@pytest.mark.parametrize("io", ["ape", "gepa", "mipro", "opro", "protegi", "promptagent"])
def test_proposals_that_cannot_be_read_are_counted_and_never_tried_in_part(
    io: str, reply: str
) -> None:
    result = run(1, io=io, eo="none", budget=4, k=0, proposer=st.Scripted(lambda _: reply))
    assert {one.candidate.instruction for one in result.history} == {"Answer yes or no. (bad)"}
    assert result.unreadable > 0
    assert result.to_dict()["proposals_unreadable"] == result.unreadable
    assert "held no instruction" in result.summary()
    assert not result.improved


def test_what_a_proposer_thinks_aloud_is_no_instruction() -> None:
    reply = "<think>maybe <PROMPT>no</PROMPT></think><PROMPT>```\nAnswer. (good)\n```</PROMPT>"
    result = run(1, io="opro", eo="none", budget=4, k=0, proposer=st.Scripted(lambda _: reply))
    tried = [one.candidate.instruction for one in result.history]
    assert tried == ["Answer yes or no. (bad)", "Answer. (good)"]
    assert result.unreadable == 0
