"""Texts with answers from files, and what answers cost when a policy has read the prompt.

::

    nats of an answer    -sum log p(a_i | what is kept of the prompt, a_1 .. a_(i-1))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sharpen.compress.kv.locret import RetainingHeads
from sharpen.compress.kv.locret_training import AnsweredText, read_lesson
from sharpen.compress.kv.policy import KVPolicy
from sharpen.compress.kv.text import KeptText
from sharpen.core.errors import DataError
from sharpen.data.formats import Format, encode_rows, normalize
from sharpen.data.readers import locate_rows
from sharpen.models.decode import InferenceLM
from sharpen.models.tokenizer import Tokenizer

__all__ = ["PolicyScore", "answer_nats", "answered_texts", "compare_policies", "heads_quality"]

_KEYS: dict[str, Format] = {
    "messages": "chat",
    "prompt": "prompt_completion",
    "instruction": "alpaca",
}


def answered_texts(
    source: str | Path, tokenizer: Tokenizer, *, limit: int | None = None
) -> list[AnsweredText]:
    """Prompts and answers of a file.

    Args:
        source: a file or folder of JSONL or Parquet, rows with ``messages`` (the last turn of the
            assistant is the answer), ``prompt`` and ``completion``, or ``instruction`` and
            ``output``.
        tokenizer: the model's.
        limit: so many at most.

    Raises:
        MissingFileError: no such file.
        DataError: a row has none of these keys, or no row has a prompt and an answer.
    """
    texts: list[AnsweredText] = []
    for where, row in locate_rows(Path(source)):
        if limit is not None and len(texts) >= limit:
            break
        form = next((form for key, form in _KEYS.items() if key in row), None)
        if form is None:
            raise DataError(
                f"{where}: no key is messages, prompt or instruction; found: "
                f"{', '.join(map(str, row)) or 'none'}."
            )
        (document,) = encode_rows([normalize(row, form, where)], tokenizer)
        text = _split(document.ids, document.learned)
        if text is not None:
            texts.append(text)
    if not texts:
        raise DataError(f"{source} has no prompt with an answer.")
    return texts


def _split(ids: Sequence[int], learned: Sequence[bool]) -> AnsweredText | None:
    """The last run of learned tokens is the answer; None where nothing is before it."""
    end = len(ids)
    while end and not learned[end - 1]:
        end -= 1
    start = end
    while start and learned[start - 1]:
        start -= 1
    if start < 2 or start == end:
        return None
    return AnsweredText(ids[:start], ids[start:end])


def answer_nats(model: InferenceLM, policy: KVPolicy | None, text: AnsweredText) -> float:
    """Nats of an answer, in all, after the prompt was read under a policy; None keeps all."""
    reader = KeptText(model, policy, len(text.prompt), new_tokens=len(text.answer))
    logits = [reader.read(text.prompt)]
    if len(text.answer) > 1:
        logits.append(reader.read(text.answer[:-1], wanted=len(text.answer) - 1))
    chances = torch.log_softmax(torch.cat(logits).double(), -1)
    answer = torch.tensor(text.answer, device=chances.device)
    return -float(chances.gather(1, answer[:, None]).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyScore:
    """What answers cost under a policy."""

    nats: float
    """Mean of a token of the answers."""

    kept: float
    """Share of keys and values that is stored when the prompt has been read, mean over texts."""

    @property
    def perplexity(self) -> float:
        """exp(nats)."""
        return math.exp(self.nats)


def compare_policies(
    model: InferenceLM,
    policies: Mapping[str, KVPolicy | None],
    texts: Sequence[AnsweredText],
    *,
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, PolicyScore]:
    """The same answers under several policies; None keeps all.

    Args:
        model: prepared for inference.
        policies: by name.
        texts: at least one.
        on_progress: is told of each text that was read under a policy.
    """
    tokens = sum(len(text.answer) for text in texts)
    found = {}
    for name, policy in policies.items():
        nats, kept = 0.0, 0.0
        for text in texts:
            nats += answer_nats(model, policy, text)
            prompt = len(text.prompt)
            dropped = policy.plan(prompt).dropped(prompt) if policy is not None else 0
            kept += (1 - dropped / prompt) / len(texts)
            if on_progress is not None:
                on_progress(1)
        found[name] = PolicyScore(nats=nats / tokens, kept=kept)
    return found


def heads_quality(
    model: InferenceLM, heads: RetainingHeads, texts: Sequence[AnsweredText]
) -> tuple[float, float]:
    """Loss (without smoothness) and overlap of heads on texts, means."""
    lessons = [read_lesson(model, heads, text, 0.0, learns=False) for text in texts]
    count = len(lessons)
    return sum(one.loss for one in lessons) / count, sum(one.overlap for one in lessons) / count
