"""A policy's log-probabilities and values of a batch, from one pass without padding.

The rows of a batch are laid end to end, each a document of its own, so that no product is spent on
padding, but for a few tokens where their number decides which products are fast. Completions of one
prompt share it: it is a document of its own, from which they go on, and is computed once with its
gradients added up. Logits exist for a few action tokens at a time (:mod:`sharpen.align.logprobs`)::

    [N, T] rows  ->  [1, M] tokens  ->  states [M, H]  ->  logp of actions  ->  [N, T]

Legend: N rows, T tokens of the widest, M tokens in all, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.align.logprobs import token_logprobs, token_scores
from sharpen.align.sequences import Sequences
from sharpen.models.decoder import DecoderLM
from sharpen.models.matmul import ROUND, prefers_onednn

__all__ = ["ActionScores", "States", "action_scores", "policy_logp", "states_of", "values_of"]


_SHORTEST = 8  # tokens that are worth being shared


@dataclass(frozen=True, slots=True)
class States:
    """The model's states of a batch."""

    hidden: Tensor
    """[M, H] of every token, after the final norm."""

    places: Tensor
    """int64 [N, T]: where the state of each token of the text lies."""

    def before(self, mask: Tensor) -> Tensor:
        """[K, H] of the tokens before the masked ones of [N, T], row by row."""
        rows, columns = mask.nonzero(as_tuple=True)
        return self.hidden[self.places[rows, columns - 1]]

    def last(self, batch: Sequences) -> Tensor:
        """[N, H] of each row's last token."""
        lengths = batch.attention_mask.sum(1, keepdim=True)
        return self.hidden[self.places.gather(1, lengths - 1)[:, 0]]


def states_of(model: DecoderLM, batch: Sequences, dtype: torch.dtype = torch.float32) -> States:
    """Run the model on a batch.

    Args:
        model: a decoder.
        batch: of any kind.
        dtype: in which products are computed (autocast for bfloat16).
    """
    rows = _end_to_end(batch)
    count = len(rows.ids)
    if dtype == torch.float32 and rows.ids.device.type == "cpu" and prefers_onednn():
        rows = rows.filled(-count % ROUND)
    with torch.autocast(rows.ids.device.type, dtype, enabled=dtype == torch.bfloat16):
        hidden = model.hidden(
            rows.ids[None],
            position_ids=rows.positions[None],
            document_ids=rows.documents[None],
            follows=rows.follows,
        )
    return States(hidden[0, :count], rows.places)


@dataclass(frozen=True, slots=True)
class _EndToEnd:
    ids: Tensor
    """int64 [M], with ``positions`` and ``documents`` alike."""
    positions: Tensor
    documents: Tensor
    follows: list[int | None] | None
    places: Tensor

    def filled(self, more: int) -> _EndToEnd:
        """With a document of ``more`` tokens after the others, which nothing looks at."""
        return replace(
            self,
            ids=F.pad(self.ids, (0, more)),
            positions=F.pad(self.positions, (0, more)),
            documents=F.pad(self.documents, (0, more), value=-1),
            follows=[*self.follows, None] if self.follows is not None and more else self.follows,
        )


def _end_to_end(batch: Sequences) -> _EndToEnd:
    """The batch's texts, prompts that several rows begin with once."""
    text = batch.attention_mask
    places = torch.zeros_like(batch.input_ids)
    groups = _by_prompt(batch)
    if groups is None:
        rows, columns = text.nonzero(as_tuple=True)
        places[text] = torch.arange(len(rows), device=rows.device)
        return _EndToEnd(batch.input_ids[text], columns, rows, None, places)
    parts: list[tuple[int, int, int]] = []  # row, first and last column
    follows: list[int | None] = []
    lengths = text.sum(1).tolist()
    at = 0
    for shared, rows_of in groups:
        prompt = None
        if shared:
            prompt = len(parts)
            parts.append((rows_of[0], 0, shared))
            follows.append(None)
            places[rows_of, :shared] = torch.arange(at, at + shared, device=places.device)
            at += shared
        for row in rows_of:
            count = lengths[row] - shared
            parts.append((row, shared, lengths[row]))
            follows.append(prompt)
            places[row, shared : lengths[row]] = torch.arange(at, at + count, device=places.device)
            at += count
    sizes = torch.tensor([last - first for _, first, last in parts], device=places.device)
    device = places.device
    return _EndToEnd(
        torch.cat([batch.input_ids[row, first:last] for row, first, last in parts]),
        torch.cat([torch.arange(first, last, device=device) for _, first, last in parts]),
        torch.arange(len(parts), device=device).repeat_interleave(sizes),
        follows,
        places,
    )


def _by_prompt(batch: Sequences) -> list[tuple[int, list[int]]] | None:
    """Rows that begin with the same prompt, and its length; None where no prompt is shared.

    Rows that share nothing stand alone, with length 0.
    """
    acts = batch.action_mask
    first = torch.where(acts.any(1), acts.int().argmax(1), 0).tolist()
    ids = batch.input_ids.cpu().numpy()
    found: dict[object, list[int]] = {}
    for row, length in enumerate(first):
        key = ids[row, :length].tobytes() if length >= _SHORTEST else row
        found.setdefault(key, []).append(row)
    if len(found) == len(first):
        return None
    return [(first[rows[0]] if len(rows) > 1 else 0, rows) for rows in found.values()]


def policy_logp(
    model: DecoderLM,
    states: States,
    batch: Sequences,
    *,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    dtype: torch.dtype = torch.float32,
    entropy: Literal[False, True, "gradient"] = False,
    expected: Tensor | None = None,
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
        expected: [N, T] what the loss will send back, where that is known.

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
        expected=None if expected is None else expected[mask],
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
