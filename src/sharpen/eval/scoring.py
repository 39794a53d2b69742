"""Negative log-likelihoods of tokens, a tile of logits at a time.

For hidden states h_i and the tokens y_i to be predicted from them::

    nats_i = logsumexp(W h_i) - (W h_i)[y_i]

The head runs in the model's type; logsumexp and the difference in float32 (float64 for a float64
model). Memory: tile * V * 4 bytes, about 64 MiB whatever the length.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sharpen.models.decoder import DecoderLM
from sharpen.models.tile_sizes import logits_tile

__all__ = ["evaluating", "token_nats"]


@contextmanager
def evaluating(model: DecoderLM) -> Iterator[None]:
    """Evaluation mode without gradients; the model's mode is restored afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def token_nats(model: DecoderLM, hidden: Tensor, targets: Tensor) -> Tensor:
    """Nats of each token.

    Args:
        model: whose head is applied; may be quantized.
        hidden: [T, H], hidden states after the final norm.
        targets: [T] int64, the token to be predicted at each.

    Returns:
        [T] float64.
    """
    tile = logits_tile(model.spec.vocab_size, hidden.device.type)
    parts = [torch.empty(0, dtype=torch.float64, device=hidden.device)]
    for start in range(0, hidden.shape[0], tile):
        logits = model.lm_head(hidden[start : start + tile])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        picked = logits.gather(1, targets[start : start + tile, None]).squeeze(1)
        parts.append((torch.logsumexp(logits, dim=-1) - picked).double())
    return torch.cat(parts)
