"""APE: instructions guessed from examples, then the best of them paraphrased.

Zhou, Muresanu, Han, Paster, Pitis, Chan and Ba, *Large Language Models Are Human-Level Prompt
Engineers*, ICLR 2023 (arXiv 2211.01910), algorithm 1 with iterative Monte Carlo search.

::

    half of the budget:  rho_i ~ P(instruction | examples),  s_i = score(rho_i)
    the other half:      rho'  ~ P(paraphrase | one of the best half of all so far)

Differs from the paper: every candidate is judged on all validation examples.
"""

from __future__ import annotations

from sharpen.text.prompts.search import Search
from sharpen.text.prompts.task import Candidate

__all__ = ["improve"]

_GUESS = """\
Someone was given an instruction and wrote these outputs for these inputs:

{examples}

What was the instruction? Write it as it would be given, between <PROMPT> and </PROMPT>."""

_PARAPHRASE = """\
Write a variation of this instruction that keeps its meaning:

{instruction}

Write it between <PROMPT> and </PROMPT>."""


def improve(search: Search, *, shown: int = 5) -> None:
    """Search for an instruction until the budget is spent.

    Args:
        search: what is searched.
        shown: examples in a guess.
    """
    first = search.full(search.seed_prompt).candidate
    guesses = max(1, int(search.full_evaluations_left // 2))
    while guesses > 0:
        prompt = _GUESS.replace("{examples}", search.shown(search.minibatch(shown)))
        for text in search.ask(prompt):
            search.full(Candidate(text, first.exemplars, first.nearest))
            guesses -= 1
    while True:
        ranked = sorted(search.history, key=lambda one: -one.score)
        parents = ranked[: max(1, len(ranked) // 2)]
        parent = parents[int(search.rng.integers(len(parents)))].candidate
        for text in search.ask(_PARAPHRASE.replace("{instruction}", parent.instruction)):
            search.full(Candidate(text, first.exemplars, first.nearest))
