"""How well combined chunks answer a question: the contract, cross-encoders, language models.

A reranker scores the *combination*: one text of all chosen chunks in their order. So what a chunk
is worth depends on what stands before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.text.asking import as_lm
from sharpen.text.prompts.label_scores import TOP, label_scores
from sharpen.text.prompts.template import render
from sharpen.text.rag.pool import Path, Pool

__all__ = ["CrossEncoder", "Incremental", "LLMReranker", "Reranker", "RerankerError", "Scorer"]

Scores = npt.NDArray[np.float64]


class RerankerError(ExecutionError):
    """A reranker gave something that is no score."""


@runtime_checkable
class Reranker(Protocol):
    """Scores texts; higher is better, on any scale.

    Two attributes are optional: ``order_free = True`` says that the order of chunks makes no
    difference, so that each set is scored once; ``incremental(query, texts)`` gives an
    :class:`Incremental` that scores without joining texts.
    """

    def score(self, query: str, texts: Sequence[str], /) -> Sequence[float] | np.ndarray:
        """[texts] scores of combined chunks."""
        ...


class Incremental(Protocol):
    """Scores of a path of chunks that is extended by one; states are never changed in place."""

    def root(self) -> Any:
        """The state of no chunks."""
        ...

    def extend(self, state: Any, chunk: int, /) -> Any:
        """The state with one chunk more."""
        ...

    def scores(self, state: Any, chunks: np.ndarray, /) -> Scores:
        """[chunks] scores of the state with each of them appended."""
        ...


class Scorer:
    """Asks a reranker about paths of a pool, each only once, and counts.

    Args:
        pool: the chunks.
        reranker: what scores them.
        batch_size: most texts in one call of the reranker.

    Attributes:
        evaluations: paths that the reranker scored.
    """

    def __init__(self, pool: Pool, reranker: Reranker, batch_size: int = 64) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1.")
        if not isinstance(reranker, Reranker):
            raise ConfigError(f"{reranker!r:.80} is no reranker: it has no score(query, texts).")
        self.pool, self.batch_size = pool, batch_size
        self.evaluations = 0
        self._reranker = reranker
        self._key: Callable[[Path], Any] = (
            frozenset if getattr(reranker, "order_free", False) else tuple
        )
        self._known: dict[Any, float] = {}
        self._states: dict[Path, Any] = {}
        make = getattr(reranker, "incremental", None)
        # Bigrams must not cross from chunk to chunk, which a blank line between them prevents.
        if make is not None and "\n\n" in pool.separator:
            self._incremental: Incremental | None = make(pool.query, pool.texts)
            self._states[()] = self._incremental.root()
        else:
            self._incremental = None

    def unknown(self, path: Path, more: np.ndarray) -> int:
        """How many evaluations :meth:`children` of the same would take."""
        return len({self._key((*path, i)) for i in more.tolist()} - self._known.keys())

    def children(self, path: Path, more: np.ndarray) -> Scores:
        """[more] scores of a path with each of some chunks appended.

        Raises:
            RerankerError: a score is missing, or not finite.
        """
        kids = [(*path, i) for i in more.tolist()]
        keys = [self._key(kid) for kid in kids]
        missing = {key: i for i, key in enumerate(keys) if key not in self._known}
        if missing:
            places = np.array(list(missing.values()))
            if self._incremental is not None:
                found = self._incremental.scores(self._state(path), more[places])
            else:
                found = self._ask([kids[i] for i in places])
            self._check(found, [kids[i] for i in places])
            self.evaluations += len(missing)
            self._known.update(zip(missing, found.tolist(), strict=True))
        return np.array([self._known[key] for key in keys], np.float64)

    def one(self, path: Path) -> float:
        """The score of a path that is not empty."""
        return float(self.children(path[:-1], np.array([path[-1]]))[0])

    def _state(self, path: Path) -> Any:
        state = self._states.get(path)
        if state is None:
            assert self._incremental is not None
            state = self._incremental.extend(self._state(path[:-1]), path[-1])
            self._states[path] = state
        return state

    def _ask(self, paths: list[Path]) -> Scores:
        texts = [self.pool.text(path) for path in paths]
        found: list[float] = []
        for start in range(0, len(texts), self.batch_size):
            some = texts[start : start + self.batch_size]
            scores = np.asarray(self._reranker.score(self.pool.query, some), np.float64)
            if scores.shape != (len(some),):
                raise RerankerError(
                    f"the reranker must give {len(some)} scores for {len(some)} texts, got"
                    f" {list(scores.shape)}."
                )
            found += scores.tolist()
        return np.array(found)

    def _check(self, found: Scores, paths: list[Path]) -> None:
        bad = np.flatnonzero(~np.isfinite(found))
        if len(bad):
            path, value = paths[bad[0]], found[bad[0]]
            before = [self.pool.chunks[i].id for i in path[:-1]]
            after = f" after {', '.join(before)}" if before else ""
            raise RerankerError(
                f"the reranker gave {value} for the chunk '{self.pool.chunks[path[-1]].id}'{after}."
                " Scores must be finite numbers."
            )


class CrossEncoder:
    """A model that reads question and text together.

    Args:
        predict: scores of pairs ``[(query, text), ...]``, such as the method ``predict`` of a
            cross-encoder of sentence-transformers.
    """

    def __init__(self, predict: Callable[[list[tuple[str, str]]], Any]) -> None:
        self._predict = predict

    def score(self, query: str, texts: Sequence[str]) -> Scores:
        """[texts] scores."""
        return np.asarray(self._predict([(query, text) for text in texts]), np.float64).reshape(-1)


class LLMReranker:
    """How sure a language model is that a text answers: ``ln P(yes) - ln P(no)``.

    The two probabilities are those of the first token of its reply.

    Args:
        lm: a model that tells probabilities of tokens.
        prompt: with the fields ``{{question}}`` and ``{{context}}``.

    Raises:
        ConfigError: the model tells none.
    """

    PROMPT = (
        "{{context}}\n\nQuestion: {{question}}\nDoes the text above say all that is needed to"
        " answer? Reply yes or no.\nReply:"
    )

    def __init__(self, lm: Any, prompt: str = PROMPT) -> None:
        self.lm = as_lm(lm)
        self.prompt = prompt
        if "logprobs" not in self.lm.capabilities:
            raise ConfigError(
                f"LLMReranker needs a model that tells probabilities, and '{self.lm.model}' does"
                " not."
            )

    def score(self, query: str, texts: Sequence[str]) -> Scores:
        """[texts] scores, one call of the model each."""
        found = []
        for text in texts:
            prompt = render(self.prompt, {"question": query, "context": text})
            request = self.lm.request(prompt, max_tokens=1, logprobs=TOP, temperature=0.0)
            labels = label_scores(self.lm.complete(request), ["yes", "no"])
            # A model that says nothing is for neither.
            found.append(labels["yes"] - labels["no"] if labels else 0.0)
        return np.array(found)
