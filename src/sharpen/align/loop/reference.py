"""The frozen policy that methods stay near: the start itself, or another model.

Where adapters are trained, the start is the model without them, and costs nothing. Of whole models
it is a frozen copy, kept only by methods that meet new completions; those that learn from rows take
its log-probabilities once, before the first step, when the model still is the start.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from sharpen.align.heads import take_off_heads
from sharpen.align.methods import Policy
from sharpen.align.sequences import Sequences
from sharpen.core.errors import ConfigError
from sharpen.models.decoder import DecoderLM
from sharpen.models.load import load_model
from sharpen.models.lora import without_adapters

__all__ = ["Reference", "load_reference"]


class Reference:
    """Gives log-probabilities of a frozen model.

    Args:
        policy: the frozen model and how it is asked.
        adapted: it is the trained model; its adapters are left out.
    """

    def __init__(self, policy: Policy, *, adapted: bool = False) -> None:
        self._policy = policy
        self._adapted = adapted

    @classmethod
    def of_start(cls, policy: Policy, *, adapts: bool) -> Reference:
        """The model as it is now; ``adapts``: only adapters are trained."""
        if adapts:
            return cls(policy, adapted=True)
        frozen = copy.deepcopy(policy.model).requires_grad_(False).eval()
        take_off_heads(frozen)
        return cls(Policy(frozen, policy.dtype, policy.temperature))

    def logp(self, batch: Sequences) -> Tensor:
        """[N, T] float32 of the batch's actions."""
        model = self._policy.model
        around = without_adapters(model) if self._adapted else nullcontext()
        with torch.no_grad(), _evaluating(model), around:
            return self._policy.logp(batch)


def load_reference(path: str | Path, policy: Policy) -> Reference:
    """Another model as the reference.

    Raises:
        ConfigError: its vocabulary is another one, so that its probabilities mean other tokens.
    """
    own = policy.model.spec.vocab_size
    dtype = next(policy.model.parameters()).dtype
    frozen = load_model(path, dtype=dtype, device=policy.model.lm_head.weight.device)
    if frozen.spec.vocab_size != own:
        raise ConfigError(
            f"the reference {path} has a vocabulary of {frozen.spec.vocab_size} tokens and the "
            f"model one of {own}. Take a reference with the same tokenizer."
        )
    frozen.requires_grad_(False).eval()
    return Reference(Policy(frozen, policy.dtype, policy.temperature))


@contextmanager
def _evaluating(model: DecoderLM) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
