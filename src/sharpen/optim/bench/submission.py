"""Training algorithms that are measured: what is submitted, and optimizers as submissions."""

from __future__ import annotations

import abc
import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from sharpen.core.errors import ConfigError, MissingFileError
from sharpen.optim.bench.workload import Batch, Workload
from sharpen.optim.names import canonical
from sharpen.optim.registry import create
from sharpen.optim.schedules import Schedule

__all__ = [
    "BASELINES",
    "FromOptimizer",
    "Space",
    "Submission",
    "TrainingComplete",
    "find_submission",
]

Space = Mapping[str, Mapping[str, Any]] | list[dict[str, Any]]


class TrainingComplete(Exception):
    """Raised by a submission that does not want to go on."""


@dataclass
class Submission(abc.ABC):
    """A training algorithm: the hooks of AlgoPerf (Dahl et al., 2023, arXiv 2306.07179).

    One object serves one trial. It may look at a workload's batch size and budget, never at its
    name to choose settings by: hyperparameters are the same for all workloads.
    """

    name: str = "submission"
    """Of the submission."""

    space: Space = field(default_factory=dict)
    """The search space of external tuning; empty for algorithms that tune themselves."""

    def batch_size(self, workload: Workload) -> int:
        """Examples a step."""
        return workload.batch_size

    @abc.abstractmethod
    def start(
        self, workload: Workload, model: nn.Module, settings: Mapping[str, Any], max_steps: int
    ) -> None:
        """Before the first step; counts as training time.

        Args:
            workload: what is trained on.
            model: with its first weights.
            settings: a point of the space.
            max_steps: of the trial.
        """

    def select(self, batches: Iterator[Batch]) -> Batch:
        """The data of the next step."""
        return next(batches)

    @abc.abstractmethod
    def update(self, model: nn.Module, batch: Batch, evals: list[dict[str, float]]) -> float:
        """Take a step; returns the training loss.

        Args:
            model: whose weights are changed.
            batch: of :meth:`select`.
            evals: evaluations so far.

        Raises:
            TrainingComplete: it wants to end.
        """

    def prepare_for_eval(self, model: nn.Module) -> None:  # noqa: B027
        """Before an evaluation; counts as training time. Nothing unless overridden."""

    def resume_training(self, model: nn.Module) -> None:  # noqa: B027
        """After an evaluation; counts as training time. Nothing unless overridden."""


