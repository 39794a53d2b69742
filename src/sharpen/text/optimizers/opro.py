"""OPRO: a model sees earlier values with what was said of them, best last, and proposes more.

Yang, Wang, Lu, Liu, Le, Zhou and Chen, *Large Language Models as Optimizers*, ICLR 2024
(arXiv 2309.03409), with the interface of the optimizers that read programs.

::

    prompt = instruction + the top pairs (values, feedback), sorted by score, ascending
    theta  = the values in the reply

Differs from the paper: one proposal a step; pairs without a score are sorted by age.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.text.asking import Asker
from sharpen.text.feedback import Feedback
from sharpen.text.nodes import Node
from sharpen.text.optimizers.base import Suggestion
from sharpen.text.optimizers.optoprime import FORMATS, OptoPrime
from sharpen.text.optimizers.problem import Problem, constraints_of
from sharpen.text.parameter import Parameter

__all__ = ["OPRO"]

OBJECTIVE = "Propose new values for the variables that will be judged better than all below."

_READING = """\
You find good values for variables. You are shown earlier values and what was said about them, the
best last."""


class OPRO(OptoPrime):
    """Proposes values from those tried before and their feedback alone; it sees no program.

    Args:
        parameters: what to change.
        lm: the model.
        top: how many of the best pairs are shown; the paper shows 20.
        options: those of :class:`~sharpen.text.optimizers.optoprime.OptoPrime`.
    """

    def __init__(
        self, parameters: Sequence[Parameter], lm: Any, *, top: int = 20, **options: Any
    ) -> None:
        if top < 1:
            raise ConfigError(f"top={top} must be at least 1 (OPRO).")
        super().__init__(parameters, lm, **{"objective": OBJECTIVE, **options})
        self.top = top
        self.tried: list[dict[str, Any]] = []

    def propose(self, pending: Sequence[tuple[Node, Feedback]]) -> Suggestion:
        """New values from one reply."""
        problem = Problem(pending, self.trainable(), self.names, self.objective)
        scores = [feedback.score for _, feedback in pending]
        known = [score for score in scores if score is not None]
        mean = sum(known) / len(known) if known else None
        self.tried.append({**problem.remembered(), "score": mean})
        asker = Asker(self.lm, temperature=self.temperature, max_tokens=self.max_tokens)
        suggestion = self._read(asker, self.messages(problem))
        return replace(suggestion, calls=asker.calls, tokens=asker.tokens)

    def messages(self, problem: Problem) -> list[dict[str, str]]:
        """What the model is told."""
        order = sorted(
            range(len(self.tried)),
            key=lambda k: (self.tried[k]["score"] is not None, self.tried[k]["score"] or 0.0, k),
        )
        shown = [self.tried[k] for k in order[-self.top :]]
        pairs = "\n".join(json.dumps(one, ensure_ascii=False) for one in shown)
        rules = constraints_of(problem.variables)
        parts = [f"#Instruction\n{self.objective}", f"#Examples\n{pairs}"]
        parts += [f"#Constraints\n{rules}"] if rules else []
        return [
            {"role": "system", "content": f"{_READING}\n\n{FORMATS[self.format]}"},
            {"role": "user", "content": "\n\n".join([*parts, "Your reply:"])},
        ]

    def state_dict(self) -> dict[str, Any]:
        """Values, steps and all that was tried."""
        return super().state_dict() | {"tried": list(self.tried)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        self.tried = list(state.get("tried", ()))
