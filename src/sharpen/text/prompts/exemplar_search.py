"""Which solved examples a prompt shows: at random, the nearest, diverse ones, all, or searched for.

Wan, Sun, Nakhost and Arik, *Teach Better or Show Smarter? On Instructions and Exemplars in
Automatic Prompt Optimization*, NeurIPS 2024 (arXiv 2406.15708), section 3.

::

    random          one set at random
    nearest         for each input the k most alike
    diverse         medoids of k clusters
    all             every exemplar that there is
    random_search   m sets of k at random, the best on the validation examples
    mutation        the best of a few sets at random (of the prompt's own, where it has some),
                    then one exemplar changed at a time

Differs from the paper: likeness is the cosine of TF-IDF vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from sharpen.text.prompts.exemplars import vectors
from sharpen.text.prompts.search import Search
from sharpen.text.prompts.task import Candidate, Exemplar

__all__ = ["STRATEGIES", "improve"]

_MOST = 32
_TRIES = 30


def _random(search: Search, prompt: Candidate, k: int) -> None:
    search.full(Candidate(prompt.instruction, _drawn(search, k)))


def _nearest(search: Search, prompt: Candidate, k: int) -> None:
    search.full(Candidate(prompt.instruction, tuple(search.pool.exemplars), nearest=k))


def _diverse(search: Search, prompt: Candidate, k: int) -> None:
    search.full(Candidate(prompt.instruction, _medoids(search.pool.exemplars, k, search.rng)))


def _all(search: Search, prompt: Candidate, k: int) -> None:
    search.full(Candidate(prompt.instruction, tuple(search.pool.exemplars[:_MOST])))


def _random_search(search: Search, prompt: Candidate, k: int) -> None:
    for candidate in _distinct(search, prompt.instruction, lambda: _drawn(search, k)):
        search.full(candidate)


def _mutation(search: Search, prompt: Candidate, k: int) -> None:
    start = max(1, int(search.full_evaluations_left // 4))
    instruction = prompt.instruction
    best = search.full(prompt) if prompt.exemplars and not prompt.nearest else None
    if best is None:
        for count, candidate in enumerate(
            _distinct(search, instruction, lambda: _drawn(search, k)), start=1
        ):
            evaluation = search.full(candidate)
            if best is None or evaluation.score > best.score:
                best = evaluation
            if count >= start:
                break
    if best is None:
        return
    current = best

    def changed() -> tuple[Exemplar, ...]:
        shown = list(current.candidate.exemplars)
        others = [one for one in search.pool.exemplars if one not in shown]
        if not shown or not others:
            return tuple(shown)
        place = int(search.rng.integers(len(shown)))
        shown[place] = others[int(search.rng.integers(len(others)))]
        return tuple(shown)

    for candidate in _distinct(search, instruction, changed):
        evaluation = search.full(candidate)
        if evaluation.score >= current.score:
            current = evaluation


STRATEGIES: dict[str, Callable[[Search, Candidate, int], None]] = {
    "random": _random,
    "nearest": _nearest,
    "diverse": _diverse,
    "all": _all,
    "random_search": _random_search,
    "mutation": _mutation,
}


def improve(search: Search, strategy: str, prompt: Candidate, k: int) -> None:
    """Judge prompts with exemplars of the pool until the strategy or the budget ends.

    Args:
        search: what is searched.
        strategy: a name of ``STRATEGIES``.
        prompt: its instruction is that of every prompt.
        k: exemplars in a prompt.
    """
    if len(search.pool):
        STRATEGIES[strategy](search, prompt, k)


def _drawn(search: Search, k: int) -> tuple[Exemplar, ...]:
    pool = search.pool.exemplars
    picked = search.rng.choice(len(pool), size=min(k, len(pool)), replace=False)
    return tuple(pool[int(i)] for i in picked)


def _distinct(
    search: Search, instruction: str, draw: Callable[[], tuple[Exemplar, ...]]
) -> Iterator[Candidate]:
    """Candidates that were not drawn before, until none comes for a while."""
    seen = {evaluation.candidate.key for evaluation in search.history}
    tries = 0
    while tries < _TRIES:
        candidate = Candidate(instruction, draw())
        if candidate.key in seen:
            tries += 1
            continue
        tries = 0
        seen.add(candidate.key)
        yield candidate


def _medoids(
    exemplars: list[Exemplar], k: int, rng: np.random.Generator, rounds: int = 20
) -> tuple[Exemplar, ...]:
    """The exemplars nearest to the centres of ``k`` clusters of directions (spherical k-means)."""
    k = min(k, len(exemplars))
    x, _, _ = vectors([" ".join(str(v) for v in one.input.values()) for one in exemplars])
    chosen = [int(rng.integers(len(x)))]
    while len(chosen) < k:  # the farthest from those that are chosen
        chosen.append(int(np.argmin(np.max(x @ x[chosen].T, axis=1))))
    for _ in range(rounds):
        cluster = np.argmax(x @ x[chosen].T, axis=1)
        new = []
        for j in range(k):
            members = np.flatnonzero(cluster == j)
            if not len(members):
                new.append(chosen[j])
                continue
            centre = x[members].sum(axis=0)
            new.append(int(members[np.argmax(x[members] @ centre)]))
        if new == chosen:
            break
        chosen = new
    return tuple(exemplars[i] for i in dict.fromkeys(chosen))
