"""Debugging: programs of HumanEval with one change, repaired from the examples in their text.

``SearchProposer`` proposes; a proposal is judged by the share of right examples and tells the line
that raised. The first that gives all examples right is checked on the hidden tests: it is repaired,
or plausible but wrong. Beside it: the same mutations in random order, without feedback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from benchmarks.text.broken_programs import Broken, broken_problems
from benchmarks.text.code_runner import Runner

import sharpen.text as st
from sharpen.core.feedback import Feedback, TextFeedback
from sharpen.core.space import Space
from sharpen.core.text_parameter import Text
from sharpen.text.mutations import mutants

__all__ = ["repair"]


def repair(seeds: Sequence[int], budget: int, limit: int | None = None) -> dict[str, Any]:
    """Outcomes of each problem with each seed, which chooses the change that breaks it.

    Args:
        seeds: of the changes.
        budget: evaluations of a problem.
        limit: of problems.
    """
    runs: list[dict[str, Any]] = []
    ways = {"search": _search, "random order": _random_order}
    with Runner() as runner:
        for seed in seeds:
            for broken in broken_problems(runner, seed=seed, limit=limit):
                for name, way in ways.items():
                    run = _judged(runner, broken, way(broken, runner, seed), budget)
                    found = {"way": name, "seed": seed, "problem": broken.name}
                    runs.append({**found, "kind": broken.kind, **run})
        jobs, tier = runner.jobs, runner.tier
    return {"runs": runs, "summary": _summary(runs), "sandbox": {"jobs": jobs, "tier": tier}}


Proposals = Iterator[tuple[str, Callable[[Feedback], None]]]


def _judged(runner: Runner, broken: Broken, proposals: Proposals, budget: int) -> dict[str, Any]:
    for evaluations, (source, tell) in enumerate(proposals, start=1):
        feedback = _feedback(runner, broken, source)
        if feedback.objectives.get("score") == 1.0:
            right = runner.passes(source, broken.test, broken.entry)
            return {"outcome": "repaired" if right else "wrong", "evaluations": evaluations}
        if evaluations == budget:
            break
        tell(feedback)
    return {"outcome": "none", "evaluations": evaluations}


def _feedback(runner: Runner, broken: Broken, source: str) -> Feedback:
    told = runner.examples(source, broken.entry, broken.examples)
    line = next((one["line"] for one in told if one.get("line")), None)
    words = [one["error"] for one in told if "error" in one][:1]
    words += [f"> {line} "] if line else []
    return Feedback(
        objectives={"score": sum(one["right"] for one in told) / len(told)},
        text=[TextFeedback(body=word) for word in words],
    )


def _search(broken: Broken, runner: Runner, seed: int) -> Proposals:
    space = Space(code=Text(default=broken.source, kind="code"))
    optimizer = st.SearchProposer(space, seed=seed)
    while True:
        (candidate,) = optimizer.ask()
        if optimizer.report.terminated:
            return

        def tell(feedback: Feedback, candidate: Any = candidate) -> None:
            optimizer.tell([candidate.result(feedback)])

        yield candidate.config["code"], tell


def _random_order(broken: Broken, runner: Runner, seed: int) -> Proposals:
    sources = [broken.source, *(mutant.source for mutant in mutants(broken.source))]
    order = np.random.default_rng([seed, 1]).permutation(len(sources) - 1) + 1
    for place in (0, *order):
        yield sources[place], lambda feedback: None


def _summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for name in dict.fromkeys(run["way"] for run in runs):
        own = [run for run in runs if run["way"] == name]
        kinds = {}
        for kind in dict.fromkeys(run["kind"] for run in own):
            some = [run for run in own if run["kind"] == kind]
            kinds[kind] = {"programs": len(some), "repaired": _share(some, "repaired")}
        spent = [run["evaluations"] for run in own if run["outcome"] == "repaired"]
        found[name] = {
            "programs": len(own),
            "repaired": _share(own, "repaired"),
            "wrong": _share(own, "wrong"),
            "evaluations": float(np.median(spent)) if spent else None,
            "kinds": kinds,
        }
    return found


def _share(runs: Sequence[dict[str, Any]], outcome: str) -> float:
    return float(np.mean([run["outcome"] == outcome for run in runs]))
