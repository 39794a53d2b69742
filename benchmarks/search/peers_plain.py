"""CMA-ES of ``cma``, nevergrad and independent draws, behind one ask and tell; see ``peers.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
from peers_base import Parameter, Player, Start, is_real

__all__ = ["CmaPeer", "NevergradPeer", "RandomPeer"]


class CmaPeer(Player):
    """CMA-ES as ``cma`` has it, in the unit cube, restarted when it stops."""

    def __init__(self, start: Start) -> None:
        if not is_real(start):
            raise ValueError("it takes real numbers without constraints")
        self.space, self.seed = start.space, start.seed
        self.queue: list[Any] = []
        self.made: list[Any] = []
        self.values: list[float] = []
        self._start()

    def _start(self) -> None:
        import cma

        self.seed += 1000
        self.es = cma.CMAEvolutionStrategy(
            [0.5] * len(self.space), 0.25, {"bounds": [0, 1], "seed": self.seed, "verbose": -9}
        )

    def ask(self) -> list[Any]:
        """See :class:`Player`."""
        if not self.queue:
            if self.es.stop():
                self._start()
            self.made = self.es.ask()
            self.queue, self.values = list(self.made), []
        u = self.queue.pop(0)
        return [p.at(float(v)) for v, p in zip(u, self.space, strict=True)]

    def tell(self, value: float, constraints: list[float]) -> None:
        """See :class:`Player`."""
        self.values.append(value)
        if len(self.values) == len(self.made):
            self.es.tell(self.made, self.values)


class NevergradPeer(Player):
    """What nevergrad chooses itself: NGOpt; every parameter each time."""

    def __init__(self, start: Start) -> None:
        import nevergrad as ng

        self.space = start.space
        default: list[Any] = [None] * len(self.space)
        has_choices = any(p.kind == "choice" for p in self.space)
        if start.default is not None and not has_choices:
            default = start.full_default()
        parts = [self._part(ng, p, v) for p, v in zip(self.space, default, strict=True)]
        arguments = ng.p.Tuple(*parts)
        arguments.random_state.seed(start.seed)
        self.optimizer = ng.optimizers.NGOpt(arguments, budget=start.budget, num_workers=1)
        if start.default is not None and has_choices:  # which are told no beginning
            self.optimizer.suggest(tuple(start.full_default()))

    @staticmethod
    def _part(ng: Any, p: Parameter, default: Any) -> Any:
        if p.kind == "choice":
            return ng.p.Choice(list(p.choices))
        given = {} if default is None else {"init": default}
        if p.log:
            part = ng.p.Log(lower=p.low, upper=p.high, **given)
        else:
            part = ng.p.Scalar(lower=p.low, upper=p.high, **given)
        return part.set_integer_casting() if p.kind == "int" else part

    def _plain(self, values: Any) -> list[Any]:
        as_kind = {"float": float, "int": int}
        return [
            v if p.kind == "choice" else as_kind[p.kind](v)
            for p, v in zip(self.space, values, strict=True)
        ]

    def ask(self) -> list[Any]:
        """See :class:`Player`."""
        self.candidate = self.optimizer.ask()
        return self._plain(self.candidate.value)

    def tell(self, value: float, constraints: list[float]) -> None:
        """See :class:`Player`."""
        self.optimizer.tell(self.candidate, value, constraints or None)

    def recommend(self) -> list[Any] | None:
        """See :class:`Player`."""
        return self._plain(self.optimizer.recommend().value)


class RandomPeer(Player):
    """Independent uniform draws of real numbers and switches."""

    def __init__(self, start: Start) -> None:
        if any(
            p.kind == "int" or p.log or p.choices not in ((), (False, True)) for p in start.space
        ):
            raise ValueError("it draws real numbers and switches")
        self.space, self.rng = start.space, np.random.default_rng(start.seed)

    def ask(self) -> list[Any]:
        """See :class:`Player`."""
        return [
            float(self.rng.uniform(p.low, p.high))
            if p.kind == "float"
            else bool(self.rng.random() < 0.5)
            for p in self.space
        ]

    def tell(self, value: float, constraints: list[float]) -> None:
        """See :class:`Player`."""
