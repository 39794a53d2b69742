"""Monte Carlo tree search for the chunks of a prompt and their order, under a budget of tokens.

*CORAG: A Cost-Constrained Retrieval Optimization System for Retrieval-Augmented Generation*, 2024
(arXiv 2411.00744).

A node is a tuple of chunks in the order of the prompt; the root is the empty one. From the root the
search goes to the child of the greatest utility ::

    V(v) / N(v) + c * sqrt(ln N(parent) / N(v)) - lam * cost(v) / B

until it meets a node that was not expanded. All its children within the budget (one unused chunk
appended) are scored in one batch, and V and N of the nodes on the way grow by the best of them (or
by all, or by their mean). The answer is the visited node with the highest score of its own; of
equal ones the cheapest. It need not use up the budget.

Differs from the paper: the search begins with the best single chunk, and after an expansion it goes
on with the best child while that improves on its parent (``rollout``), before it goes back to the
root: deep combinations are seen, and the first iterations already answer as well as adding the best
chunk each time. Rewards are scaled so that the first expansion spans 0 to 1, else ``c`` has no
scale. A node without affordable children is never visited again, nor one whose children all are
such. The answer goes by the node's own score, as in the authors' code, not by the mean below it.

Time: iterations x (depth + children); memory: a few numbers for each scored combination.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.text.rag.chunks import Chunk
from sharpen.text.rag.pool import Path, Pool, Selection, finish
from sharpen.text.rag.rerankers import Reranker, Scorer

__all__ = ["ChunkSearch", "Tree"]

Backup = Literal["best", "all", "mean"]


@dataclass(slots=True)
class _Node:
    """An expanded node; what belongs to its children stands in arrays, one entry a child."""

    path: Path
    kids: np.ndarray
    cost: np.ndarray
    own: np.ndarray
    total: np.ndarray
    visits: np.ndarray
    dead: np.ndarray
    below: dict[int, _Node] = field(default_factory=dict)


class ChunkSearch:
    """Searches for the best combination of chunks.

    Args:
        reranker: scores combined texts.
        budget: most tokens of the prompt.
        c: how much rarely visited nodes are preferred.
        lam: how much cheap ones are, while searching.
        iterations: most expansions.
        patience: stop after so many expansions that found nothing better; None never does.
        evaluations: most combinations the reranker may score; None is no limit.
        rollout: expand on and on below a node while that improves; off is the paper's search.
        backup: what an expansion adds to the nodes above it: its ``best`` child's reward (the
            paper), the rewards of ``all`` children (the authors' code), or their ``mean``.
        width: candidates that are kept, those that score best alone.
        batch_size: most texts in one call of the reranker.
        seed: of the order of candidates that score the same alone.

    Raises:
        ConfigError: a value is out of range.
    """

    def __init__(
        self,
        reranker: Reranker,
        budget: int,
        *,
        c: float = 1.0,
        lam: float = 0.1,
        iterations: int = 200,
        patience: int | None = None,
        evaluations: int | None = None,
        rollout: bool = True,
        backup: Backup = "best",
        width: int = 60,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        if not c >= 0 or not lam >= 0:
            raise ConfigError(f"c={c} and lam={lam} must be at least 0 (ChunkSearch).")
        for name, value in (
            ("iterations", iterations),
            ("patience", patience),
            ("evaluations", evaluations),
            ("width", width),
        ):
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} must be at least 1 (ChunkSearch).")
        if backup not in ("best", "all", "mean"):
            raise ConfigError(f"backup='{backup}' must be best, all or mean (ChunkSearch).")
        self.reranker, self.budget = reranker, budget
        self.c, self.lam = c, lam
        self.iterations, self.patience, self.evaluations = iterations, patience, evaluations
        self.rollout = rollout
        self.backup: Backup = backup
        self.width, self.batch_size, self.seed = width, batch_size, seed

    def select(
        self, query: str, chunks: Sequence[Chunk | str], *, tokenizer: Any = None, **prompt: str
    ) -> Selection:
        """The best combination found.

        Args:
            query: the question.
            chunks: candidates, chunks or plain texts.
            tokenizer: what counts tokens.
            prompt: ``template`` and ``separator`` of :class:`~sharpen.text.rag.pool.Pool`.

        Raises:
            ConfigError: as of the pool.
            RerankerError: a score is no number.

        Warns:
            BudgetWarning: no chunk fits; the selection is empty.
        """
        pool = Pool(query, chunks, self.budget, tokenizer=tokenizer, **prompt)
        if pool.is_empty():
            return finish(pool, [], 0)
        return Tree(self, Scorer(pool, self.reranker, self.batch_size)).search()


class Tree:
    """One search.

    Args:
        config: its settings.
        scorer: of the chunks; what it knows already costs no evaluation.
    """

    def __init__(self, config: ChunkSearch, scorer: Scorer) -> None:
        self.config, self.scorer, self.pool = config, scorer, scorer.pool
        self.visits = 1
        self.best: tuple[Path, float, int] = ((), -math.inf, 0)
        self.nodes, self.depth, self.done = 0, 0, 0
        self.curve: list[tuple[int, float]] = []
        self._begun = scorer.evaluations
        self._expanded: list[_Node] = []
        self.root = self._plant()

    def _plant(self) -> _Node:
        """Expand the root: candidates by their score alone, at most ``width``."""
        fits = np.random.default_rng(self.config.seed).permutation(self.pool.fits)
        limit = self.config.evaluations
        if limit is not None and self.scorer.unknown((), fits) > limit:
            raise ConfigError(
                f"evaluations={limit} are too few to score each of {len(fits)} chunks alone once."
            )
        scores = self.scorer.children((), fits)
        self._low = float(scores.min())
        spread = float(scores.max()) - self._low
        self._scale = spread if spread > 0 else 1.0
        order = np.argsort(-scores, kind="stable")[: self.config.width]
        node = self._node((), fits[order], scores[order], self.pool.overhead)
        self.candidates = node.kids
        self._count(node, [])
        return node

    def search(self) -> Selection:
        """Expand until the limits, and choose."""
        config, stale = self.config, 0
        further = [(self.root, int(self.root.own.argmax()))] if config.rollout else []
        while self.done < config.iterations and not self.root.dead.all():
            steps, further = further or self._descend(), []
            node, slot = steps[-1]
            path = (*node.path, int(node.kids[slot]))
            more = self.candidates[~np.isin(self.candidates, path)]
            cost = int(node.cost[slot])
            more = more[self.pool.cost_with(path, cost, more) <= self.pool.budget]
            if not len(more):
                self._bury(steps)
                continue
            used = self.scorer.evaluations - self._begun
            limit = config.evaluations
            if limit is not None and used + self.scorer.unknown(path, more) > limit:
                break
            before = self.best
            child = self._node(path, more, self.scorer.children(path, more), cost)
            node.below[slot] = child
            self._count(child, steps)
            stale = 0 if self.best is not before else stale + 1
            top = int(child.own.argmax())
            if config.rollout and child.own[top] > node.own[slot]:
                further = [*steps, (child, top)]
            if config.patience is not None and stale >= config.patience:
                break
        return self._answer()

    def _node(self, path: Path, kids: np.ndarray, own: np.ndarray, cost: int) -> _Node:
        reward = (own - self._low) / self._scale
        costs = self.pool.cost_with(path, cost, kids)
        dead = np.zeros(len(kids), bool)
        node = _Node(path, kids, costs, own, reward, np.ones(len(kids)), dead)
        self._expanded.append(node)
        self.nodes += len(kids)
        self.depth = max(self.depth, len(path) + 1)
        return node

    def _count(self, node: _Node, steps: list[tuple[_Node, int]]) -> None:
        """Add a new node's rewards to those above it, and keep the best."""
        self.done += 1
        rewards = node.total
        if self.config.backup == "all":
            value, count = float(rewards.sum()), len(rewards)
        else:
            value = float(rewards.max() if self.config.backup == "best" else rewards.mean())
            count = 1
        self.visits += count
        for above, slot in steps:
            above.visits[slot] += count
            above.total[slot] += value
        top = node.own.max()
        slot = int(min(np.flatnonzero(node.own == top), key=lambda i: node.cost[i]))
        score, cost = float(top), int(node.cost[slot])
        if (score, -cost) > (self.best[1], -self.best[2]):
            if score > self.best[1]:
                self.curve.append((self.scorer.evaluations - self._begun, score))
            self.best = ((*node.path, int(node.kids[slot])), score, cost)

    def _descend(self) -> list[tuple[_Node, int]]:
        """Expanded nodes on the way to one that is not, and the child that was taken of each."""
        steps: list[tuple[_Node, int]] = []
        node, visits = self.root, float(self.visits)
        while True:
            utility = (
                node.total / node.visits
                + self.config.c * np.sqrt(math.log(visits) / node.visits)
                - self.config.lam * node.cost / max(self.pool.budget, 1)
            )
            utility[node.dead] = -np.inf
            slot = int(utility.argmax())
            steps.append((node, slot))
            if slot not in node.below:
                return steps
            visits = float(node.visits[slot])
            node = node.below[slot]

    def _bury(self, steps: list[tuple[_Node, int]]) -> None:
        """Never go to a node without affordable children again, nor to one of only such."""
        for node, slot in reversed(steps):
            node.dead[slot] = True
            if not node.dead.all():
                return

    def _answer(self) -> Selection:
        stats = {
            "iterations": self.done,
            "nodes": self.nodes,
            "depth": self.depth,
            "exhausted": int(self.root.dead.all()),
        }
        used = self.scorer.evaluations - self._begun
        chosen = finish(self.pool, [self.best[:2]], used, stats, self.curve)
        if chosen.ids:
            return chosen
        found = sorted(
            (-score, cost, (*node.path, kid))
            for node in self._expanded
            for kid, score, cost in zip(
                node.kids.tolist(), node.own.tolist(), node.cost.tolist(), strict=True
            )
        )
        return finish(
            self.pool, ((path, -score) for score, _, path in found), used, stats, self.curve
        )
