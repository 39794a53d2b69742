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
from collections.abc import Sequence
from typing import Any, ClassVar

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Trial
from sharpen.core.space import Space
from sharpen.text.module import Module
from sharpen.text.optimizers.base import record_of
from sharpen.text.optimizers.optoprime import FORMATS, OptoPrime
from sharpen.text.optimizers.problem import constraints_of
from sharpen.text.parameter import Parameter

__all__ = ["OPRO"]

OBJECTIVE = "Propose new values for the variables that will be judged better than all below."

_READING = """\
You find good values for variables. You are shown earlier values and what was said about them, the
best last."""


class OPRO(OptoPrime):
    """Proposes values from those tried before and their feedback alone; it sees no program.

    Args:
        parameters: what to change: a module, parameters, or a space.
        lm: the model.
        top: how many of the best pairs are shown; the paper shows 20.
        options: those of :class:`~sharpen.text.optimizers.optoprime.OptoPrime`.
    """

    name: ClassVar[str] = "opro"

    def __init__(
        self,
        parameters: Module | Sequence[Parameter] | Space,
        lm: Any,
        *,
        top: int = 20,
        **options: Any,
    ) -> None:
        if top < 1:
            raise ConfigError(f"top={top} must be at least 1 (OPRO).")
        super().__init__(parameters, lm, **{"objective": OBJECTIVE, **options})
        self.top = top

    def messages(self, base: Trial) -> list[dict[str, str]]:
        """What the model is told."""
        (objective,) = self.objectives
        records: list[tuple[bool, float, int, dict[str, Any]]] = []
        for number, trial in sorted(self.history.items()):
            score = trial.values.get(objective.name) if trial.is_ok else None
            merit = 0.0 if score is None else -objective.loss(score)
            records.append((score is not None, merit, number, record_of(trial) | {"score": score}))
        shown = [record for *_, record in sorted(records, key=lambda one: one[:3])[-self.top :]]
        if not shown:
            shown = [{"variables": dict(base.config), "score": None}]
        pairs = "\n".join(json.dumps(one, ensure_ascii=False) for one in shown)
        rules = constraints_of(self._open())
        parts = [f"#Instruction\n{self.objective}", f"#Examples\n{pairs}"]
        parts += [f"#Constraints\n{rules}"] if rules else []
        parts += self._under_way()
        return [
            {"role": "system", "content": f"{_READING}\n\n{FORMATS[self.format]}"},
            {"role": "user", "content": "\n\n".join([*parts, "Your reply:"])},
        ]
