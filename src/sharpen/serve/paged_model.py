"""What the engine needs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from sharpen.core.model_spec import ModelSpec
from sharpen.models.adapters import Adapter
from sharpen.models.paged import PagedCache, PagedPart

__all__ = ["PagedModel"]


class PagedModel(Protocol):
    """:class:`~sharpen.models.decode.InferenceLM` is one."""

    spec: ModelSpec

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        ...

    def states(self, parts: Sequence[PagedPart], cache: PagedCache) -> Tensor:
        """States [M, H] after the final norm, of the tokens that the parts want."""
        ...

    def logits(self, states: Tensor) -> Tensor:
        """Logits [M, V] of states [M, H]."""
        ...

    def load_adapter(self, folder: str | Path) -> Adapter:
        """A LoRA adapter for parts."""
        ...

    def new_paged_cache(self, num_blocks: int, block_size: int) -> PagedCache:
        """A cache in the type and on the device of the model."""
        ...

    def record(self, cache: PagedCache, rows: int) -> None:
        """Make ready for decoding steps of up to so many sequences."""
        ...
