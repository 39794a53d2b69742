"""The chunks a question may be answered from, what each costs, and what a choice of them is.

The budget is for the whole prompt: template, question, chunks and separators, counted by one
function. While searching, costs are sums; what is returned was counted as it stands.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.text.prompts.template import fields_of, render
from sharpen.text.rag.chunks import Chunk, as_chunks
from sharpen.text.rag.tokens import as_counter

__all__ = ["BudgetWarning", "Path", "Pool", "Selection", "finish"]

SEPARATOR = "\n\n"

Path = tuple[int, ...]
"""Positions of chunks in a pool, in the order of the prompt."""


class BudgetWarning(UserWarning):
    """No chunk fits the budget."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Chunks for a prompt."""

    ids: list[str]
    """Of the chunks, in the order of the prompt."""

    text: str
    """The chunks, joined."""

    tokens: int
    """Of the whole prompt: template, question and chunks."""

    score: float
    """By the reranker; NaN of no chunks."""

    evaluations: int
    """Combinations the reranker has scored for it."""

    tree_stats: dict[str, int] = field(default_factory=dict)
    """Of a search: iterations, nodes, depth, and whether all was seen (``exhausted``)."""

    anytime_curve: list[tuple[int, float]] = field(default_factory=list)
    """Each time the best got better: evaluations so far, and the best score."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def summary(self) -> str:
        """One line for people."""
        if not self.ids:
            return "no chunk fits the budget"
        return f"{len(self.ids)} chunks, {self.tokens} tokens, score {self.score:.3f}"


class Pool:
    """Chunks with their costs; of chunks with equal texts only the first.

    Args:
        query: the question.
        chunks: candidates, chunks or plain texts.
        budget: most tokens of the prompt.
        template: the prompt around the chunks, with the field ``{{context}}`` and, if you like,
            ``{{question}}``; its tokens count, too. The default is the chunks alone.
        separator: between two chunks.
        tokenizer: what counts; see :func:`~sharpen.text.rag.tokens.as_counter`.

    Attributes:
        costs: [chunks] tokens.
        fits: positions of chunks that fit the budget alone.

    Raises:
        ConfigError: the budget is negative, the template has no ``{{context}}``, or two chunks have
            one id.
    """

    def __init__(
        self,
        query: str,
        chunks: Sequence[Chunk | str],
        budget: int,
        *,
        template: str = "{{context}}",
        separator: str = SEPARATOR,
        tokenizer: Any = None,
    ) -> None:
        if budget < 0:
            raise ConfigError(f"budget={budget} tokens must not be negative.")
        if "context" not in fields_of(template):
            raise ConfigError("the template must have the field {{context}}, for the chunks.")
        self.query, self.budget = query, budget
        self.template, self.separator = template, separator
        self.count = as_counter(tokenizer)
        unique: dict[str, Chunk] = {}
        for chunk in as_chunks(chunks, self.count):
            unique.setdefault(chunk.text.strip(), chunk)
        self.chunks = list(unique.values())
        self.texts = list(unique)
        self.costs = np.array([self.count(text) for text in self.texts], np.int64)
        self.between = self.count(separator)
        self.overhead = self.count(self.prompt(()))
        self.fits = np.flatnonzero(self.overhead + self.costs <= budget)

    def cost(self, path: Path) -> int:
        """Tokens of a prompt, as a sum over its parts."""
        between = self.between * max(len(path) - 1, 0)
        return self.overhead + int(self.costs[list(path)].sum()) + between

    def cost_with(self, path: Path, cost: int, more: np.ndarray) -> np.ndarray:
        """[more] costs of a path, whose own is ``cost``, with one chunk more."""
        extended: np.ndarray = cost + self.costs[more] + (self.between if path else 0)
        return extended

    def text(self, path: Path) -> str:
        """The chunks, joined."""
        return self.separator.join(self.texts[i] for i in path)

    def prompt(self, path: Path) -> str:
        """What the model would read."""
        return render(self.template, {"context": self.text(path), "question": self.query})

    def is_empty(self) -> bool:
        """Whether no chunk fits; warns then."""
        if len(self.fits):
            return False
        least = f"the cheapest needs {self.overhead + self.costs.min()}" if len(self.costs) else ""
        warnings.warn(
            f"no chunk fits a budget of {self.budget} tokens: {least or 'there are no chunks'}.",
            BudgetWarning,
            stacklevel=3,
        )
        return True


def finish(
    pool: Pool,
    found: Iterable[tuple[Path, float]],
    evaluations: int,
    tree_stats: dict[str, int] | None = None,
    anytime_curve: list[tuple[int, float]] | None = None,
) -> Selection:
    """The first of some choices, best first, whose prompt is within the budget as it stands.

    A tokenizer may make more tokens of a joined text than of its parts; then the next one is taken.
    """
    stats, curve = tree_stats or {}, anytime_curve or []
    for path, score in found:
        tokens = pool.count(pool.prompt(path))
        if tokens <= pool.budget:
            ids = [pool.chunks[i].id for i in path]
            return Selection(ids, pool.text(path), tokens, score, evaluations, stats, curve)
    return Selection([], "", pool.overhead, float("nan"), evaluations, stats, curve)
