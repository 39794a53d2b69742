"""Other optimizers behind one ask and tell, in a process of their own.

Run by the interpreter that ``BENCH_PEERS_PYTHON`` names, so that what the peers need is installed
beside Sharpen's environment and not in it. It reads one JSON document a line and answers each::

    {"do": "start", "method": "ax", "space": [...], "constraints": 2, "seed": 0, "budget": 50}
    {"do": "ask"}                      -> {"x": [...], "seconds": 0.01}
    {"do": "tell", "value": 1.5, "constraints": [...]}
    {"do": "recommend"}                -> {"x": [...] or null}

A space is a list of ``["float", low, high]`` and ``["bool"]``; x is a list of values in its order.
Seconds are the processor's on the peer's own work: what a suggestion takes, tells included.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

warnings.filterwarnings("ignore")


class Player(Protocol):
    """What the benchmark asks of a method; a space it cannot take is a ValueError."""

    def ask(self) -> list[Any]:
        """Values to evaluate."""

    def tell(self, value: float, constraints: list[float]) -> None:
        """What came of them: the loss, and constraints that hold up to 0."""

    def recommend(self) -> list[Any] | None:
        """What it would use now, where it says."""


class OptunaPeer(Player):
    """Optuna's samplers, given constraints by its own means."""

    def __init__(self, kind: str, space: list[Any], constraints: int, seed: int, budget: int):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.optuna, self.space, self.constraints = optuna, space, constraints
        given: dict[str, Any] = {"seed": seed}
        if constraints:
            given["constraints_func"] = lambda trial: trial.user_attrs["constraints"]
        if kind == "optuna-gp":
            sampler: Any = optuna.samplers.GPSampler(**given)
        else:
            sampler = optuna.samplers.TPESampler(**given)
        self.study = optuna.create_study(sampler=sampler)
        self.trial: Any = None

    def ask(self) -> list[Any]:
        """See :class:`Player`."""
        self.trial = self.study.ask()
        x: list[Any] = []
        for i, (kind, *bounds) in enumerate(self.space):
            if kind == "float":
                x.append(self.trial.suggest_float(f"x{i}", *bounds))
            else:
                x.append(self.trial.suggest_categorical(f"x{i}", [False, True]))
        return x

    def tell(self, value: float, constraints: list[float]) -> None:
        """See :class:`Player`."""
        self.trial.set_user_attr("constraints", constraints)
        self.study.tell(self.trial, value)

    def recommend(self) -> list[Any] | None:
        """See :class:`Player`."""
        return None


class AxPeer(Player):
    """Ax's client with what it chooses itself."""

    def __init__(self, kind: str, space: list[Any], constraints: int, seed: int, budget: int):
        from ax.api.client import Client
        from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

        logging.disable(logging.CRITICAL)
        self.client = Client(random_seed=seed)
        self.names = [f"x{i}" for i in range(len(space))]
        parameters: list[Any] = []
        for name, (what, *bounds) in zip(self.names, space, strict=True):
            if what == "float":
                parameters.append(
                    RangeParameterConfig(name=name, parameter_type="float", bounds=tuple(bounds))
                )
            else:
                parameters.append(
                    ChoiceParameterConfig(name=name, parameter_type="bool", values=[False, True])
                )
        self.client.configure_experiment(parameters=parameters)
        bounds_on = [f"c{i} <= 0" for i in range(constraints)]
        self.client.configure_optimization(
            objective="-value", outcome_constraints=bounds_on or None
        )
        self.index = 0

    def ask(self) -> list[Any]:
        """See :class:`Player`."""
        found = self.client.get_next_trials(max_trials=1)
        self.index, config = next(iter(found.items()))
        return [config[name] for name in self.names]

    def tell(self, value: float, constraints: list[float]) -> None:
        """See :class:`Player`."""
        data: dict[str, Any] = {"value": value}
        data |= {f"c{i}": c for i, c in enumerate(constraints)}
        self.client.complete_trial(trial_index=self.index, raw_data=data)

    def recommend(self) -> list[Any] | None:
        """See :class:`Player`."""
        try:
            config = self.client.get_best_parameterization()[0]
        except Exception:
            return None
        return [config[name] for name in self.names]


