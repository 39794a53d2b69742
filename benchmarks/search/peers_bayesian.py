"""Ax, BoTorch, HEBO and SMAC, behind one ask and tell; see ``peers.py``."""

from __future__ import annotations

import logging
import tempfile
from typing import Any

from peers_base import Player, Start, is_real

__all__ = ["AxPeer", "BotorchPeer", "HeboPeer", "SmacPeer"]


class AxPeer(Player):
    """Ax's client with what it chooses itself; every parameter each time."""

    def __init__(self, start: Start) -> None:
        from ax.api.client import Client
        from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

        logging.disable(logging.CRITICAL)
        self.client = Client(random_seed=start.seed)
        self.names = [p.name for p in start.space]
        parameters: list[Any] = []
        for p in start.space:
            if p.kind == "choice":
                kind = "bool" if p.choices == (False, True) else "str"
                given = {"parameter_type": kind, "values": list(p.choices)}
                parameters.append(ChoiceParameterConfig(name=p.name, **given))
                continue
            given = {"parameter_type": p.kind, "bounds": (p.low, p.high)}
            if p.log:
                given["scaling"] = "log"
            parameters.append(RangeParameterConfig(name=p.name, **given))
        self.client.configure_experiment(parameters=parameters)
        bounds_on = [f"c{i} <= 0" for i in range(start.constraints)]
        self.client.configure_optimization(
            objective="-value", outcome_constraints=bounds_on or None
        )
        self.index = 0
        self.first = start.full_default() if start.default is not None else None

    def ask(self) -> list[Any]:
        """See :class:`Player`."""
        if self.first is not None:
            x, self.first = self.first, None
            self.index = self.client.attach_trial(dict(zip(self.names, x, strict=True)))
            return x
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

    def __init__(self, start: Start) -> None:
        import botorch
        import gpytorch
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(start.seed)
        if not is_real(start):
            raise ValueError("the plain loop takes real numbers without constraints")
        self.torch, self.botorch, self.gpytorch = torch, botorch, gpytorch
        self.space = start.space
        self.start = torch.quasirandom.SobolEngine(len(self.space), scramble=True, seed=start.seed)
        self.x: list[Any] = []
        self.y: list[float] = []
        self.first: Any = None
        if start.default is not None:
            units = [p.unit(v) for p, v in zip(self.space, start.default, strict=True)]
            self.first = torch.tensor(units, dtype=torch.float64)

    def ask(self) -> list[Any]:
        """See :class:`Player`."""
        torch, botorch, d = self.torch, self.botorch, len(self.space)
        if self.first is not None:
            self.unit, self.first = self.first, None
        elif len(self.x) < 10:
            self.unit = self.start.draw(1).double()[0]
        else:
            x, y = torch.stack(self.x), -torch.tensor(self.y, dtype=torch.float64)[:, None]
            scale = botorch.models.transforms.Standardize(1)
            model = botorch.models.SingleTaskGP(x, y, outcome_transform=scale)
            likelihood = self.gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
            botorch.fit.fit_gpytorch_mll(likelihood)
            acquisition = botorch.acquisition.logei.qLogNoisyExpectedImprovement
            found, _ = botorch.optim.optimize_acqf(
                acquisition(model, x, prune_baseline=True),
                bounds=torch.tensor([[0.0] * d, [1.0] * d], dtype=torch.float64),
                q=1,
                num_restarts=10,
                raw_samples=256,
            )
            self.unit = found[0]
        return [p.at(float(u)) for u, p in zip(self.unit, self.space, strict=True)]

    def tell(self, value: float, constraints: list[float]) -> None:
        """See :class:`Player`."""
        self.x.append(self.unit)
        self.y.append(value)


class HeboPeer(Player):
    """HEBO with its defaults; every parameter each time."""

    def __init__(self, start: Start) -> None:
        import numpy as np
        import pandas as pd
        import torch
        from hebo.design_space.design_space import DesignSpace
        from hebo.optimizers.hebo import HEBO

        torch.set_num_threads(1)
        torch.manual_seed(start.seed)
        np.random.seed(start.seed)  # what it draws from
        if start.constraints:
            raise ValueError("it is given no constraints here")
        self.space, self.np = start.space, np
        kinds = {("float", False): "num", ("float", True): "pow"}
        kinds |= {("int", False): "int", ("int", True): "pow_int"}
        parameters = [
            {"name": p.name, "type": "cat", "categories": list(p.choices)}
            if p.kind == "choice"
            else {"name": p.name, "type": kinds[p.kind, p.log], "lb": p.low, "ub": p.high}
            for p in start.space
        ]
        self.optimizer = HEBO(DesignSpace().parse(parameters), scramble_seed=start.seed)
        self.first = None
        if start.default is not None:
            names = [p.name for p in start.space]
            self.first = pd.DataFrame([dict(zip(names, start.full_default(), strict=True))])

    def ask(self) -> list[Any]:
        """See :class:`Player`."""
        if self.first is not None:
            self.asked, self.first = self.first, None
        else:
            self.asked = self.optimizer.suggest(1)
        row = self.asked.iloc[0].to_dict()
        return [
            row[p.name] if p.kind == "choice" else {"int": int, "float": float}[p.kind](row[p.name])
            for p in self.space
        ]

    def tell(self, value: float, constraints: list[float]) -> None:
        """See :class:`Player`."""
        self.optimizer.observe(self.asked, self.np.array([[value]]))


class SmacPeer(Player):
    """SMAC's facade for hyper-parameters, a random forest, with conditions of its own kind."""

    def __init__(self, start: Start) -> None:
        import ConfigSpace
        from smac import HyperparameterOptimizationFacade, Scenario

        logging.disable(logging.CRITICAL)
        if start.constraints:
            raise ValueError("it is given no constraints here")
        self.space = start.space
        default = start.named_default() if start.default is not None else {}
        space = ConfigSpace.ConfigurationSpace(seed=start.seed)
        for p in start.space:
            given = {"default": default[p.name]} if p.name in default else {}
            if p.kind == "choice":
                space.add(ConfigSpace.Categorical(p.name, list(p.choices), **given))
                continue
            make = ConfigSpace.Float if p.kind == "float" else ConfigSpace.Integer
            space.add(make(p.name, (p.low, p.high), log=p.log, **given))
        for p in start.space:
            if p.parent is not None:
                space.add(ConfigSpace.InCondition(space[p.name], space[p.parent], list(p.values)))
        self.folder = tempfile.TemporaryDirectory()
        scenario = Scenario(
            space,
            deterministic=True,
            n_trials=start.budget,
            seed=start.seed,
            output_directory=self.folder.name,
        )
        configs = [space.get_default_configuration()] if start.default is not None else []
        design = HyperparameterOptimizationFacade.get_initial_design(
            scenario, additional_configs=configs
        )
        self.optimizer = HyperparameterOptimizationFacade(
            scenario,
            lambda config, seed=0: 0.0,
            initial_design=design,
            overwrite=True,
            logging_level=False,
        )

    def ask(self) -> list[Any]:
        """See :class:`Player`."""
        self.info = self.optimizer.ask()
        found = dict(self.info.config)
        as_kind = {"float": float, "int": int}
        values: list[Any] = []
        for p in self.space:
            value = found.get(p.name)
            if value is not None and p.kind == "choice":
                value = next(choice for choice in p.choices if choice == value)
            elif value is not None:
                value = as_kind[p.kind](value)
            values.append(value)
        return values

    def tell(self, value: float, constraints: list[float]) -> None:
        """See :class:`Player`."""
        from smac.runhistory import TrialValue

        self.optimizer.tell(self.info, TrialValue(cost=value))
