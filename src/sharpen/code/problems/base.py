"""What a problem is: plain texts and numbers, so that its parts can run in a sandbox."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from sharpen.core.errors import ConfigError, DataError, ExecutionError
from sharpen.core.sandbox import Job, SandboxPool

__all__ = ["COUNTS", "HARDNESS", "SEED", "Problem", "run_generator"]

COUNTS = (8, 4, 4, 4)
"""Inputs of each level, as in ENAMEL."""

HARDNESS = (0.0, 3.0, 3.0, 4.0)
"""Weights of the levels, as in ENAMEL; the first only tells whether a program is right."""

SEED = 998244353
"""Of the inputs, as in ENAMEL."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A function to write, solutions of it, and inputs of growing size.

    Example:
        >>> from sharpen.code.problems import load_problems
        >>> problem = next(p for p in load_problems("own") if p.name == "pairs_with_sum")
        >>> problem.levels
        (8, 60, 250, 1000)
        >>> len(problem.inputs(level=1)), problem.inputs(level=1) == problem.inputs(level=1)
        (4, True)
    """

    name: str
    """Of the problem in its set, such as ``pairs_with_sum`` or ``HumanEval/0``."""

    entry: str
    """The function that a solution defines."""

    prompt: str
    """What is asked for: imports, the signature and the docstring."""

    reference: str
    """A program with a right and fast solution."""

    slow: str | None = None
    """A program with a right solution as people write it; None where none is known, or where the
    reference is what people write."""

    generator: str | None = None
    """A program with ``generate(size, level, index, seed)``, the arguments of a call."""

    levels: tuple[int, ...] = ()
    """The size of the inputs of each level."""

    counts: tuple[int, ...] = COUNTS
    """How many inputs each level has."""

    hardness: tuple[float, ...] = HARDNESS
    """What each level weighs."""

    checker: str | None = None
    """A program with ``check(args, expected, output)``; without one an output must be the same
    value as the reference's."""

    tests: str | None = None
    """Assert-style tests: ``check(candidate)``."""

    number: int = 0
    """Makes the inputs of problems differ under one seed."""

    trusted: bool = False
    """Whether its generator may run outside of a sandbox."""

    def __post_init__(self) -> None:
        wrong = [name for name in ("name", "entry", "reference") if not getattr(self, name)]
        if wrong:
            raise DataError(f"a problem ({self.name or 'without a name'}) needs {wrong[0]}.")
        if self.levels and not len(self.levels) == len(self.counts) == len(self.hardness):
            raise DataError(
                f"problem {self.name}: {len(self.levels)} levels, {len(self.counts)} counts and"
                f" {len(self.hardness)} weights must be as many."
            )

    def seed_of(self, level: int, index: int, seed: int = SEED) -> int:
        """The seed of one input."""
        return seed ^ self.number ^ (sum(self.counts[:level]) + index)

    def inputs(
        self,
        level: int,
        *,
        count: int | None = None,
        seed: int = SEED,
        pool: SandboxPool | None = None,
    ) -> list[tuple[Any, ...]]:
        """Arguments of some calls, the same for the same seed.

        Args:
            level: from 0 to ``len(levels) - 1``.
            count: how many; as many as the level has without a number.
            seed: of the draws.
            pool: where the generator runs; without one here where it is trusted, else in a sandbox
                that is made for it.

        Raises:
            ConfigError: there is no such level, or there is no generator.
            ExecutionError: the generator fails.
        """
        if self.generator is None:
            raise ConfigError(f"problem {self.name} has no generator of inputs.")
        if not 0 <= level < len(self.levels):
            raise ConfigError(
                f"problem {self.name} has no level {level}: give 0 to {len(self.levels) - 1}."
            )
        many = self.counts[level] if count is None else count
        calls = [(self.levels[level], level, i, self.seed_of(level, i, seed)) for i in range(many)]
        if pool is None and self.trusted:
            return _run_here(self.generator, calls)
        if pool is not None:
            return run_generator(self, calls, pool)
        with SandboxPool(1) as made:
            return run_generator(self, calls, made)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as a line of a JSONL file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Problem:
        """From plain data.

        Raises:
            DataError: a key is missing, unknown, or of another type.
        """
        names = [name for name in cls.__slots__ if name != "trusted"]
        unknown = sorted(set(values) - set(names) - {"trusted"})
        if unknown:
            raise DataError(f"unknown key {unknown[0]!r} of a problem; known: {', '.join(names)}.")
        lists = ("levels", "counts", "hardness")
        for name, value in values.items():
            if name in lists:
                right = isinstance(value, (list, tuple)) and all(
                    type(one) in (int, float) for one in value
                )
            elif name == "number":
                right = type(value) is int
            else:
                right = isinstance(value, (str, bool)) or value is None
            if not right:
                raise DataError(f"{name} of a problem cannot be {value!r:.60}.")
        given: dict[str, Any] = {
            k: tuple(v) if k in lists else v for k, v in values.items() if k != "trusted"
        }
        for name in ("name", "entry", "prompt", "reference"):
            if not isinstance(given.get(name), str):
                raise DataError(f"a problem needs the text {name!r}.")
        if "number" not in given:
            given["number"] = zlib.crc32(given["name"].encode())
        return cls(**given)


@lru_cache(maxsize=512)
def _generator(source: str) -> Any:
    names: dict[str, Any] = {"__name__": "generator"}
    exec(compile(source, "<generator>", "exec", dont_inherit=True), names)
    return names["generate"]


def _run_here(source: str, calls: list[tuple[int, int, int, int]]) -> list[tuple[Any, ...]]:
    try:
        generate = _generator(source)
        return [tuple(generate(*call)) for call in calls]
    except Exception as error:
        raise ExecutionError(
            f"a generator of inputs raised {type(error).__name__}: {error}"
        ) from error


def run_generator(
    problem: Problem, calls: list[tuple[int, int, int, int]], pool: SandboxPool
) -> list[tuple[Any, ...]]:
    """What a problem's generator gives for some (size, level, index, seed), in a sandbox.

    Raises:
        ExecutionError: it fails.
    """
    assert problem.generator is not None
    result = pool.run(Job(source=problem.generator, entry="generate", inputs=calls))
    if not result.ok:
        raise ExecutionError(f"problem {problem.name}: its generator: {result.summary()}")
    wrong = [one for one in result.outputs if not isinstance(one, (tuple, list))]
    if wrong:
        raise ExecutionError(f"problem {problem.name}: its generator gave {wrong[0]!r:.60}.")
    return [tuple(one) for one in result.outputs]
