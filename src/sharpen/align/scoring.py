"""A policy's log-probabilities and values of a batch, from one pass without padding.

The rows of a batch are laid end to end, each a document of its own, so that no product is spent on
padding; logits exist for a few action tokens at a time (:mod:`sharpen.align.logprobs`)::

    [N, T] rows  ->  [1, M] tokens  ->  states [M, H]  ->  logp of actions  ->  [N, T]

Legend: N rows, T tokens of the widest, M tokens in all, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sharpen.align.logprobs import token_logprobs, token_scores
from sharpen.align.sequences import Sequences
from sharpen.models.decoder import DecoderLM

__all__ = ["ActionScores", "States", "action_scores", "policy_logp", "states_of", "values_of"]


@dataclass(frozen=True, slots=True)
class States:
    """The model's states of a batch."""

    hidden: Tensor
    """[M, H] of every token, row after row, after the final norm."""

    starts: Tensor
    """int64 [N]: where each row begins."""

    def before(self, mask: Tensor) -> Tensor:
        """[K, H] of the tokens before the masked ones of [N, T], row by row."""
        rows, columns = mask.nonzero(as_tuple=True)
        return self.hidden[self.starts[rows] + columns - 1]

    def last(self, batch: Sequences) -> Tensor:
        """[N, H] of each row's last token."""
        return self.hidden[self.starts + batch.attention_mask.sum(1) - 1]


def states_of(model: DecoderLM, batch: Sequences, dtype: torch.dtype = torch.float32) -> States:
    """Run the model on a batch.

    Args:
        model: a decoder.
        batch: of any kind.
        dtype: in which products are computed (autocast for bfloat16).
    """
    text = batch.attention_mask
    rows, columns = text.nonzero(as_tuple=True)
    lengths = text.sum(1)
    ids = batch.input_ids[text]
    with torch.autocast(ids.device.type, dtype, enabled=dtype == torch.bfloat16):
        hidden = model.hidden(ids[None], position_ids=columns[None], document_ids=rows[None])[0]
    return States(hidden, lengths.cumsum(0) - lengths)


def policy_logp(
    model: DecoderLM,
    states: States,
    batch: Sequences,
    *,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    dtype: torch.dtype = torch.float32,
    entropy: Literal[False, True, "gradient"] = False,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of tokens.

    Args:
        model: whose head is used.
        states: of the batch.
        batch: of any kind.
        mask: [N, T] tokens that are wanted, none in the first column; default the actions.
        temperature: logits are divided by it, as when they were sampled.
        dtype: of the product with the head.
        entropy: also that of each wanted token's distribution, without or with a gradient.

    Returns:
        [N, T] float32 log-probabilities, 0 where none is wanted, with a gradient; and entropies
        alike, or None.
    """
    mask = batch.action_mask if mask is None else mask
    found = token_logprobs(
        states.before(mask).to(dtype),
        model.lm_head.weight,
        batch.input_ids[mask],
        temperature=temperature,
        entropy=entropy,
    )
    logp = _laid_out(found.logp, mask)
    return logp, None if found.entropy is None else _laid_out(found.entropy, mask)


@dataclass(frozen=True, slots=True)
class ActionScores:
    """Logits of a batch's actions, as value-based methods need them; [N, T], 0 elsewhere."""

    advantage: Tensor
    """alpha (logit of the token - the largest logit), with a gradient."""

    greedy: Tensor
    """int64: the token of the largest logit."""


def action_scores(
    model: DecoderLM,
    states: States,
    batch: Sequences,
    *,
    tokens: Tensor | None = None,
    alpha: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> ActionScores:
    """Advantages of tokens over the likeliest ones.

    Args:
        model: whose head is used.
        states: of the batch.
        batch: of any kind.
        tokens: int64 [N, T], of which the advantage is; default the batch's own.
        alpha: scale of logits.
        dtype: of the product with the head.
    """
    mask = batch.action_mask
    ids = (batch.input_ids if tokens is None else tokens)[mask]
    found = token_scores(states.before(mask).to(dtype), model.lm_head.weight, ids)
    greedy = torch.zeros_like(batch.input_ids).masked_scatter(mask, found.argmax)
    return ActionScores(_laid_out(alpha * (found.logit - found.max_logit), mask), greedy)


def values_of(head: Callable[[Tensor], Tensor], states: States, mask: Tensor) -> Tensor:
    """[N, T] float32: what ``head`` makes of the state before each masked token; 0 elsewhere."""
    return _laid_out(head(states.before(mask).float()).squeeze(-1), mask)


def _laid_out(values: Tensor, mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape, dtype=values.dtype, device=mask.device).masked_scatter(
        mask, values
    )
