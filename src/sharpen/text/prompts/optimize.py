"""The best prompt for labelled examples under one budget: instructions, exemplars, or both.

Wan, Sun, Nakhost and Arik, *Teach Better or Show Smarter? On Instructions and Exemplars in
Automatic Prompt Optimization*, NeurIPS 2024 (arXiv 2406.15708): ``m`` full evaluations are split
between the two; what the first stage got right is what the second chooses exemplars from, at no
cost. With more than one round the stages alternate, each from the best prompt so far, with its
instruction and its exemplars.

Prompts are chosen on the validation examples alone. The result is measured once on test examples
that nothing was chosen by, beside the prompt that was given, with the interval of the difference.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.core.errors import ConfigError, DataError, did_you_mean
from sharpen.core.lm.errors import BudgetExhausted
from sharpen.text.asking import Asker, as_lm, usage_of
from sharpen.text.prompts import ape, gepa, mipro, opro, prompt_agent, protegi, select
from sharpen.text.prompts.evaluator import Evaluation, Evaluator
from sharpen.text.prompts.exemplar_search import STRATEGIES
from sharpen.text.prompts.exemplar_search import improve as improve_exemplars
from sharpen.text.prompts.metrics import Metric
from sharpen.text.prompts.result import PromptResult
from sharpen.text.prompts.search import BudgetSpent, Search
from sharpen.text.prompts.task import Candidate, Example, PromptProgram

__all__ = ["EXEMPLARS", "INSTRUCTIONS", "Plan", "optimize_prompt", "plan"]

INSTRUCTIONS: dict[str, Callable[..., None] | None] = {
    "none": None,
    "select": select.improve,
    "ape": ape.improve,
    "opro": opro.improve,
    "protegi": protegi.improve,
    "promptagent": prompt_agent.improve,
    "gepa": gepa.improve,
    "mipro": mipro.improve,
}
"""Ways of writing instructions, by name."""

EXEMPLARS = ("none", *STRATEGIES)
"""Ways of choosing exemplars, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a search may take, before it begins."""

    judgements: int
    """Calls of the model on validation and training examples, at most."""

    test: int
    """Calls on the test examples."""

    instruction_judgements: int
    """Of the first, those of the search for an instruction."""

    def __str__(self) -> str:
        return (
            f"at most {self.judgements} calls to compare prompts and {self.test} to test the"
            " result, besides those of the proposer"
        )


def plan(
    val: Sequence[Example],
    test: Sequence[Example] | None,
    *,
    io: str,
    eo: str,
    budget: int,
    io_share: float,
) -> Plan:
    """The numbers of calls of :func:`optimize_prompt` with the same arguments."""
    units = budget * len(val)
    share = 1.0 if eo == "none" else 0.0 if io == "none" else io_share
    return Plan(
        judgements=units,
        test=2 * len(test or ()),
        instruction_judgements=round(budget * share) * len(val),
    )


def optimize_prompt(
    program: PromptProgram,
    instruction: str,
    val: Sequence[Example],
    metric: Metric,
    *,
    lm: Any,
    train: Sequence[Example] | None = None,
    test: Sequence[Example] | None = None,
    io: str = "none",
    eo: str = "mutation",
    budget: int = 32,
    io_share: float = 0.5,
    rounds: int = 1,
    k: int = 3,
    instructions: Sequence[str] = (),
    proposer: Any = None,
    seed: int = 0,
    concurrency: int = 8,
    run_dir: str | Path | None = None,
    progress: Callable[[Evaluation, int, int], None] | None = None,
    **sampling: Any,
) -> PromptResult:
    """Search for the best prompt.

    Args:
        program: makes prompts of candidates, and predictions of replies.
        instruction: the first instruction; it is always judged first.
        val: examples that prompts are compared on.
        metric: judges predictions, see :func:`~sharpen.text.prompts.metrics.make_metric`.
        lm: the model that the prompt is for.
        train: examples that proposals and exemplars come from; ``val`` itself without them. An
            example never sees an exemplar of itself.
        test: examples that measure the result and nothing else.
        io: how instructions are written: a name of ``INSTRUCTIONS``.
        eo: how exemplars are chosen: a name of ``EXEMPLARS``.
        budget: full evaluations on ``val``.
        io_share: part of them for instructions, where both are searched for.
        rounds: how often the two stages alternate, each round with its part of the budget.
        k: exemplars in a prompt.
        instructions: others to choose from, for ``io="select"``.
        proposer: the model that writes instructions; ``lm`` without one.
        seed: of all randomness.
        concurrency: calls at once.
        run_dir: where result, history and report are written; with a cache in ``lm``, a run that
            was killed goes on there without paying for a call twice.
        progress: called with each full evaluation, the judgements made, and those allowed.
        sampling: parameters of the requests to ``lm``.

    Returns:
        The best prompt by ``val``, and how it does on ``test``.

    Raises:
        ConfigError: an unknown name, a budget that is too small, or a template without a place for
            exemplars.
        DataError: test examples are among the others.
        ServiceError: the model does not answer.
    """
    _check(program, io, eo, budget, io_share, rounds, k)
    train = list(val if train is None else train)
    _check_apart(train, val, test)
    client = as_lm(lm)
    writer = client if proposer is None else as_lm(proposer)
    evaluator = Evaluator(program, client, metric, batch=val, concurrency=concurrency, **sampling)
    planned = plan(val, test, io=io, eo=eo, budget=budget, io_share=io_share)

    def on_evaluation(evaluation: Evaluation) -> None:
        if progress is not None:
            progress(evaluation, search.spent, planned.judgements)

    search = Search(
        evaluator,
        Asker(writer),
        Candidate(instruction),
        train,
        val,
        units=planned.judgements,
        seed=seed,
        on_evaluation=on_evaluation,
    )
    stopped = ""
    try:
        _run(search, io, eo, k, instructions, planned, rounds)
    except BudgetExhausted as error:
        if not search.history:
            raise
        stopped = str(error)
    best, first = search.best, search.history[0]
    tested: tuple[Evaluation, Evaluation] | None = None
    if test and not stopped:
        try:
            tested = evaluator(best.candidate, test), evaluator(first.candidate, test)
        except BudgetExhausted as error:
            stopped = str(error)
    result = PromptResult(
        program=program,
        first=first,
        best=best,
        tested=tested,
        history=tuple(search.history),
        prior=evaluator.prior(best.candidate),
        model=client.model,
        method=f"{io}+{eo}",
        judgements=search.spent,
        allowed=planned.judgements,
        unreadable=search.unreadable,
        usage=usage_of(client, writer),
        stopped=stopped,
    )
    if test is None:
        warnings.warn(
            "there are no test examples: the score on the validation examples is too good, since"
            " the prompt was chosen by them.",
            stacklevel=2,
        )
    if run_dir is not None:
        result.save(run_dir)
    return result


def _run(
    search: Search,
    io: str,
    eo: str,
    k: int,
    instructions: Sequence[str],
    planned: Plan,
    rounds: int,
) -> None:
    """Both stages, ``rounds`` times; each ends with its part of the budget."""
    allowed = search.units
    for turn in range(rounds):
        begin, end = (allowed * part // rounds for part in (turn, turn + 1))
        if INSTRUCTIONS[io] is not None:
            search.units = begin + planned.instruction_judgements // rounds
            with suppress(BudgetSpent):
                _write(search, io, instructions, 0 if eo != "none" else k)
        search.units = end
        with suppress(BudgetSpent):
            if not search.history:
                search.full(search.seed_prompt)
            if eo != "none":
                improve_exemplars(search, eo, search.best.candidate, k)
        search.begin_round(search.best.candidate)


def _write(search: Search, io: str, instructions: Sequence[str], k: int) -> None:
    """The stage of instructions."""
    method = INSTRUCTIONS[io]
    assert method is not None
    if io == "mipro":
        mipro.improve(search, k=k)
    elif io == "select":
        select.improve(search, instructions)
    else:
        method(search)


def _check(
    program: PromptProgram, io: str, eo: str, budget: int, io_share: float, rounds: int, k: int
) -> None:
    for name, value, known in (("io", io, INSTRUCTIONS), ("eo", eo, EXEMPLARS)):
        if value not in known:
            raise ConfigError(
                f"{name}={value!r} is unknown.{did_you_mean(value, known)} There are:"
                f" {', '.join(known)}."
            )
    if budget < 1 or k < 0 or not 0 < io_share < 1:
        raise ConfigError(
            f"budget={budget} must be at least 1, k={k} at least 0, io_share={io_share} between 0"
            " and 1."
        )
    if rounds < 1 or (rounds > 1 and "none" in (io, eo)):
        raise ConfigError(
            f"rounds={rounds} must be at least 1, and 1 where only one of io and eo is searched."
        )
    if io != "none" and eo != "none" and round(budget * io_share) < rounds:
        raise ConfigError(
            f"budget={budget} is too small to be split with io_share={io_share}, rounds={rounds}."
        )
    if (eo != "none" or io == "mipro") and k > 0 and not program.takes_exemplars:
        raise ConfigError(
            "the template has no field {{exemplars}}. Add it where they belong, or choose"
            " eo='none'."
        )


def _check_apart(
    train: Sequence[Example], val: Sequence[Example], test: Sequence[Example] | None
) -> None:
    if not val:
        raise DataError("there are no validation examples.")
    seen = {_content(example) for example in (*train, *val)}
    ids = {example.id for example in (*train, *val)}
    shared = [e for e in test or () if _content(e) in seen or e.id in ids]
    if shared:
        raise DataError(
            f"{len(shared)} of {len(test or ())} test examples are among the training or validation"
            f" examples, the first is {shared[0].id}: remove them, or the test measures nothing."
        )


def _content(example: Example) -> str:
    return " ".join(str(value).strip().casefold() for value in example.input.values())
