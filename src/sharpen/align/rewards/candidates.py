"""Candidates of one prompt, scored: rows for RRHF, and the best ones for rejection sampling.

As PerfRL builds its lists (Duan et al., 2023, arXiv 2312.05657): samples of the model, greedy and
drawn, beside the programs of the data set, so that a right one is in every list. What says the same
twice counts once: programs by their syntax tree, other texts but for space, since doubles would
inflate the ranking loss. Lists whose scores are all the same teach nothing and are left out.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sharpen.align.rewards.pool import RewardPool
from sharpen.align.rewards.verdict import code_in
from sharpen.align.rows.parse import Row
from sharpen.core.errors import DataError

__all__ = ["CandidateRows", "best_rows", "distinct", "ranked_rows", "same_form"]


@dataclass(frozen=True, slots=True)
class CandidateRows:
    """Rows that were made, and what was left out."""

    rows: list[dict[str, Any]]
    dropped: dict[str, int]
    """Candidates and rows by reason: ``double``, the reasons of a reward pool, ``one candidate``,
    ``no difference``, ``below the least``."""


def same_form(text: str) -> str:
    r"""A text that is the same for two programs that differ in layout and remarks alone.

    Of what is no program in Python, nor has one between fences, the words.

    Examples:
        >>> same_form("x = 1  # one") == same_form("x=1\n")
        True
        >>> same_form("a  b\n") == same_form("a b")
        True
    """
    try:
        return ast.dump(ast.parse(code_in(text)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return " ".join(text.split())


def distinct(texts: Iterable[str]) -> list[str]:
    """The texts without those that say the same as an earlier one."""
    found: dict[str, str] = {}
    for text in texts:
        found.setdefault(same_form(text), text)
    return list(found.values())


def ranked_rows(
    rows: Sequence[Row], candidates: Sequence[Sequence[str]], pool: RewardPool
) -> CandidateRows:
    """Rows of the format ``ranked``: of each prompt the row's own completions and the candidates.

    Args:
        rows: with plain prompts; their completions are candidates, too.
        candidates: [rows] what a model wrote.
        pool: scores them.

    Raises:
        DataError: there are not candidates for each row, or a row is a conversation.
    """
    dropped: Counter[str] = Counter()
    made = []
    for row, texts, scores in _scored(rows, candidates, pool, dropped):
        if len(texts) < 2:
            dropped["one candidate"] += 1
        elif len(set(scores)) == 1:
            dropped["no difference"] += 1
        else:
            made.append({**row.meta, "query": row.prompt, "responses": texts, "scores": scores})
    return CandidateRows(made, {name: count for name, count in dropped.items() if count})


def best_rows(
    rows: Sequence[Row],
    candidates: Sequence[Sequence[str]],
    pool: RewardPool,
    *,
    least: float,
    keep: int = 1,
) -> CandidateRows:
    """Rows of the format ``completion``: the best candidates of each prompt (best of n).

    Args:
        rows: with plain prompts.
        candidates: [rows] what a model wrote.
        pool: scores them.
        least: reward that a candidate must have.
        keep: of a prompt, so many at most.

    Raises:
        DataError: as :func:`ranked_rows`.
    """
    dropped: Counter[str] = Counter()
    made = []
    for row, texts, scores in _scored(rows, candidates, pool, dropped):
        order = sorted(range(len(texts)), key=lambda i: -scores[i])
        good = [i for i in order if scores[i] >= least]
        dropped["below the least"] += len(order) - len(good)
        made += [
            {**row.meta, "prompt": row.prompt, "completion": texts[i], "reward": scores[i]}
            for i in good[:keep]
        ]
    return CandidateRows(made, {name: count for name, count in dropped.items() if count})


def _scored(
    rows: Sequence[Row],
    candidates: Sequence[Sequence[str]],
    pool: RewardPool,
    dropped: Counter[str],
) -> list[tuple[Row, list[str], list[float]]]:
    if len(rows) != len(candidates):
        raise DataError(f"{len(rows)} rows and {len(candidates)} lists of candidates do not fit.")
    pending = []
    for row, some in zip(rows, candidates, strict=True):
        if row.is_conversation:
            raise DataError(f"{row.where}: candidates need plain prompts, not conversations.")
        own = [text for text in row.completions if isinstance(text, str)]
        texts = distinct([*own, *some])
        dropped["double"] += len(own) + len(some) - len(texts)
        asked = pool.submit([row.prompt] * len(texts), texts, [row.meta] * len(texts))
        pending.append((row, texts, asked))
    found = []
    for row, texts, asked in pending:
        rewards = asked.result()
        dropped.update(reason for reason in rewards.reasons if reason)
        pairs = [(t, v) for t, v in zip(texts, rewards.values, strict=True) if v is not None]
        found.append((row, [text for text, _ in pairs], [value for _, value in pairs]))
    return found
