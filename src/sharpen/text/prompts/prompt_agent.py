"""PromptAgent: Monte Carlo tree search over prompts.

Wang, Li, Wang, Bai, Luo, Zhang, Jojic, Xing and Hu, *PromptAgent: Strategic Planning with Language
Models Enables Expert-level Prompt Optimization*, ICLR 2024 (arXiv 2310.16427), algorithm 1.

::

    state = a prompt     action = what to do better, from errors     reward = validation score
    select   argmax Q(s, a) + c sqrt(ln N(s) / N(child))
    expand   ``width`` children, each by another batch of errors
    simulate along the best child to the depth limit
    back up  Q = mean of the rewards on the paths through the state
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sharpen.text.prompts.search import Search, failures
from sharpen.text.prompts.task import Candidate

__all__ = ["improve"]

_ACT = """\
I am writing an instruction for a language model. Now it is:

{instruction}

It went wrong on these examples:

{failures}

Think about what the instruction lacks, then write a better one between <PROMPT> and </PROMPT>."""


@dataclass
class _State:
    candidate: Candidate
    reward: float
    children: list[_State] = field(default_factory=list)
    visits: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / self.visits if self.visits else self.reward


def improve(
    search: Search, *, c: float = 2.5, width: int = 3, depth: int = 8, batch: int = 5
) -> None:
    """Search for an instruction until the budget is spent.

    Args:
        search: what is searched.
        c: how much it explores.
        width: children of a prompt.
        depth: longest path.
        batch: training examples whose errors an action is made from.
    """
    first = search.full(search.seed_prompt)
    root = _State(first.candidate, first.score)
    while True:
        path = [root]
        while path[-1].children and len(path) <= depth:
            here = path[-1]
            visits = max(1, here.visits)
            path.append(
                max(
                    here.children,
                    key=lambda s, n=visits: (  # type: ignore[misc]
                        s.mean + c * math.sqrt(math.log(n) / s.visits) if s.visits else math.inf
                    ),
                )
            )
        while len(path) <= depth:
            _expand(search, path[-1], width, batch)
            if not path[-1].children:
                break
            best = max(path[-1].children, key=lambda state: state.reward)
            better = best.reward > path[-1].reward
            path.append(best)
            if not better:  # a path that no longer rises is not followed to its end
                break
        mean = sum(state.reward for state in path[1:]) / max(1, len(path) - 1)
        for state in path:
            state.visits += 1
            state.total += mean


def _expand(search: Search, state: _State, width: int, batch: int) -> None:
    for _ in range(width):
        outcomes = search.on(state.candidate, search.minibatch(batch)).outcomes
        wrong = failures(outcomes, batch) or "(none: look for what could still go wrong)"
        prompt = _ACT.replace("{instruction}", state.candidate.instruction)
        for text in search.ask(prompt.replace("{failures}", wrong))[:1]:
            child = Candidate(text, state.candidate.exemplars, state.candidate.nearest)
            state.children.append(_State(child, search.full(child).score))
