"""What a trainer works on: where a step's micro-batches come from, and what their loss is.

The trainer asks a :class:`Work` for each step's micro-batches, sums what they count over all ranks,
and gives the sums back with every micro-batch to the work's module, which divides by them. So the
micro-batches' losses add up to the loss of the whole step, however they are spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from sharpen.core.errors import DataError
from sharpen.data import TokenDataset, TokenLoader
from sharpen.models.tile_sizes import logits_tile
from sharpen.train.loss import IGNORE, linear_cross_entropy

if TYPE_CHECKING:
    from sharpen.data.loader import Batch
    from sharpen.train.trainer import Trainer

__all__ = ["COMPUTE_TYPES", "StepWork", "TokenWork", "Work"]

COMPUTE_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class StepWork:
    """One optimizer step's share of a rank."""

    batches: Sequence[Any]
    """Micro-batches, on the model's device; as many on every rank."""

    labels: float
    """Tokens that the loss is of; a step without any on all ranks is skipped."""

    tokens: float
    """Tokens that the model reads."""

    counts: tuple[float, ...] = ()
    """What else the loss needs summed over all ranks."""


@runtime_checkable
class Work(Protocol):
    """See the module."""

    def __len__(self) -> int:
        """Examples of one pass over the data."""

    @property
    def max_tokens(self) -> int:
        """Of a sequence, at most."""

    @property
    def fingerprint(self) -> Any:
        """Plain data that determines, with config and seed, what is done."""

    @property
    def at_boundary(self) -> bool:
        """Whether a checkpoint may be written: :meth:`state_dict` says all that is to come."""

    def module(self, model: nn.Module) -> nn.Module:
        """The whole forward pass: ``module(batch, scale)`` is a micro-batch's share of the loss.

        It uses every parameter that is trained.
        """

    def prepare(self, trainer: Trainer) -> None:
        """The trainer and its ranks are ready; called once, before anything else is asked."""

    def take(self) -> StepWork:
        """The next step's micro-batches."""

    def scale(self, labels: float, counts: Sequence[float]) -> Any:
        """What the module gets beside each micro-batch, from sums over all ranks."""

    def metrics(self) -> Mapping[str, tuple[float, float]]:
        """Sums and weights that came up since the last call, on this rank.

        Sum over weight is a mean. Every rank gives the same names.
        """

    def state_dict(self) -> dict[str, Any]:
        """Plain data, alike on all ranks."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""


class TokenWork:
    """Cross entropy on the rows of a token data set.

    Args:
        data: a token data set, or the folder of one (its ``train`` split).

    Raises:
        DataError: it has no rows.
    """

    loader: TokenLoader
    _device: torch.device

    def __init__(self, data: TokenDataset | str | Path) -> None:
        self.data = data if isinstance(data, TokenDataset) else TokenDataset(Path(data), "train")
        if len(self.data) == 0:
            raise DataError("the training split has no sequences.")
        self._tile: int | None = None
        self._dtype = torch.float32
        self._grad_accum = 1

    def __len__(self) -> int:
        """Rows."""
        return len(self.data)

    @property
    def max_tokens(self) -> int:
        """Of a row."""
        return self.data.max_tokens

    @property
    def fingerprint(self) -> Any:
        """Of the data set."""
        return self.data.fingerprint

    @property
    def at_boundary(self) -> bool:
        """A position in the data is all there is to know."""
        return True

    def prepare(self, trainer: Trainer) -> None:
        """Read this rank's share of the rows."""
        config, parallel = trainer.config, trainer.parallel
        readers = parallel.layout.data_ranks
        self._grad_accum = config.grad_accum(readers)
        self._device = trainer.device
        self._dtype = COMPUTE_TYPES[config.dtype]
        tile = config.act.tiled_loss
        self._tile = None if tile == "auto" else tile
        self.loader = TokenLoader(
            self.data,
            config.micro_batch,
            seed=trainer.seed,
            rank=parallel.data_rank,
            world=readers,
        )

    def module(self, model: nn.Module) -> nn.Module:
        """Hidden states and their cross entropy."""
        head: Tensor = model.lm_head.weight  # type: ignore[union-attr,assignment]
        rows = self._tile or logits_tile(head.shape[0], head.device.type)
        return _CrossEntropy(model, rows, self._dtype)

    def take(self) -> StepWork:
        """The next rows."""
        batches = [next(self.loader) for _ in range(self._grad_accum)]
        return StepWork(
            [self._tensors(batch) for batch in batches],
            labels=sum(int((batch.labels != IGNORE).sum()) for batch in batches),
            tokens=sum(int((batch.document_ids >= 0).sum()) for batch in batches),
        )

    def scale(self, labels: float, counts: Sequence[float]) -> float:
        """The loss is the mean over all labels of the step."""
        return 1.0 / labels

    def metrics(self) -> Mapping[str, tuple[float, float]]:
        """The loss says it all."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The position in the data."""
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a position; see :meth:`TokenLoader.load_state_dict`."""
        self.loader.load_state_dict(state)

    def _tensors(self, batch: Batch) -> dict[str, Tensor]:
        """Of a batch; labels are those of the next token already."""
        arrays: dict[str, np.ndarray[Any, Any]] = {
            "input_ids": batch.input_ids,
            "position_ids": batch.position_ids,
            "document_ids": batch.document_ids,
            "shift_labels": batch.labels,
        }
        return {
            name: torch.from_numpy(array).to(self._device, non_blocking=True)
            for name, array in arrays.items()
        }


class _CrossEntropy(nn.Module):
    """The whole forward pass, so that a unit that gathers weights sees every use of them."""

    def __init__(self, model: nn.Module, tile: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.tile = tile
        self.dtype = dtype

    def forward(self, batch: dict[str, Tensor], scale: float) -> Tensor:
        """Sum of the cross entropies times ``scale``."""
        device = batch["input_ids"].device.type
        with torch.autocast(device, self.dtype, enabled=self.dtype == torch.bfloat16):
            hidden = self.model.hidden(  # type: ignore[operator]
                batch["input_ids"],
                position_ids=batch["position_ids"],
                document_ids=batch["document_ids"],
            )
        return linear_cross_entropy(
            hidden.to(self.dtype),
            self.model.lm_head.weight,  # type: ignore[union-attr,arg-type]
            batch["shift_labels"],
            scale=scale,
            tile=self.tile,
        )
