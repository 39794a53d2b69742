"""Perplexity of a long text by sliding windows, and the loss of a held-out split.

With window W and stride s <= W, window k covers tokens k s .. k s + W - 1 and scores those that no
earlier window scored; every token is predicted from the window's tokens before it::

    perplexity = exp(mean of -log p(x_t | x_{k s} .. x_{t-1}))

The very first token has no context. With s = W (no overlap) neither has any window's first token,
so it is not scored. A smaller stride gives each token at least W - s tokens of context, at W / s
times the cost. Sums are kept in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sharpen.core.errors import ConfigError, DataError
from sharpen.data.shards import IGNORE, PADDING, TokenDataset
from sharpen.data.shards import Sequence as Row
from sharpen.eval.scoring import evaluating, token_nats
from sharpen.models.decoder import DecoderLM

__all__ = ["dataset_loss", "perplexity", "windowed_loss"]

OnProgress = Callable[[float], None]


def perplexity(
    model: DecoderLM,
    ids: Sequence[int],
    *,
    window: int = 512,
    stride: int | None = None,
    on_progress: OnProgress | None = None,
) -> float:
    """Perplexity of one long text; see :func:`windowed_loss` for arguments and errors.

    Examples:
        >>> from sharpen.eval import perplexity
        >>> from sharpen.models import DecoderLM, ModelSpec
        >>> spec = ModelSpec(
        ...     family="llama",
        ...     vocab_size=16,
        ...     hidden_size=8,
        ...     intermediate_size=16,
        ...     num_layers=1,
        ...     num_heads=2,
        ...     num_kv_heads=1,
        ...     head_dim=4,
        ...     max_positions=32,
        ... )
        >>> model = DecoderLM(spec)
        >>> model.init_weights(0, std=0.0)
        >>> round(perplexity(model, list(range(16)), window=8), 4)  # a uniform guess among 16
        16.0
    """
    loss, _ = windowed_loss(model, ids, window=window, stride=stride, on_progress=on_progress)
    return math.exp(loss)


def windowed_loss(
    model: DecoderLM,
    ids: Sequence[int],
    *,
    window: int = 512,
    stride: int | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[float, int]:
    """Mean loss of one long text.

    Args:
        model: any decoder, quantized or not.
        ids: the text's tokens, at least 2.
        window: tokens seen at once, 2 to the model's context length.
        stride: tokens from one window to the next, 1 to ``window``; default ``window``.
        on_progress: is told how many more tokens are done.

    Returns:
        Mean nats a scored token, and the number of scored tokens.

    Raises:
        ConfigError: a window or stride out of range.
        DataError: fewer than 2 tokens, or an id outside the vocabulary.
    """
    stride = window if stride is None else stride
    if not 2 <= window <= model.spec.max_positions:
        raise ConfigError(
            f"window={window} must be from 2 to the model's context of {model.spec.max_positions}."
        )
    if not 1 <= stride <= window:
        raise ConfigError(f"stride={stride} must be from 1 to window={window}.")
    if len(ids) < 2:
        raise DataError(f"the text has {len(ids)} tokens; perplexity needs at least 2.")
    _check_tokens(max(ids) if min(ids) >= 0 else min(ids), model)
    device = model.model.norm.weight.device
    tokens = torch.tensor(ids, dtype=torch.int64, device=device)
    total, count = 0.0, 0
    with evaluating(model):
        for begin, first, end in _windows(len(ids), window, stride):
            hidden = model.hidden(tokens[None, begin : end - 1])[0, first - 1 - begin :]
            total += float(token_nats(model, hidden, tokens[first:end]).sum())
            count += end - first
            if on_progress is not None:
                on_progress(end - first)
    return total / count, count


def _check_tokens(token: int, model: DecoderLM) -> None:
    if not 0 <= token < model.spec.vocab_size:
        raise DataError(
            f"a token id is outside 0..{model.spec.vocab_size - 1}: wrong tokenizer for this model."
        )


def _windows(length: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(begin, first scored token, end) of each window that scores something."""
    scored = 0
    for begin in range(0, length, stride):
        end = min(begin + window, length)
        first = max(scored, begin + 1)
        if first < end:
            yield begin, first, end
        scored = end
        if end == length:
            return


def dataset_loss(
    model: DecoderLM,
    dataset: TokenDataset,
    *,
    limit: int | None = None,
    batch_size: int = 4,
    on_progress: OnProgress | None = None,
) -> tuple[float, int]:
    """Mean loss over the labels of a split; attention stays within each document.

    Args:
        model: any decoder, quantized or not.
        dataset: a split, read in its stored order.
        limit: only so many examples (documents); default all.
        batch_size: rows at once.
        on_progress: is told how many more examples are done.

    Returns:
        Mean nats a label, and the number of labels.

    Raises:
        ConfigError: ``limit`` or ``batch_size`` below 1, or rows longer than the model's context.
        DataError: no label among the examples, or tokens that the model does not know.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit={limit} must be at least 1.")
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size} must be at least 1.")
    if dataset.max_tokens > model.spec.max_positions:
        raise ConfigError(
            f"the data set's sequences have {dataset.max_tokens} tokens and the model's context "
            f"is {model.spec.max_positions}. Make the data set with a smaller max_tokens."
        )
    device = model.model.norm.weight.device
    total, count = 0.0, 0
    with evaluating(model):
        for rows, examples in _batches(dataset, limit, batch_size):
            used = max(int(np.count_nonzero(r.document_ids != PADDING)) for r in rows)
            input_ids, labels, positions, documents = (
                torch.from_numpy(np.stack([getattr(r, name)[:used] for r in rows])).to(device)
                for name in ("input_ids", "labels", "position_ids", "document_ids")
            )
            _check_tokens(max(int(input_ids.max()), int(labels.max())), model)
            hidden = model.hidden(input_ids, position_ids=positions, document_ids=documents)
            learned = labels != IGNORE
            total += float(token_nats(model, hidden[learned], labels[learned]).sum())
            count += int(learned.sum())
            if on_progress is not None:
                on_progress(examples)
    if count == 0:
        raise DataError(
            f"the split '{dataset.split}' of {dataset.folder} has no label among its first "
            f"{limit if limit is not None else 'rows'} examples; raise the limit."
        )
    return total / count, count


def _batches(
    dataset: TokenDataset, limit: int | None, batch_size: int
) -> Iterator[tuple[list[Row], int]]:
    """Rows in order, cut off after ``limit`` examples, with the number of examples in each."""
    rows: list[Row] = []
    examples = done = 0
    for index in range(len(dataset)):
        row = dataset[index]
        here = int(row.document_ids.max()) + 1
        if limit is not None and done + here > limit:
            here = limit - done
            row = _first_documents(row, here)
        rows.append(row)
        examples += here
        done += here
        if len(rows) == batch_size or done == limit:
            yield rows, examples
            rows, examples = [], 0
        if done == limit:
            return
    if rows:
        yield rows, examples


def _first_documents(row: Row, count: int) -> Row:
    """The row with everything past its first ``count`` documents turned into padding."""
    gone = row.document_ids >= count

    def blank(array: NDArray[np.int64], value: int) -> NDArray[np.int64]:
        return np.where(gone, value, array)

    return Row(
        input_ids=row.input_ids,
        labels=blank(row.labels, IGNORE),
        position_ids=blank(row.position_ids, 0),
        document_ids=blank(row.document_ids, PADDING),
    )
