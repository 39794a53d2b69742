"""What a training algorithm is measured on: a model, data, a loss, and what counts as done.

A workload knows nothing of optimizers, and a submission nothing of the workload but what it is
given. The training loss is a mean over a batch's examples; the metric is computed over whole
splits. Everything follows from the seed of a trial.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sharpen.core.errors import ConfigError, SharpenError

__all__ = ["Batch", "Target", "Workload"]

Batch = tuple[Tensor, ...]


class Workload(abc.ABC):
    """A model to be trained and the data to train it on.

    Attributes:
        name: of the workload; a variant's is ``<base>/<variant>``.
        metric: what is measured.
        higher_is_better: which way the metric goes.
        batch_size: examples a step, unless a submission chooses another number.
        eval_every: steps between evaluations.
        steps: of a training that sets the target; a trial may take a third more.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    higher_is_better: ClassVar[bool] = False
    batch_size: ClassVar[int] = 64
    eval_every: ClassVar[int] = 25
    steps: ClassVar[int] = 200
    variants: ClassVar[dict[str, dict[str, Any]]] = {}
    """Changes of the model by the names of variants: options of the constructor."""

    def __init__(self, variant: str | None = None) -> None:
        if variant is not None and variant not in self.variants:
            known = ", ".join(self.variants)
            raise ConfigError(f"{self.name} has no variant {variant!r}; choose one of {known}.")
        self.options: dict[str, Any] = dict(self.variants[variant]) if variant else {}
        self.full_name = f"{self.name}/{variant}" if variant else self.name

    @classmethod  # noqa: B027
    def require(cls) -> None:
        """Raise where the data are not at hand, with what to do. Nothing unless overridden."""

    @classmethod
    def available(cls) -> bool:
        """Whether the data are at hand."""
        try:
            cls.require()
        except SharpenError:
            return False
        return True

    @abc.abstractmethod
    def make_model(self) -> nn.Module:
        """The model, from torch's global random state."""

    @abc.abstractmethod
    def splits(self) -> dict[str, Batch]:
        """``train``, ``validation`` and ``test``: tensors whose first dimension is the example.

        Read at the first call, which a trial does not time, and kept.
        """

    @abc.abstractmethod
    def loss(self, model: nn.Module, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
        """Mean training loss of a batch."""

    @abc.abstractmethod
    def measure(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum of the metric over the examples of a batch."""

    def batches(self, seed: int, batch_size: int) -> Iterator[Batch]:
        """Batches of the training split without end, a new order each pass."""
        train = self.splits()["train"]
        count = len(train[0])
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(count, generator=generator)
            size = min(batch_size, count)
            for start in range(0, count - size + 1, size):
                part = order[start : start + size]
                yield tuple(x[part] for x in train)

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The metric's mean over the validation and test splits."""
        was_training = model.training
        model.eval()
        out = {}
        for name in ("validation", "test"):
            split = self.splits()[name]
            parts = [tuple(x[i : i + 512] for x in split) for i in range(0, len(split[0]), 512)]
            total = sum(float(self.measure(model, part)) for part in parts)
            out[name] = total / len(split[0])
        model.train(was_training)
        return out

    def reached(self, value: float, target: float) -> bool:
        """Whether a value of the metric is as good as the target; NaN never is."""
        return value >= target if self.higher_is_better else value <= target


@dataclass(frozen=True, slots=True)
class Target:
    """What counts as done, and how long a trial may take."""

    validation: float
    """Value of the metric to reach on the validation split."""

    test: float
    """And on the test split."""

    max_steps: int
    """Budget in steps."""

    max_cpu_s: float
    """Budget in seconds of processor time."""
