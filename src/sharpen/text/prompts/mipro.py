"""MIPRO: instructions and sets of exemplars proposed first, then TPE over their combinations.

Opsahl-Ong, Ryan, Purtell, Broman, Potts, Zaharia and Khattab, *Optimizing Instructions and
Demonstrations for Multi-Stage Language Model Programs*, EMNLP 2024 (arXiv 2406.11695).

::

    n instructions from a summary of the data, a tip, and the exemplars;  n sets of exemplars
    TPE over (instruction, set) by minibatches; every ``full_every`` trials the combination of the
    best mean that was not judged on all validation examples is

Differs from the paper: where there are few validation examples every trial is a full evaluation, as
in DSPy; the first trial is the prompt as it was given; after as many trials as DSPy makes of its
own accord, max(2 v log2 n, 1.5 n) for v variables with n values, instructions and sets are proposed
again, from the best prompt so far, while budget is left.
"""

from __future__ import annotations

import math

from sharpen.core.optimizer import make_optimizer
from sharpen.core.parameters import Categorical
from sharpen.core.problem import Objective
from sharpen.core.space import Space
from sharpen.text.prompts.search import BudgetSpent, Search
from sharpen.text.prompts.task import Candidate, Exemplar

__all__ = ["improve", "trials_of"]

_TIPS = (
    "",
    "Be creative: think of an instruction that others would not write.",
    "Keep it short and clear.",
    "Describe in detail how to solve the task.",
    "Name mistakes that are easily made.",
    "Describe who would be an expert in this task.",
)
_SUMMARIZE = """\
Examples of a task:

{examples}

In two or three sentences: what is the task, what do the inputs have in common, and what do the
outputs depend on?"""

_PROPOSE = """\
A task: {summary}

Examples:

{examples}

The instruction now: {instruction}

Write a better instruction for a language model that has to do this task. {tip} Write it between
<PROMPT> and </PROMPT>."""
_FEW, _LEAST = 50, 3


def improve(
    search: Search, *, k: int = 3, proposals: int = 6, batch: int = 35, full_every: int = 5
) -> None:
    """Search for a prompt until the budget is spent.

    Args:
        search: what is searched.
        k: exemplars in a prompt; 0 searches for the instruction alone.
        proposals: instructions, and sets of exemplars; fewer where the budget is small.
        batch: training examples in a minibatch.
        full_every: trials between full evaluations.
    """
    search.full(search.seed_prompt)
    if len(search.val) <= _FEW:  # as many as there are trials for
        proposals = max(_LEAST, min(proposals, round(search.full_evaluations_left / 1.5)))
    judged = 0
    while len(search.history) > judged:
        judged = len(search.history)
        _round(search, search.best.candidate, k, proposals, batch, full_every)


def _round(
    search: Search, first: Candidate, k: int, proposals: int, batch: int, full_every: int
) -> None:
    """Propose from ``first``, and search the combinations until they are used up."""
    instructions, sets = _proposed(search, first, k, proposals)
    space = Space(
        instruction=Categorical(*map(str, range(len(instructions)))),
        exemplars=Categorical(*map(str, range(len(sets)))),
    )
    seed = int(search.rng.integers(2**31))
    tpe = make_optimizer("tpe", space, [Objective("score", "max")], seed=seed)
    sums: dict[str, list[float]] = {}
    made: dict[str, Candidate] = {}
    is_small = len(search.val) <= _FEW
    trials = trials_of(proposals, 2 if k > 0 else 1)
    trial = 0
    while True:
        (asked,) = tpe.ask()
        config = asked.config
        candidate = Candidate(
            instructions[int(config["instruction"])], sets[int(config["exemplars"])]
        )
        made[candidate.key] = candidate
        if is_small:
            score = search.full(candidate).score
        else:
            score = search.on(candidate, search.minibatch(batch)).score
        trial += 1
        sums.setdefault(candidate.key, []).append(score)
        tpe.tell([asked.result({"score": score})])
        judged = {one.candidate.key for one in search.history}
        open_keys = [key for key in sums if key not in judged]
        is_last = trial >= trials or len(made) >= len(instructions) * len(sets)
        if open_keys and (is_last or trial % full_every == 0):
            search.full(made[max(open_keys, key=lambda key: sum(sums[key]) / len(sums[key]))])
        if is_last:
            return


def trials_of(proposals: int, variables: int) -> int:
    """How many trials DSPy makes of its own accord."""
    return int(max(2 * variables * math.log2(proposals), 1.5 * proposals))


def _proposed(
    search: Search, first: Candidate, k: int, proposals: int
) -> tuple[list[str], list[tuple[Exemplar, ...]]]:
    instructions = [first.instruction]
    if search.proposer is not None:
        examples = search.shown(search.minibatch(5))
        summary = search.ask_words(_SUMMARIZE.replace("{examples}", examples)).strip()
        for number in range(proposals - 1):
            prompt = (
                _PROPOSE.replace("{tip}", _TIPS[number % len(_TIPS)])
                .replace("{instruction}", first.instruction)
                .replace("{summary}", summary)
                .replace("{examples}", search.shown(search.minibatch(5)))
            )
            try:
                instructions.extend(search.ask(prompt)[:1])
            except BudgetSpent:  # nothing new any more: what there is is searched
                break
    sets: list[tuple[Exemplar, ...]] = [first.exemplars]
    pool = search.pool.exemplars
    if k > 0 and pool:
        for _ in range(proposals - 1):
            picked = search.rng.choice(len(pool), size=min(k, len(pool)), replace=False)
            sets.append(tuple(pool[int(i)] for i in picked))
    found = list(dict.fromkeys(instructions))
    return found if len(found) > 1 else [*found, *found], sets if len(sets) > 1 else [*sets, *sets]
