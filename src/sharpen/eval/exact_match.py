"""Exact match of generated answers.

An answer counts when, after normalization, it equals one of the accepted texts. Normalization, in
this order: take a part of the answer (``extract``), then lower case, drop punctuation, drop English
articles, and squeeze white space (the steps of Rajpurkar et al., SQuAD, 2016, each optional).
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from dataclasses import dataclass

from sharpen.core.errors import DataError
from sharpen.eval.config import ExactMatchConfig
from sharpen.eval.tasks import Task
from sharpen.models.decoder import DecoderLM
from sharpen.models.generation import generate
from sharpen.models.tokenizer import Tokenizer

__all__ = ["ExactMatchResult", "normalize_answer", "score_exact_match"]

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactMatchResult:
    """Outcome of an exact-match task."""

    name: str
    """The task's name."""

    exact_match: float
    """Share of questions answered right."""

    count: int
    """Number of questions."""

    outputs: tuple[str, ...]
    """What was generated, in order."""


def normalize_answer(text: str, config: ExactMatchConfig) -> str:
    r"""An answer as it is compared.

    Examples:
        >>> normalize_answer(" The answer: 1,024.\nSure.", ExactMatchConfig(ignore_articles=True))
        'answer 1024'
        >>> normalize_answer("so 3 + 4 = 7", ExactMatchConfig(extract="last_number"))
        '7'
    """
    if config.extract == "last_number":
        numbers = _NUMBER.findall(text)
        return str(numbers[-1]).replace(",", "") if numbers else ""
    if config.extract == "first_line":
        text = next((line for line in text.splitlines() if line.strip()), "")
    if config.ignore_case:
        text = text.lower()
    if config.ignore_punctuation:
        text = text.translate(_PUNCTUATION)
    if config.ignore_articles:
        text = _ARTICLES.sub(" ", text)
    return " ".join(text.split())


def score_exact_match(
    model: DecoderLM,
    tokenizer: Tokenizer,
    task: Task,
    config: ExactMatchConfig | None = None,
    *,
    limit: int | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> ExactMatchResult:
    """Answer a task's questions greedily and compare.

    Args:
        model: any decoder, quantized or not.
        tokenizer: its tokenizer.
        task: of kind ``exact_match``.
        config: how to generate and compare.
        limit: only so many questions; default all.
        on_progress: is told how many more questions are done.

    Raises:
        DataError: the task is of another kind, or a question does not fit the model's context.
    """
    if task.kind != "exact_match":
        raise DataError(f"the task '{task.name}' is of kind {task.kind}; it has choices.")
    config = config or ExactMatchConfig()
    questions = task.questions[:limit]
    prompts = [tokenizer.encode(question.text(tokenizer)) for question in questions]
    room = model.spec.max_positions - config.max_new_tokens
    for question, ids in zip(questions, prompts, strict=True):
        if len(ids) > room:
            raise DataError(
                f"{question.where}: the prompt has {len(ids)} tokens; with max_new_tokens="
                f"{config.max_new_tokens} the model's context holds {max(room, 0)}."
            )
    stop = {i for i in (*model.spec.eos_token_ids, tokenizer.eos_id) if i is not None}
    outputs: list[str] = []
    for start in range(0, len(prompts), config.batch_size):
        batch = prompts[start : start + config.batch_size]
        found = generate(model, batch, max_new_tokens=config.max_new_tokens, stop_ids=stop)
        outputs += [tokenizer.decode(generation.ids) for generation in found]
        if on_progress is not None:
            on_progress(len(batch))
    right = 0
    for question, output in zip(questions, outputs, strict=True):
        accepted = {normalize_answer(answer, config) for answer in question.answers}
        right += normalize_answer(output, config) in accepted
    return ExactMatchResult(
        name=task.name,
        exact_match=right / len(questions),
        count=len(questions),
        outputs=tuple(outputs),
    )
