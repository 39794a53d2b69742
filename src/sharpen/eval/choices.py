"""Multiple choice by log-likelihood.

For a prompt x and choices y_1 .. y_n::

    acc       the right choice has the largest   log p(y_i | x)
    acc_norm  the right choice has the largest   log p(y_i | x) / bytes(y_i)

Prompt and choice are tokenized as one text, with the prompt's trailing spaces moved to the choice,
so that tokens at the seam are those the model would see. What all choices begin with is computed
once, into a key/value cache whose row is then repeated for the choices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from sharpen.core.errors import DataError
from sharpen.eval.scoring import evaluating, token_nats
from sharpen.eval.tasks import Task
from sharpen.models.decoder import DecoderLM
from sharpen.models.tokenizer import Tokenizer

__all__ = ["ChoiceResult", "choice_log_likelihoods", "score_choices"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceResult:
    """Outcome of a multiple-choice task."""

    name: str
    """The task's name."""

    acc: float
    """Share of questions whose right choice is the most likely."""

    acc_norm: float
    """The same with log-likelihoods divided by the choice's bytes in UTF-8."""

    count: int
    """Number of questions."""


def encode_choice(tokenizer: Tokenizer, prompt: str, choice: str) -> tuple[list[int], int]:
    """Tokens of prompt and choice as one text, and how many of them belong to the prompt."""
    stripped = prompt.rstrip(" ")
    whole = tokenizer.encode(prompt + choice)
    # At least one token of context and one to be predicted, even where both fuse into one token.
    context = min(len(tokenizer.encode(stripped or prompt)), len(whole) - 1)
    return whole, context


def choice_log_likelihoods(
    model: DecoderLM, encoded: Sequence[tuple[Sequence[int], int]]
) -> list[float]:
    """Log-likelihood of each choice after its context, in nats.

    Args:
        model: any decoder, quantized or not.
        encoded: token ids of context and choice together, and the number of context tokens (>= 1).

    Raises:
        DataError: a choice without a token or a context, or longer than the model's context length.
    """
    for ids, context in encoded:
        if not 1 <= context < len(ids):
            raise DataError(
                f"a choice needs at least one token after at least one of context; got {context} "
                f"of {len(ids)} tokens as context."
            )
        if len(ids) - 1 > model.spec.max_positions:
            raise DataError(
                f"prompt and choice have {len(ids)} tokens; the model's context is "
                f"{model.spec.max_positions}."
            )
    shared = _shared_prefix(encoded)
    rest = [list(ids[shared:-1]) for ids, _ in encoded]
    width = max(map(len, rest))
    device = model.model.norm.weight.device
    with evaluating(model):
        cache = model.new_cache(1, capacity=shared + width)
        if shared:
            prefix = torch.tensor([list(encoded[0][0][:shared])], device=device)
            model.hidden(prefix, cache=cache)
        cache.select(torch.zeros(len(encoded), dtype=torch.int64, device=device))
        # Padding on the right is never seen: attention is causal and its outputs are not scored.
        padded = torch.tensor([r + [0] * (width - len(r)) for r in rest], device=device)
        hidden = model.hidden(padded, cache=cache)
        scores = []
        for row, (ids, context) in enumerate(encoded):
            targets = torch.tensor(ids[context:], device=device)
            states = hidden[row, context - 1 - shared : len(ids) - 1 - shared]
            scores.append(-float(token_nats(model, states, targets).sum()))
    return scores


def _shared_prefix(encoded: Sequence[tuple[Sequence[int], int]]) -> int:
    """Tokens that all begin with, short of the position that predicts the first choice token."""
    limit = min(context for _, context in encoded) - 1
    first = encoded[0][0]
    for place in range(limit):
        if any(ids[place] != first[place] for ids, _ in encoded):
            return place
    return limit


def score_choices(
    model: DecoderLM,
    tokenizer: Tokenizer,
    task: Task,
    *,
    limit: int | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> ChoiceResult:
    """Score a multiple-choice task.

    Args:
        model: any decoder, quantized or not.
        tokenizer: its tokenizer.
        task: of kind ``choice``.
        limit: only so many questions; default all.
        on_progress: is told how many more questions are done.

    Raises:
        DataError: the task is of another kind, or a question does not fit the model's context.
    """
    if task.kind != "choice":
        raise DataError(f"the task '{task.name}' has no choices; it is of kind {task.kind}.")
    questions = task.questions[:limit]
    right = right_norm = 0
    for question in questions:
        prompt = question.text(tokenizer)
        encoded = [encode_choice(tokenizer, prompt, choice) for choice in question.choices]
        try:
            scores = choice_log_likelihoods(model, encoded)
        except DataError as error:
            raise DataError(f"{question.where}: {error}") from None
        sizes = [len(choice.encode()) for choice in question.choices]
        normed = [score / size for score, size in zip(scores, sizes, strict=True)]
        right += scores.index(max(scores)) == question.answer
        right_norm += normed.index(max(normed)) == question.answer
        if on_progress is not None:
            on_progress(1)
    count = len(questions)
    return ChoiceResult(name=task.name, acc=right / count, acc_norm=right_norm / count, count=count)
