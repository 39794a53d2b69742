"""Inputs in growing sizes, so that a function is timed where its time matters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from sharpen.code.improver.corpus import Corpus
from sharpen.code.improver.growth import can_grow, grow, size_of
from sharpen.code.improver.observer import Observer
from sharpen.code.improver.reference import Baseline
from sharpen.code.improver.relations import TRIED, Relation, relate, seen_relations
from sharpen.code.inputs import Input
from sharpen.code.measure.process import encode_inputs
from sharpen.core.errors import DataError

__all__ = ["Level", "levels_of"]

_VARIANTS = 3
_MOST_S = 1.0
_MOST_SIZE = 60_000
_MOST_NUMBER = 10_000_000
_STEP = 4.0
_GROWS = 1.5
_MOST_STEPS = 14
_POWERS = frozenset(_STEP**i for i in range(1, _MOST_STEPS + 1))
_BASES = 2
_AGAIN = 2
_LATE = math.inf

_Way = Callable[[Input, float, int], Input]
"""Makes a call so many times as large; another number, other items."""


@dataclass(frozen=True, slots=True)
class Level:
    """Inputs of one size.

    Args:
        name: such as ``n=1,024``.
        size: as of :func:`~sharpen.code.improver.growth.size_of`, of the first.
        inputs: calls.
        seconds: the function took for all of them.
    """

    name: str
    size: int
    inputs: list[Input]
    seconds: float


def levels_of(
    corpus: Corpus,
    baseline: Baseline,
    original: Observer,
    *,
    count: int,
    number: int,
    top_s: float,
) -> list[Level]:
    """Inputs in growing sizes, until the function takes long enough to be timed.

    Args:
        corpus: whose known inputs are grown.
        baseline: what the function does with them.
        original: times the function.
        count: levels that are kept, the largest; with 0 nothing grows.
        number: another one, other items.
        top_s: seconds that it should take for the largest.

    Raises:
        DataError: the function takes none of the inputs without an error.
    """
    bases = _bases(corpus, baseline)
    if not bases:
        raise DataError(
            "the function raises for every input that is known: there is nothing to time. Give"
            " inputs that it takes with --inputs."
        )
    took = _time(original, bases)
    known = took if took is not None and took < _LATE else 0.0
    levels = [Level("as known", size_of(bases[0]), bases, known)]
    if count == 0 or not any(map(can_grow, bases)):
        return levels
    grower = _Grower(corpus, bases, original, number, known)
    sizes: dict[float, Level] = {}
    factor = _STEP
    for _ in range(_MOST_STEPS):
        level = grower.level(factor)
        if level is None:  # too long, or it refuses what is larger
            smaller = max(sizes, default=1.0)
            if factor / smaller < 1.2:
                break
            factor = (smaller * factor) ** 0.5
            continue
        if level.seconds >= top_s:
            level = grower.again(level)  # once may be slow because the machine is busy
        sizes[factor] = level
        if level.seconds < top_s:
            if level.size > _MOST_SIZE / _STEP and _is_bulk(level.inputs[0]):
                break
            larger_was_refused = factor not in _POWERS
            if larger_was_refused or level.size > _MOST_NUMBER:
                break
            factor *= _STEP
        elif level.seconds > 2 * top_s and len(sizes) > 1:
            del sizes[factor]
            factor = _between(max(sizes), sizes[max(sizes)].seconds, factor, level.seconds, top_s)
            sizes[factor] = grower.level(factor) or level
            break
        else:
            break
    grown = [sizes[one] for one in sorted(sizes)]
    return [*levels, *grown[-count:]]


class _Grower:
    """Makes calls so many times as large in several ways, and takes the slowest of each.

    What users and tests give stays like it is, relations among its arguments included. Of what is
    made up nothing is known, so that relations are tried; numbers are tried as primes in any case.

    Args:
        corpus: what is known of the function.
        bases: calls that are made larger.
        original: times the function.
        number: another one, other items.
        seconds: that the function takes for the bases.
    """

    def __init__(
        self,
        corpus: Corpus,
        bases: Sequence[Input],
        original: Observer,
        number: int,
        seconds: float,
    ) -> None:
        self._bases, self._original, self._number = bases, original, number
        is_free = set(corpus.sources) <= {"type hints", "use in the body"}
        related = {} if is_free else seen_relations(corpus.known)
        numbers = self._needs_numbers(seconds)
        varies = is_free or not any(map(_is_bulk, bases))
        self._ways: list[_Way] = [
            partial(_grown, numbers=numbers, variant=variant, known=related)
            for variant in range(_VARIANTS if varies else 1)
        ]
        if is_free:
            self._ways += [partial(_grown, relation=one) for one in TRIED]
        self._is_first = True

    def _needs_numbers(self, seconds: float) -> bool:
        """Whether time grows only where whole numbers grow beside the containers."""
        plain = self._of([_grown], _STEP)
        if plain is not None and plain.seconds > _GROWS * seconds:
            return False
        both = self._of([partial(_grown, numbers=True)], _STEP)
        return both is not None and both.seconds > _GROWS * (plain.seconds if plain else seconds)

    def level(self, factor: float) -> Level | None:
        """Inputs so many times as large; None where none is taken, or one takes too long."""
        if self._is_first:
            # What takes too long at once cannot be timed in any size.
            self._ways = [one for one in self._ways if self._in_time(one, factor)] or self._ways[:1]
            self._bases = self._that_grow(factor)
            self._is_first = False
        return self._of(self._ways, factor)

    def again(self, level: Level) -> Level:
        """The same inputs with the shortest time of several."""
        times = [_time(self._original, level.inputs) for _ in range(_AGAIN)]
        seconds = min([level.seconds, *(one for one in times if one is not None)])
        return replace(level, seconds=seconds)

    def _that_grow(self, factor: float) -> Sequence[Input]:
        """The bases that are still taken when larger: some were taken only for being small."""
        calls = zip(*(self._calls(way, factor) for way in self._ways), strict=True)
        grow = [any(_time(self._original, [call]) is not None for call in one) for one in calls]
        return [base for base, is_taken in zip(self._bases, grow, strict=True) if is_taken] or (
            self._bases
        )

    def _in_time(self, way: _Way, factor: float) -> bool:
        return all(_time(self._original, [call]) != _LATE for call in self._calls(way, factor))

    def _calls(self, way: _Way, factor: float) -> list[Input]:
        return [
            way(base, factor, self._number + i) if can_grow(base) else base
            for i, base in enumerate(self._bases)
        ]

    def _of(self, ways: Sequence[_Way], factor: float) -> Level | None:
        chosen: list[Input] = []
        took = 0.0
        for calls in zip(*(self._calls(way, factor) for way in ways), strict=True):
            unlike = {encode_inputs([call])[0]: call for call in reversed(calls)}
            timed = [(_time(self._original, [call]), call) for call in reversed(unlike.values())]
            taken = [(seconds, call) for seconds, call in timed if seconds is not None]
            if not taken:
                return None
            slowest, call = max(taken, key=lambda one: one[0])
            if slowest == _LATE:
                return None
            chosen.append(call)
            took += slowest
        size = size_of(chosen[0])
        return Level(f"n={size:,}", size, chosen, took)


def _grown(
    base: Input,
    factor: float,
    number: int,
    *,
    numbers: bool = False,
    variant: int = 0,
    relation: tuple[Relation, Relation] | None = None,
    known: Mapping[int, Relation] | None = None,
) -> Input:
    larger = grow(base, factor, number, numbers=numbers, variant=variant)
    return relate(larger, number, relation=relation, known=known)


def _between(low: float, low_s: float, high: float, high_s: float, top_s: float) -> float:
    """A factor between two with which the function takes about as long as it should."""
    power = math.log(high_s / max(low_s, 1e-9)) / math.log(high / low)
    return float(min(high, low * (1.4 * top_s / max(low_s, 1e-9)) ** (1 / max(power, 0.1))))


def _is_bulk(call: Input) -> bool:
    return any(hasattr(one, "__len__") for one in [*call[0], *call[1].values()])


def _bases(corpus: Corpus, baseline: Baseline) -> list[Input]:
    """Inputs that the function takes: the largest that are known, else of those made up.

    Of guesses the likeliest is the first.
    """
    known = set(encode_inputs(corpus.known))
    found = []
    for call, data, seen in zip(baseline.inputs, baseline.encoded, baseline.expected, strict=True):
        if seen["error"] is None and float(seen["seconds"]) < _MOST_S / 4:
            first = data in known and not corpus.hinted
            found.append((first, size_of(call), call))
    guessed = found[:1] if list(corpus.sources) == ["use in the body"] else []
    found = guessed + sorted(found[len(guessed) :], key=lambda one: one[:2], reverse=True)
    return [call for _, _, call in found[:_BASES]]


def _time(original: Observer, calls: Sequence[Input]) -> float | None:
    """Seconds for all calls; infinite where one is late, None where one cannot be done."""
    series = original.observe(encode_inputs(calls), each_s=_MOST_S, whole_s=2 * _MOST_S)
    took = 0.0
    for one in series.seen:
        if one.why == "late":
            return _LATE
        if one.what is None or one.what["error"] is not None:
            return None
        took += float(one.what["seconds"])
    return took if len(series.seen) == len(calls) else _LATE