@dataclass
class FromOptimizer(Submission):
    """An optimizer of Sharpen's with a warm-up and a cosine as a submission."""

    optimizer: str = "adamw"
    """Name of the optimizer; settings of the space are ``lr``, ``warmup``, ``label_smoothing``,
    ``one_minus_beta1``, and any of its options."""

    schedule: Literal["cosine", "constant"] = "cosine"
    """Of the learning rate."""

    def start(
        self, workload: Workload, model: nn.Module, settings: Mapping[str, Any], max_steps: int
    ) -> None:
        """See :meth:`Submission.start`."""
        options = dict(settings)
        self._smoothing = options.pop("label_smoothing", 0.0)
        warmup = options.pop("warmup", 0.05)
        if "one_minus_beta1" in options:
            beta2 = options.pop("beta2", 0.999)
            options["betas"] = (1 - options.pop("one_minus_beta1"), beta2)
        self._lr = options["lr"]
        self._workload = workload
        self._schedule = Schedule(
            steps=max_steps, kind=self.schedule, warmup=max(1, round(warmup * max_steps))
        )
        options.setdefault("min_lowrank_dim", 1)
        self._made = create(self.optimizer, model, **options)
        self._step = 0

    def update(self, model: nn.Module, batch: Batch, evals: list[dict[str, float]]) -> float:
        """See :meth:`Submission.update`."""
        factor = self._schedule.factor(self._step)
        for group in self._made.param_groups:
            group["lr"] = self._lr * factor
        loss = self._workload.loss(model, batch, label_smoothing=self._smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        self._made.step()
        self._made.zero_grad()
        self._step += 1
        return float(loss.detach())

    def prepare_for_eval(self, model: nn.Module) -> None:
        """Put averaged weights into the model, where the optimizer has some."""
        self._swap("eval")

    def resume_training(self, model: nn.Module) -> None:
        """And take them out again."""
        self._swap("train")

    def _swap(self, mode: str) -> None:
        with torch.no_grad():
            getattr(self._made, mode, lambda: None)()


def _log(low: float, high: float) -> dict[str, Any]:
    return {"min": low, "max": high, "scaling": "log"}


_ADAM = {
    "lr": _log(3e-4, 3e-2),
    "one_minus_beta1": _log(0.02, 0.3),
    "weight_decay": _log(1e-4, 0.3),
    "warmup": {"feasible_points": [0.02, 0.05, 0.1]},
}
_SGD = {
    "lr": _log(1e-2, 1.0),
    "momentum": {"feasible_points": [0.8, 0.9, 0.95]},
    "weight_decay": _log(1e-5, 1e-2),
    "warmup": {"feasible_points": [0.02, 0.05, 0.1]},
}
_DECAY = {k: _ADAM[k] for k in ("weight_decay", "warmup")}

# Name: optimizer, space, schedule.
BASELINES: dict[str, tuple[str, Space, Literal["cosine", "constant"]]] = {
    "adamw": ("adamw", _ADAM, "cosine"),
    "nadamw": ("nadamw", _ADAM, "cosine"),
    "heavyball": ("sgd", _SGD, "cosine"),
    "nesterov": ("sgd", {**_SGD, "nesterov": {"feasible_points": [True]}}, "cosine"),
    "lamb": ("lamb", {"lr": _log(1e-3, 1e-1), **_DECAY}, "cosine"),
    "adafactor": ("adafactor", {"lr": _log(1e-3, 1e-1), **_DECAY}, "cosine"),
    "lion": ("lion", {"lr": _log(3e-5, 3e-3), **_DECAY}, "cosine"),
    "muon": ("muon", {"lr": _log(1e-3, 1e-1), **_DECAY}, "cosine"),
    "soap": ("soap", {"lr": _log(3e-4, 3e-2), **_DECAY}, "cosine"),
    "cosmos": ("cosmos", {"lr": _log(3e-4, 3e-2), **_DECAY}, "cosine"),
    "apollo": (
        "apollo",
        {"lr": _log(1e-3, 1e-1), "rank": {"feasible_points": [16]}, **_DECAY},
        "cosine",
    ),
    "frugal": ("frugal", {"lr": _log(3e-4, 3e-2), **_DECAY}, "cosine"),
    "schedule_free": (
        "schedule_free_adamw",
        {"lr": _log(3e-4, 3e-2), "weight_decay": _ADAM["weight_decay"]},
        "constant",
    ),
}
"""Submissions that come with the package."""


def find_submission(name: str, space: Path | None = None) -> Submission:
    """A submission by name, or from a Python file that defines ``submission()``.

    Args:
        name: of :data:`BASELINES`, an optimizer's, or a path that ends in ``.py``.
        space: JSON file of a search space to take instead of its own.

    Raises:
        ConfigError: there is no such submission, or the file does not define one.
        MissingFileError: the file does not exist.
    """
    if name.endswith(".py"):
        return _from_file(Path(name))
    plain: Space = {"lr": _log(3e-4, 3e-2), **_DECAY}
    optimizer, search, schedule = BASELINES.get(name, (name, plain, "cosine"))
    canonical(optimizer)
    if space is not None:
        search = json.loads(space.read_text())
    return FromOptimizer(name, search, optimizer, schedule)


def _from_file(path: Path) -> Submission:
    if not path.is_file():
        raise MissingFileError(f"there is no file {path}.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    make = getattr(module, "submission", None)
    made = make() if callable(make) else None
    if not isinstance(made, Submission):
        raise ConfigError(
            f"{path} must define submission(), which returns a sharpen.optim.bench Submission."
        )
    return made
