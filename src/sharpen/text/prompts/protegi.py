"""ProTeGi: criticisms of what went wrong, edits by them, a beam chosen by a bandit.

Pryzant, Iter, Li, Lee, Zhu and Zeng, *Automatic Prompt Optimization with "Gradient Descent" and
Beam Search*, EMNLP 2023 (arXiv 2305.03495), algorithms 1-3.

::

    errors of a minibatch -> g criticisms -> an edit each -> a paraphrase each
    keep the beam: play argmax mean_i + c sqrt(ln t / n_i) on fresh minibatches, until the round's
    judgements are used up

Differs from the paper: candidates of a round share minibatches (common random numbers), and the
best of each beam is judged on all validation examples.
"""

from __future__ import annotations

from sharpen.text.prompts.racing import ucb
from sharpen.text.prompts.search import Search, failures
from sharpen.text.prompts.task import Candidate

__all__ = ["improve"]

_CRITICIZE = """\
This instruction for a language model:

{instruction}

went wrong on these examples:

{failures}

Give {count} different reasons why the instruction could have led to these errors, each between
<PROMPT> and </PROMPT>."""

_EDIT = """\
This instruction for a language model:

{instruction}

went wrong on these examples:

{failures}

The reason: {reason}

Write a better instruction that mends this, between <PROMPT> and </PROMPT>."""

_PARAPHRASE = """\
Write a variation of this instruction that keeps its meaning:

{instruction}

Write it between <PROMPT> and </PROMPT>."""


def improve(
    search: Search,
    *,
    beam: int = 4,
    criticisms: int = 2,
    batch: int = 8,
    c: float = 1.0,
    plays: int = 12,
) -> None:
    """Search for an instruction until the budget is spent.

    Args:
        search: what is searched.
        beam: candidates that are kept.
        criticisms: of each candidate a round.
        batch: training examples in a minibatch.
        c: how much the bandit explores.
        plays: minibatches that the bandit judges a round.
    """
    kept = [search.full(search.seed_prompt).candidate]
    while True:
        found = list(kept)
        for candidate in kept:
            outcomes = search.on(candidate, search.minibatch(batch)).outcomes
            wrong = failures(outcomes, 4)
            if not wrong:
                wrong = "(none: look for what could still go wrong)"
            given = {"{instruction}": candidate.instruction, "{failures}": wrong}
            reasons = search.ask(_filled(_CRITICIZE, {**given, "{count}": str(criticisms)}))
            for reason in reasons[:criticisms]:
                for text in search.ask(_filled(_EDIT, {**given, "{reason}": reason}))[:1]:
                    found.append(Candidate(text, candidate.exemplars, candidate.nearest))
                    again = search.ask(_filled(_PARAPHRASE, {"{instruction}": text}))
                    found.extend(
                        Candidate(one, candidate.exemplars, candidate.nearest) for one in again[:1]
                    )
        found = list({candidate.key: candidate for candidate in found}.values())
        kept = list(ucb(search, found, batch=batch, plays=plays, c=c).ranked[:beam])
        search.full(kept[0])


def _filled(template: str, values: dict[str, str]) -> str:
    """A template of this module with its fields replaced, each once."""
    parts = [template]
    for name, value in values.items():
        parts = [
            piece
            for part in parts
            for piece in ([part] if part in values.values() else _split(part, name, value))
        ]
    return "".join(parts)


def _split(text: str, name: str, value: str) -> list[str]:
    before, found, after = text.partition(name)
    return [before, value, after] if found else [text]
