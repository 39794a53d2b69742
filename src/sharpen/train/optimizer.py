"""The optimizer that a training's config names, over whatever part of the parameters is at hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from sharpen.core.errors import ConfigError
from sharpen.optim.engine.base import Optimizer
from sharpen.optim.groups import param_groups, regroup
from sharpen.optim.names import find
from sharpen.train.config import TrainConfig

__all__ = ["OptimizerMaker"]

_GROUPING = ("no_decay", "overrides", "min_lowrank_dim", "conv_as_matrix")


class OptimizerMaker:
    """Makes an optimizer over named tensors, which may be some rows of some parameters.

    What a parameter is to the optimizer (a matrix, an embedding ...) is decided once, by the whole
    model. Norms, biases and embeddings are not decayed. States in few bits have their blocks within
    rows, so that checkpoints resume in any layout.

    Args:
        model: before it is laid out over ranks.
        config: ``optimizer``, ``optimizer_options``, ``lr``, ``betas``, ``eps``, ``weight_decay``.

    Raises:
        ConfigError: an option is unknown or out of range, or nothing is trainable.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self._kind = find(config.optimizer)
        options = dict(config.optimizer_options)
        grouping = {key: options.pop(key) for key in _GROUPING if key in options}
        grouping.setdefault("no_decay", ("vector", "embedding"))
        self._options: dict[str, Any] = {
            "lr": config.lr,
            "weight_decay": config.weight_decay,
            "layout": "row",
            **config.moments,
            **options,
        }
        known = {key: options[key] for key in ("rank", "state_dtype") if key in options}
        self._groups = param_groups(model, self._kind, **grouping, **known)
        self.whole: frozenset[str] = frozenset(
            name
            for group in self._groups
            if self._kind.rules[group["rule"]].mixes
            for name, _ in group["params"]
        )
        """Names of parameters that the optimizer needs whole, never a part of their rows."""
        self(model.named_parameters())  # options are checked before the ranks share anything

    def __call__(self, named: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        """The optimizer over these; a rank may have none."""
        groups = regroup(self._groups, named) or [{"params": []}]
        try:
            return self._kind(groups, **self._options)
        except TypeError as error:  # an option that the constructor does not have
            raise ConfigError(f"optimizer_options: {error}.") from error
