"""Search with several proposals a turn, all judged on one validation set.

::

    basic:  P = {theta} + n proposals from theta;  theta = the best of P
    beam:   P = beam + n proposals from each of the beam;  beam = the w best of P

Scores on the validation are remembered, so what stays in the beam is judged once.
"""

from __future__ import annotations

from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.text.trainers.base import Config, Trainer

__all__ = ["BasicSearch", "BeamSearch"]


class BeamSearch(Trainer):
    """Keeps the best few configurations.

    Args:
        width: how many are kept.
        proposals: how many are made from each of them in a turn.
        options: those of :class:`~sharpen.text.trainers.base.Trainer`.
    """

    def __init__(self, *given: Any, width: int = 3, proposals: int = 2, **options: Any) -> None:
        super().__init__(*given, **options)
        if width < 1 or proposals < 1:
            raise ConfigError(
                f"width={width} and proposals={proposals} must be at least 1"
                f" ({type(self).__name__})."
            )
        self.width = width
        self.count = proposals
        self._beam: list[Config] = []

    def begin(self, first: Config) -> None:
        """Take up the first values."""
        self._beam = [first]
        self.validate(first)

    def step(self, number: int) -> bool:
        """One turn; whether a proposal is in the beam."""
        batch = self.drawn(number)
        pool = list(self._beam)
        for config in self._beam:
            feedback = self.judge(config, batch)
            for candidate in self.proposals(config, feedback, self.count):
                self.optimizer.abandon([candidate.number])
                if candidate.config not in pool:
                    pool.append(candidate.config)
        ranked = sorted(pool, key=lambda config: -self.validate(config))  # the earlier of equals
        before, self._beam = self._beam, ranked[: self.width]
        return any(config not in before for config in self._beam)

    def best(self) -> tuple[Config, float]:
        """The first of the beam, and its score on the validation."""
        best = max(self._beam, key=self.validate)
        return dict(best), self.validate(best)


class BasicSearch(BeamSearch):
    """Keeps the best configuration.

    Args:
        proposals: how many are made in a turn.
        options: those of :class:`~sharpen.text.trainers.base.Trainer`.
    """

    def __init__(self, *given: Any, proposals: int = 4, **options: Any) -> None:
        super().__init__(*given, width=1, proposals=proposals, **options)
