"""Inputs of a function: from wherever they can be had, and in sizes that take a while.

In this order: the user's own, those recorded while tests ran, those of the examples in docstrings,
made up from type hints or from what was seen, and, where there is nothing else, guessed from how
the body uses its arguments.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sharpen.code.improver.growth import can_grow, grow, size_of
from sharpen.code.improver.inferring import guesses
from sharpen.code.improver.observer import Observer
from sharpen.code.improver.reference import Baseline
from sharpen.code.improver.strategies import call_strategy, examples, is_open
from sharpen.code.improver.target import Target
from sharpen.code.inputs import Input
from sharpen.code.measure.process import encode_inputs
from sharpen.core.errors import ConfigError, DataError
from sharpen.core.sandbox import Record, decode

__all__ = ["TEMPLATE", "Corpus", "Level", "collect", "levels_of", "made_up"]

_EXAMPLES = 500
_WAYS = 3
_GUESSED = 6
_MOST_SERIES = 4  # each ends with a call that is late
_MOST_S = 1.0
_MOST_SIZE = 60_000
_MOST_NUMBER = 10_000_000
_STEP = 4.0
_GROWS = 1.5
_MOST_STEPS = 14
_POWERS = frozenset(_STEP**i for i in range(1, _MOST_STEPS + 1))
_BASES = 2

TEMPLATE = '''def cases():
    """Calls of {name}: a tuple of arguments each."""
    return [
        ({arguments}),
    ]
'''


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


@dataclass(slots=True)
class Corpus:
    """All inputs that a function is tried with.

    Args:
        known: calls that were given, recorded or guessed.
        sources: how many came from where.
        made: made up like them.
        left_out: why some were not used.
        hinted: whether all that is known was made up from type hints.
    """

    known: list[Input]
    sources: dict[str, int]
    made: list[Input] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    hinted: bool = False

    @property
    def all(self) -> list[Input]:
        """Known ones first."""
        return [*self.known, *self.made]


def _hints(target: Target) -> list[ast.expr | None]:
    given = target.node.args
    return [one.annotation for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]


def from_records(records: Sequence[bytes]) -> tuple[list[Input], int]:
    """Recorded calls; and how many cannot be repeated, since an argument is no plain value."""
    found, dropped = [], 0
    for data in records:
        args, kwargs = decode(data)
        if _has_record([*args, *kwargs.values()]):
            dropped += 1
        else:
            found.append((args, kwargs))
    return found, dropped


def _has_record(value: Any) -> bool:
    if isinstance(value, Record):
        return True
    if isinstance(value, dict):
        return any(map(_has_record, value.keys())) or any(map(_has_record, value.values()))
    return isinstance(value, (list, tuple, set, frozenset)) and any(map(_has_record, value))


def collect(
    target: Target,
    *,
    given: Sequence[Input],
    recorded: Sequence[bytes],
    documented: Sequence[bytes],
    baseline: Observer,
    seed: int,
) -> Corpus:
    """Put together what a function is tried with.

    Args:
        target: the function.
        given: the user's own inputs.
        recorded: from tests.
        documented: from examples in docstrings.
        baseline: calls the function, to see which guesses it takes.
        seed: of what is made up.

    Raises:
        ConfigError: there are none; the message has a template for a file of them.
    """
    sources: dict[str, int] = {}
    left_out: dict[str, int] = {}
    known: dict[bytes, Input] = {}

    def add(calls: Sequence[Input], source: str) -> None:
        before = len(known)
        for call in calls:
            known.setdefault(encode_inputs([call])[0], call)
        if len(known) > before:
            sources[source] = len(known) - before

    add(given, "given")
    for records, source in ((recorded, "tests"), (documented, "docstrings")):
        calls, dropped = from_records(records)
        add(calls, source)
        if dropped:
            left_out[f"from {source}: an argument is an object of a class of the program"] = dropped
    if not known and target.kind != "method":
        strategy = call_strategy(target.node, target.signature, [])
        if strategy is not None:
            add(_taken(baseline, examples(strategy, 60, seed)), "type hints")
        if not known:
            skip = target.kind == "classmethod"
            add(
                _taken(baseline, guesses(target.node, skip_first=skip))[:_GUESSED],
                "use in the body",
            )
    if not known:
        raise ConfigError(_nothing(target, left_out))
    # Of an open hint the calls that were taken tell more than the hint.
    hinted = list(sources) == ["type hints"] and not any(map(is_open, _hints(target)))
    corpus = Corpus(list(known.values()), sources, left_out=left_out, hinted=hinted)
    corpus.made = made_up(target, corpus.known, _EXAMPLES, seed, hinted=hinted)
    return corpus


def made_up(
    target: Target, known: Sequence[Input], count: int, number: int, *, hinted: bool = False
) -> list[Input]:
    """Calls like those that are known; another number, others.

    Args:
        target: the function.
        known: what they are like.
        count: most of them.
        number: a seed.
        hinted: take type hints alone, where all that is known came from them.
    """
    seen = [] if hinted else list(known)
    strategy = call_strategy(target.node, target.signature, seen)
    if strategy is None:
        return []
    have = set(encode_inputs(known))
    found: dict[bytes, Input] = {}
    for call in examples(strategy, count, number):
        data = encode_inputs([call])[0]
        if data not in have:
            found.setdefault(data, call)
    return list(found.values())


def _taken(baseline: Observer, calls: Sequence[Input]) -> list[Input]:
    """Those that a function does not refuse by their class."""
    found = []
    waiting = list(calls)
    for _ in range(_MOST_SERIES):
        if not waiting:
            break
        series = baseline.observe(encode_inputs(waiting), each_s=0.5, whole_s=20.0)
        for call, seen in zip(waiting, series.seen, strict=False):
            if seen.what is None:
                continue
            if seen.what["error"] is None:
                found.append(call)
        waiting = waiting[len(series.seen) :]
    return found


def _nothing(target: Target, left_out: dict[str, int]) -> str:
    names = ", ".join(target.signature.parameters) or ""
    comma = "," if len(target.signature.parameters) == 1 else ""
    template = TEMPLATE.format(name=target.name, arguments=f"{names}{comma}")
    why = "".join(f" {count} {reason}." for reason, count in left_out.items())
    return (
        f"there are no inputs for {target.file.name}:{target.entry}: no test calls it, it has no"
        f" type hints that say enough, and guesses raise TypeError.{why} Name tests with --tests,"
        f" or write a file cases.py and pass --inputs cases.py:cases:\n\n{template}"
    )


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
    levels = [Level("as known", size_of(bases[0]), bases, _time(original, bases) or 0.0)]
    if count == 0 or not any(map(can_grow, bases)):
        return levels
    sizes: dict[float, Level] = {}
    factor = _STEP
    variants = _variants(corpus, bases)
    numbers = _numbers_count(bases, number, original, levels[0].seconds)
    for _ in range(_MOST_STEPS):
        level = _grown(bases, factor, number, original, numbers=numbers, variants=variants)
        if level is None:  # too long, or it refuses what is larger
            smaller = max(sizes, default=1.0)
            if factor / smaller < 1.2:
                break
            factor = (smaller * factor) ** 0.5
            continue
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
            better = _grown(bases, factor, number, original, numbers=numbers, variants=variants)
            sizes[factor] = better or level
            break
        else:
            break
    grown = [sizes[one] for one in sorted(sizes)]
    return [*levels, *grown[-count:]]


def _numbers_count(bases: Sequence[Input], number: int, original: Observer, seconds: float) -> bool:
    """Whether time grows only where whole numbers grow beside the containers."""
    plain = _grown(bases, _STEP, number, original)
    if plain is not None and plain.seconds > _GROWS * seconds:
        return False
    both = _grown(bases, _STEP, number, original, numbers=True)
    return both is not None and both.seconds > _GROWS * (plain.seconds if plain else seconds)


def _variants(corpus: Corpus, bases: Sequence[Input]) -> int:
    """Ways to grow that are tried: what users and tests give stays like it is, but for numbers."""
    is_free = set(corpus.sources) <= {"type hints", "use in the body"}
    return _WAYS if is_free or not any(map(_is_bulk, bases)) else 1


def _grown(
    bases: Sequence[Input],
    factor: float,
    number: int,
    original: Observer,
    *,
    numbers: bool = False,
    variants: int = 1,
) -> Level | None:
    """Inputs so many times as large, of several ways the slowest; None where none is taken."""
    calls: list[Input] = []
    took = 0.0
    for i, base in enumerate(bases):
        ways: dict[bytes, Input] = {}
        for way in range(variants if can_grow(base) else 1):
            call = base
            if can_grow(base):
                call = grow(base, factor, number + i, numbers=numbers, variant=way)
            ways.setdefault(encode_inputs([call])[0], call)
        timed = [(_time(original, [call]), call) for call in ways.values()]
        taken = [(seconds, k) for k, (seconds, _) in enumerate(timed) if seconds is not None]
        if not taken:
            return None
        slowest, place = max(taken, key=lambda one: one[0])
        calls.append(timed[place][1])
        took += slowest
    size = size_of(calls[0])
    return Level(f"n={size:,}", size, calls, took)


def _between(low: float, low_s: float, high: float, high_s: float, top_s: float) -> float:
    """A factor between two with which the function takes about as long as it should."""
    power = math.log(high_s / max(low_s, 1e-9)) / math.log(high / low)
    return float(min(high, low * (1.4 * top_s / max(low_s, 1e-9)) ** (1 / max(power, 0.1))))


def _is_bulk(call: Input) -> bool:
    return any(hasattr(one, "__len__") for one in [*call[0], *call[1].values()])


def _bases(corpus: Corpus, baseline: Baseline) -> list[Input]:
    """Inputs that the function takes: the largest that are known, else of those made up."""
    known = set(encode_inputs(corpus.known))
    found = []
    for call, data, seen in zip(baseline.inputs, baseline.encoded, baseline.expected, strict=True):
        if seen["error"] is None and float(seen["seconds"]) < _MOST_S / 4:
            first = data in known and not corpus.hinted
            found.append((first, size_of(call), call))
    found.sort(key=lambda one: one[:2], reverse=True)
    return [call for _, _, call in found[:_BASES]]


def _time(baseline: Observer, calls: Sequence[Input]) -> float | None:
    """Seconds for all calls; None where one raises or is late."""
    series = baseline.observe(encode_inputs(calls), each_s=_MOST_S, whole_s=2 * _MOST_S)
    took = 0.0
    for one in series.seen:
        if one.what is None or one.what["error"] is not None:
            return None
        took += float(one.what["seconds"])
    return took if len(series.seen) == len(calls) else None