class BotorchPeer(Player):
    """A plain loop on BoTorch: SingleTaskGP, log noisy EI, ten initial Sobol points."""

    def __init__(self, kind: str, space: list[Any], constraints: int, seed: int, budget: int):
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(seed)
        if constraints or any(what != "float" for what, *_ in space):
            raise ValueError("the plain loop takes real numbers without constraints")
        self.torch, self.space = torch, space
        self.start = torch.quasirandom.SobolEngine(len(space), scramble=True, seed=seed)
        self.x: list[Any] = []
        self.y: list[float] = []

    def ask(self) -> list[Any]:
        """See :class:`Player`."""
        from botorch.acquisition.logei import qLogNoisyExpectedImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from botorch.models.transforms import Standardize
        from botorch.optim import optimize_acqf
        from gpytorch.mlls import ExactMarginalLogLikelihood

        torch, d = self.torch, len(self.space)
        if len(self.x) < 10:
            self.unit = self.start.draw(1).double()[0]
        else:
            x, y = torch.stack(self.x), -torch.tensor(self.y, dtype=torch.float64)[:, None]
            model = SingleTaskGP(x, y, outcome_transform=Standardize(1))
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
            found, _ = optimize_acqf(
                qLogNoisyExpectedImprovement(model, x, prune_baseline=True),
                bounds=torch.tensor([[0.0] * d, [1.0] * d], dtype=torch.float64),
                q=1,
                num_restarts=10,
                raw_samples=256,
            )
            self.unit = found[0]
        return [
            low + float(u) * (high - low)
            for u, (_, low, high) in zip(self.unit, self.space, strict=True)
        ]

    def tell(self, value: float, constraints: list[float]) -> None:
        """See :class:`Player`."""
        self.x.append(self.unit)
        self.y.append(value)

    def recommend(self) -> list[Any] | None:
        """See :class:`Player`."""
        return None


class CmaPeer(Player):
    """CMA-ES as ``cma`` has it, in the unit cube, restarted when it stops."""

    def __init__(self, kind: str, space: list[Any], constraints: int, seed: int, budget: int):
        if constraints or any(what != "float" for what, *_ in space):
            raise ValueError("it takes real numbers without constraints")
        self.space, self.seed, self.queue = space, seed, []
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
        return [
            low + float(v) * (high - low) for v, (_, low, high) in zip(u, self.space, strict=True)
        ]

    def tell(self, value: float, constraints: list[float]) -> None:
        """See :class:`Player`."""
        self.values.append(value)
        if len(self.values) == len(self.made):
            self.es.tell(self.made, self.values)

    def recommend(self) -> list[Any] | None:
        """See :class:`Player`."""
        return None


class NevergradPeer(Player):
    """What nevergrad chooses itself: NGOpt."""

    def __init__(self, kind: str, space: list[Any], constraints: int, seed: int, budget: int):
        import nevergrad as ng

        parts = [
            ng.p.Scalar(lower=bounds[0], upper=bounds[1])
            if what == "float"
            else ng.p.Choice([False, True])
            for what, *bounds in space
        ]
        arguments = ng.p.Tuple(*parts)
        arguments.random_state.seed(seed)
        self.optimizer = ng.optimizers.NGOpt(arguments, budget=budget, num_workers=1)

    def ask(self) -> list[Any]:
        """See :class:`Player`."""
        self.candidate = self.optimizer.ask()
        return [v if isinstance(v, bool) else float(v) for v in self.candidate.value]

    def tell(self, value: float, constraints: list[float]) -> None:
        """See :class:`Player`."""
        self.optimizer.tell(self.candidate, value, constraints or None)

    def recommend(self) -> list[Any] | None:
        """See :class:`Player`."""
        return [v if isinstance(v, bool) else float(v) for v in self.optimizer.recommend().value]


class RandomPeer(Player):
    """Independent uniform draws."""

    def __init__(self, kind: str, space: list[Any], constraints: int, seed: int, budget: int):
        self.space, self.rng = space, np.random.default_rng(seed)

    def ask(self) -> list[Any]:
        """See :class:`Player`."""
        return [
            float(self.rng.uniform(*bounds)) if what == "float" else bool(self.rng.random() < 0.5)
            for what, *bounds in self.space
        ]

    def tell(self, value: float, constraints: list[float]) -> None:
        """See :class:`Player`."""

    def recommend(self) -> list[Any] | None:
        """See :class:`Player`."""
        return None


PEERS: dict[str, Callable[..., Player]] = {
    "optuna-gp": OptunaPeer,
    "optuna-tpe": OptunaPeer,
    "ax": AxPeer,
    "botorch-loop": BotorchPeer,
    "cma": CmaPeer,
    "nevergrad": NevergradPeer,
    "random": RandomPeer,
}


def main() -> None:
    """Answer until the input ends."""
    answer_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what peers print does not mix with the answers
    peer: Any = None
    spent = 0.0
    for line in sys.stdin:
        given = json.loads(line)
        begin = time.process_time()
        answer: dict[str, Any] = {}
        if given["do"] == "start":
            try:
                peer = PEERS[given["method"]](
                    given["method"],
                    given["space"],
                    given["constraints"],
                    given["seed"],
                    given["budget"],
                )
                spent = 0.0
            except ValueError as error:
                answer["refused"] = str(error)
        elif given["do"] == "ask":
            answer["x"] = peer.ask()
            answer["seconds"] = spent + time.process_time() - begin
            spent = 0.0
        elif given["do"] == "tell":
            peer.tell(given["value"], given["constraints"])
            spent = time.process_time() - begin
        else:
            answer["x"] = peer.recommend()
        answer_to.write(json.dumps(answer) + "\n")
        answer_to.flush()


if __name__ == "__main__":
    main()
