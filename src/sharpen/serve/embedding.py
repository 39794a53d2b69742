"""Vectors of texts: the states after the final norm, of the last token or on average.

::

    last   e = h_T           mean   e = (h_1 + ... + h_T) / T           then  e / |e|

Models trained for it put what a text means into its last token, or into the mean; a folder in the
layout of sentence-transformers says which (``1_Pooling/config.json``). Where a model was trained so
that a vector's beginning serves alone (Kusupati et al., Matryoshka Representation Learning, NeurIPS
2022, arXiv 2205.13147), ``dimensions`` cuts it, before it is normed again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sharpen.core.config import read_json
from sharpen.core.errors import ConfigError
from sharpen.serve.adapters import NamedAdapter
from sharpen.serve.request import FinishReason
from sharpen.serve.scheduler import Part, SequenceState

__all__ = ["Embedding", "Pooling", "finish_vector", "pooling_of"]

Pooling = Literal["last", "mean"]


def pooling_of(model: Path) -> Pooling:
    """What a model's folder says; ``last`` where it says nothing."""
    file = model / "1_Pooling" / "config.json"
    if not file.is_file():
        return "last"
    config = read_json(file, "pooling config")
    is_mean = isinstance(config, dict) and bool(config.get("pooling_mode_mean_tokens"))
    return "mean" if is_mean else "last"


def finish_vector(vector: Tensor, dimensions: int | None, *, normalize: bool = True) -> Tensor:
    """A vector [H] cut to its first numbers and normed.

    Raises:
        ConfigError: it has fewer numbers.
    """
    if dimensions is not None:
        if not 1 <= dimensions <= vector.numel():
            raise ConfigError(f"dimensions={dimensions} must be from 1 to {vector.numel()}.")
        vector = vector[:dimensions]
    return torch.nn.functional.normalize(vector, dim=0) if normalize else vector


class Embedding:
    """A text on its way through the engine to its vector.

    Attributes:
        state: where the scheduler has it.
        vector: [H] float32, once it is finished.
        error: what failed, where ``finish_reason`` is ``error``.

    Args:
        prompt_ids: the text's tokens.
        pooling: how its tokens' states become one.
        adapter: what is added to the model for it, if anything.
        priority: smaller goes first.
        on_done: called once, with this, by whoever calls :meth:`Engine.step`; must not raise.
    """

    index = 0
    num_tokens = 0

    def __init__(
        self,
        prompt_ids: Sequence[int],
        pooling: Pooling,
        adapter: NamedAdapter | None,
        priority: float,
        on_done: Callable[[Embedding], None],
    ) -> None:
        self.prompt_ids = list(prompt_ids)
        self.adapter = adapter
        self.pooling = pooling
        self.state = SequenceState(
            tokens=list(prompt_ids),
            max_tokens=len(prompt_ids),
            priority=priority,
            arrival=time.monotonic(),
            extra=json.dumps(["", adapter.number if adapter else 0]),
        )
        if pooling == "mean":  # it needs every state, so nothing may be taken from what is known
            self.state.keep_apart()
        self.cancelled = False
        self.finish_reason: FinishReason | None = None
        self.vector: Tensor | None = None
        self.error = ""
        self.submitted_s = time.perf_counter()
        self.started_s: float | None = None
        self.first_token_s: float | None = None
        self.last_token_s: float | None = None
        self._on_done = on_done
        self._sum: Tensor | None = None
        self._num_summed = 0

    @property
    def finished(self) -> bool:
        """Whether it is done, or given up."""
        return self.finish_reason is not None

    def num_wanted(self, part: Part) -> int:
        """States of the last so many tokens of a part that :meth:`take` needs."""
        return part.count if self.pooling == "mean" else int(part.ends)

    def take(self, part: Part, states: Tensor) -> None:
        """States [n, H] of the last tokens of a part."""
        if self.pooling == "mean":
            new = states[max(self._num_summed - part.start, 0) :].float().sum(0)
            self._sum = new if self._sum is None else self._sum + new
            self._num_summed = max(self._num_summed, part.start + part.count)
        if part.ends:
            self.first_token_s = self.last_token_s = time.perf_counter()
            mean = self._sum / len(self.prompt_ids) if self._sum is not None else None
            self.vector = mean if mean is not None else states[-1].float()
            self.end("stop")

    def end(self, reason: FinishReason, error: str = "", *, refused: bool = False) -> None:
        """End it, also from outside."""
        if not self.finished:
            self.finish_reason, self.error = reason, error
            self._on_done(self)
