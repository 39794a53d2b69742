"""What is in a file of feedback, before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sharpen.align.rows.parse import Kind, Row, Text
from sharpen.align.rows.read import rows_with_faults
from sharpen.align.rows.tokens import tokenize_rows
from sharpen.core.errors import DataError
from sharpen.models.tokenizer import Tokenizer

__all__ = ["RowsReport", "inspect_rows"]

_QUANTILES = (0.0, 0.5, 0.9, 0.99, 1.0)
_EXAMPLES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class RowsReport:
    """What :func:`inspect_rows` found."""

    path: str
    kind: Kind
    rows: int
    """Good rows."""

    conversations: int
    """Of these, how many are lists of messages."""

    bad: dict[str, int] = field(default_factory=dict)
    """Bad rows by reason."""

    bad_examples: list[str] = field(default_factory=list)
    """Messages of the first few: file, line and key."""

    unit: str = "characters"
    """What lengths are counted in: ``characters``, or ``tokens`` with a tokenizer."""

    lengths: dict[str, dict[str, float]] = field(default_factory=dict)
    """By part (``prompt``, ``completion``, or ``chosen`` and ``rejected``, ``total``): ``min``,
    ``median``, ``p90``, ``p99`` and ``max``."""

    duplicates: int = 0
    """Rows whose texts an earlier row has, all of them."""

    repeated_prompts: int = 0
    """Rows whose prompt an earlier row has."""

    balance: dict[str, float] = field(default_factory=dict)
    """Of labels: ``desirable`` and ``undesirable``. Of preferences: ``chosen_longer``, the share of
    pairs in which the chosen one is the longer. Of ranked rows: ``candidates`` a query on average,
    and ``ties``, the share of queries whose scores are all the same. Of trajectories:
    ``successful`` and ``failed``, which are not learnt from unless that is asked for."""

    unusable: dict[str, int] = field(default_factory=dict)
    """Rows that cannot be made into tokens, or are too long, by reason."""

    keys: dict[str, int] = field(default_factory=dict)
    """Further keys, and how many rows have them."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.rows} rows of the format '{self.kind}'"]
        if self.conversations:
            lines[0] += f", {self.conversations} of them conversations"
        if self.bad:
            told = ", ".join(f"{reason} ({count})" for reason, count in self.bad.items())
            lines.append(f"bad rows: {sum(self.bad.values())}: {told}")
            lines += [f"  {example}" for example in self.bad_examples]
        for reason, count in self.unusable.items():
            lines.append(f"not usable: {count}: {reason}")
        for part, found in self.lengths.items():
            numbers = ", ".join(f"{name} {value:g}" for name, value in found.items())
            lines.append(f"{part} ({self.unit}): {numbers}")
        lines.append(f"duplicates: {self.duplicates}; repeated prompts: {self.repeated_prompts}")
        if self.balance:
            told = ", ".join(f"{name} {value:g}" for name, value in self.balance.items())
            lines.append(f"balance: {told}")
        if self.keys:
            lines.append("further keys: " + ", ".join(f"{k} ({n})" for k, n in self.keys.items()))
        return "\n".join(lines)


def inspect_rows(
    path: str | Path,
    tokenizer: Tokenizer | None = None,
    *,
    max_length: int | None = None,
    use_template: bool = False,
) -> RowsReport:
    """Look at a file of feedback; bad rows are counted, not raised.

    Args:
        path: as of :func:`~sharpen.align.rows.read_feedback`.
        tokenizer: count tokens, as training would; without one characters.
        max_length: tokens of a sequence; rows that have more are counted as unusable.
        use_template: as of :func:`~sharpen.align.rows.tokenize_rows`.

    Raises:
        MissingFileError: there is no such file.
        DataError: there is no good row.
    """
    rows: list[Row] = []
    bad: Counter[str] = Counter()
    examples: list[str] = []
    for row, fault in rows_with_faults(path):
        if row is not None:
            rows.append(row)
        elif fault is not None:
            bad[fault.reason] += 1
            if len(examples) < _EXAMPLES:
                examples.append(str(fault))
    if not rows:
        first = f" The first bad one: {examples[0]}" if examples else ""
        raise DataError(f"{path} has no good row.{first}")
    unusable: Counter[str] = Counter()
    sizes: list[tuple[int, list[int]]] = []
    for row in rows:
        if tokenizer is None:
            sizes.append((_size(row.prompt), [_size(one) for one in row.completions]))
            continue
        try:
            found = tokenize_rows(
                [row], tokenizer, max_length=max_length, on_long="drop", use_template=use_template
            )
        except DataError as error:
            unusable[str(error).removeprefix(f"{row.where}: ")] += 1
            continue
        unusable.update(found.dropped)
        sizes += [(len(one.prompt), [len(c) for c in one.completions]) for one in found.rows]
    texts = [repr((row.prompt, row.completions)) for row in rows]
    prompts = [repr(row.prompt) for row in rows if row.kind != "messages"]
    return RowsReport(
        path=str(path),
        kind=rows[0].kind,
        rows=len(rows),
        conversations=sum(row.is_conversation for row in rows),
        bad=dict(bad),
        bad_examples=examples,
        unit="characters" if tokenizer is None else "tokens",
        lengths=_lengths(rows[0].kind, sizes),
        duplicates=len(texts) - len(set(texts)),
        repeated_prompts=len(prompts) - len(set(prompts)),
        balance=_balance(rows),
        unusable=dict(unusable),
        keys=dict(Counter(key for row in rows for key in row.meta)),
    )


def _size(text: Text) -> int:
    if isinstance(text, str):
        return len(text)
    contents = (message.get("content") or "" for message in text)
    return sum(len(one) if isinstance(one, str) else len(str(one)) for one in contents)


def _lengths(kind: Kind, sizes: Sequence[tuple[int, list[int]]]) -> dict[str, dict[str, float]]:
    if not sizes:
        return {}
    parts: dict[str, list[int]] = {}
    if kind != "messages":
        parts["prompt"] = [prompt for prompt, _ in sizes]
    if kind == "preference":
        for i, name in enumerate(("chosen", "rejected")):
            parts[name] = [answers[i] for _, answers in sizes]
    elif kind != "prompt":
        parts["completion"] = [size for _, answers in sizes for size in answers]
    parts["total"] = [prompt + max(answers, default=0) for prompt, answers in sizes]
    names = ("min", "median", "p90", "p99", "max")
    return {
        part: dict(zip(names, np.quantile(values, _QUANTILES).tolist(), strict=True))
        for part, values in parts.items()
    }


def _balance(rows: Sequence[Row]) -> dict[str, float]:
    kind = rows[0].kind
    if kind == "label":
        good = sum(bool(row.label) for row in rows)
        return {"desirable": good, "undesirable": len(rows) - good}
    if kind == "trajectory":
        good = sum(row.trajectory is not None and row.trajectory.success for row in rows)
        return {"successful": good, "failed": len(rows) - good}
    if kind == "preference":
        longer = sum(_size(row.completions[0]) > _size(row.completions[1]) for row in rows)
        return {"chosen_longer": longer / len(rows)}
    if kind == "ranked":
        ties = sum(len(set(row.scores)) == 1 for row in rows)
        candidates = sum(len(row.completions) for row in rows)
        return {"candidates": candidates / len(rows), "ties": ties / len(rows)}
    return {}
