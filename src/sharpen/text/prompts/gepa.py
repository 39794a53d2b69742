"""GEPA: reflective evolution of prompts with a Pareto front over validation examples.

Agrawal et al., *GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning*, 2025
(arXiv 2507.19457), algorithm 1.

::

    front_i  = {prompts whose score on validation example i is the highest}
    drop a prompt if on each of its examples another kept one is in the front too
    parent   ~ number of examples on whose front it is
    child    = reflect(parent, its traces and feedback on a minibatch)
    accepted if its sum on that minibatch is higher; then judged on all validation examples

Differs from the paper: one text is evolved, so there is nothing to merge; the budget is looked at
before each stage, and never exceeded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sharpen.text.listing import elided
from sharpen.text.prompts.evaluator import Evaluation
from sharpen.text.prompts.search import Search
from sharpen.text.prompts.task import Candidate, Example

__all__ = ["improve", "pareto_weights"]

_REFLECT = """\
An assistant was given this instruction:

{instruction}

These are inputs, what it replied, and what was said about the replies:

{traces}

Write a new instruction for the assistant that keeps what works and mends what went wrong. Put in
facts and rules about the task that can be learned from the examples. Write it between <PROMPT> and
</PROMPT>."""


def pareto_weights(scores: Sequence[Sequence[float]]) -> dict[int, int]:
    """On how many examples' fronts each candidate is, without those that are not needed.

    Args:
        scores: [candidates][examples].

    Returns:
        By candidate that is kept, the number of fronts it is on.
    """
    x = np.asarray(scores, dtype=np.float64)
    highest = (x == x.max(axis=0)).T.tolist()  # [examples][candidates]
    fronts = [{k for k, on in enumerate(row) if on} for row in highest]
    appeared = dict.fromkeys(k for front in fronts for k in sorted(front))
    kept, means = set(appeared), x.mean(axis=1)
    for k in sorted(appeared, key=lambda k: means[k]):  # of equal means the first that appeared
        own = [front for front in fronts if k in front]
        if all((front & kept) - {k} for front in own):
            kept.discard(k)
    return {k: sum(k in front for front in fronts) for k in sorted(kept)}


def improve(search: Search, *, batch: int = 3) -> None:
    """Search for an instruction until the budget is spent.

    Args:
        search: what is searched.
        batch: training examples in a minibatch.
    """
    pool: list[Evaluation] = [search.full(search.seed_prompt)]
    order: list[Example] = []
    while True:
        weights = pareto_weights([one.scores for one in pool])
        chances = np.array(list(weights.values()), dtype=np.float64)
        picked = search.rng.choice(len(chances), p=chances / chances.sum())
        parent = pool[list(weights)[int(picked)]].candidate
        if len(order) < batch:  # another epoch
            order = search.minibatch(len(search.train))
        examples, order = order[:batch], order[batch:]
        before = search.on(parent, examples)
        if all(score >= 1 for score in before.scores):
            search.skip()
            continue
        prompt = _REFLECT.replace("{instruction}", parent.instruction)
        for text in search.ask(prompt.replace("{traces}", _traces(before)))[:1]:
            child = Candidate(text, parent.exemplars, parent.nearest)
            after = search.on(child, examples)
            if sum(after.scores) > sum(before.scores):
                pool.append(search.full(child))


def _traces(evaluation: Evaluation) -> str:
    parts = []
    for one in evaluation.outcomes:
        verdict = one.feedback or ("right" if one.score >= 1 else "wrong")
        given = "; ".join(f"{name}: {value}" for name, value in one.example.input.items())
        parts.append(
            f"Input: {elided(given, 1000)}\nReply: {elided(one.reply, 1000)}\n"
            f"Said about it: {verdict} (score {one.score:.3g}; right is:"
            f" {elided(str(one.example.output), 600)})"
        )
    return "\n\n".join(parts)
