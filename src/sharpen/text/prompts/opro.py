"""OPRO: the proposer sees the best instructions so far with their scores, ascending.

Yang, Wang, Lu, Liu, Le, Zhou and Chen, *Large Language Models as Optimizers*, ICLR 2024
(arXiv 2309.03409): the 20 best instructions, three examples of the task, eight new instructions a
step at temperature 1.

Differs from the paper: where the budget is small there are fewer new instructions a step, so that
there are at least four steps to learn in.
"""

from __future__ import annotations

from sharpen.text.prompts.search import Search
from sharpen.text.prompts.task import Candidate

__all__ = ["improve"]

_META = """\
Here are instructions with their scores from 0 to 100, higher is better:

{tried}

Examples of the task:

{examples}

Write an instruction that is different from all above and scores higher, between <PROMPT> and
</PROMPT>."""


_STEPS = 4


def improve(search: Search, *, top: int = 20, shown: int = 3, proposals: int = 8) -> None:
    """Search for an instruction until the budget is spent.

    Args:
        search: what is searched.
        top: instructions that are shown.
        shown: examples that are shown.
        proposals: new instructions a step, at most.
    """
    first = search.full(search.seed_prompt).candidate
    proposals = max(1, min(proposals, int(search.full_evaluations_left // _STEPS)))
    while True:
        ranked = sorted(search.history, key=lambda one: one.score)[-top:]
        tried = "\n\n".join(
            f"Instruction: {one.candidate.instruction}\nScore: {100 * one.score:.0f}"
            for one in ranked
        )
        prompt = _META.replace("{tried}", tried)
        prompt = prompt.replace("{examples}", search.shown(search.minibatch(shown)))
        fresh: list[str] = []
        for _ in range(proposals):
            fresh.extend(search.ask(prompt))
        for text in dict.fromkeys(fresh):
            search.full(Candidate(text, first.exemplars, first.nearest))
