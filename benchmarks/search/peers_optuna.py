"""Optuna's samplers, behind one ask and tell; see ``peers.py``."""

from __future__ import annotations

from typing import Any

from peers_base import Player, Start

__all__ = ["OptunaPeer"]


class OptunaPeer(Player):
    """Optuna's samplers, given constraints by its own means.

    TPE takes conditions as its users write them, by asking only for what is active. The Gaussian
    process and CMA-ES model only parameters that every trial has, and draw the others at random, so
    they are given all parameters each time.
    """

    def __init__(self, start: Start) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.is_flat = start.space, start.method != "optuna-tpe"
        samplers = optuna.samplers
        given: dict[str, Any] = {"seed": start.seed}
        if start.method == "optuna-cmaes":
            if start.constraints or any(p.kind == "choice" for p in start.space):
                raise ValueError("it takes numbers without constraints")
            sampler: Any = samplers.CmaEsSampler(**given)
        else:
            if start.constraints:
                given["constraints_func"] = lambda trial: trial.user_attrs["constraints"]
            is_gp = start.method == "optuna-gp"
            sampler = (samplers.GPSampler if is_gp else samplers.TPESampler)(**given)
            if is_gp:  # it imports torch at its first model, which is no part of a suggestion
                trial_run = optuna.create_study(sampler=samplers.GPSampler(n_startup_trials=1))
                trial_run.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
        self.study = optuna.create_study(sampler=sampler)
        if start.default is not None:
            names = [p.name for p in start.space]
            flat = dict(zip(names, start.full_default(), strict=True))
            self.study.enqueue_trial(flat if self.is_flat else start.named_default())
        self.trial: Any = None

    def ask(self) -> list[Any]:
        """See :class:`Player`."""
        self.trial = self.study.ask()
        found: dict[str, Any] = {}
        for p in self.space:
            if not self.is_flat and not p.is_active(found):
                continue
            if p.kind == "float":
                found[p.name] = self.trial.suggest_float(p.name, p.low, p.high, log=p.log)
            elif p.kind == "int":
                found[p.name] = self.trial.suggest_int(p.name, p.low, p.high, log=p.log)
            else:
                found[p.name] = self.trial.suggest_categorical(p.name, p.choices)
        return [found.get(p.name) for p in self.space]

    def tell(self, value: float, constraints: list[float]) -> None:
        """See :class:`Player`."""
        self.trial.set_user_attr("constraints", constraints)
        self.study.tell(self.trial, value)
