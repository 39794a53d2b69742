"""Inputs of a function: from wherever they can be had.

In this order: the user's own, those recorded while tests ran, those of the examples in docstrings,
parts of these where they take long, made up from type hints or from what was seen, and, where there
is nothing else, guessed from how the body uses its arguments.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sharpen.code.improver.growth import cut
from sharpen.code.improver.inferring import guesses
from sharpen.code.improver.observer import Observer
from sharpen.code.improver.strategies import call_strategy, examples, is_open
from sharpen.code.improver.target import Target
from sharpen.code.inputs import Input
from sharpen.code.measure.process import encode_inputs
from sharpen.core.errors import ConfigError
from sharpen.core.sandbox import Record, decode

__all__ = ["TEMPLATE", "Corpus", "collect", "made_up"]

_EXAMPLES = 500
_GUESSED = 6
_MOST_SERIES = 4  # each ends with a call that is late
_TRIED_S = 0.5  # a guess that takes longer is not used
_QUICK_S = 0.2  # a call that takes longer is not grown
_MOST_CUT = 3
_PARTS = (4, 16, 64, 256, 1024, 4096, 16384)

TEMPLATE = '''def cases():
    """Calls of {name}: a tuple of arguments each."""
    return [
        ({arguments}),
    ]
'''


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
    refused: int = 0,
    wanted: Callable[[Sequence[Input]], bool] = bool,
) -> Corpus:
    """Put together what a function is tried with.

    Args:
        target: the function.
        given: the user's own inputs.
        recorded: from tests.
        documented: from examples in docstrings.
        baseline: calls the function, to see which guesses it takes.
        seed: of what is made up.
        refused: calls in tests whose arguments are no plain values.
        wanted: whether calls like those that are known should be made up.

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
            left_out[f"calls in {source} with an object of a class of the program"] = dropped
    if refused:
        left_out["calls in tests with an argument that is no plain value"] = refused
    add(_cut_down(baseline, list(known.values())), "cut from those that take long")
    late = 0
    if not known and target.kind != "method":
        strategy = call_strategy(target.node, target.signature, [])
        if strategy is not None:
            calls, late = _taken(baseline, examples(strategy, 60, seed))
            add(calls, "type hints")
        if not known:
            skip = target.kind == "classmethod"
            calls, late_too = _taken(baseline, guesses(target.node, skip_first=skip))
            late += late_too
            add(calls[:_GUESSED], "use in the body")
    if not known:
        raise ConfigError(_nothing(target, left_out, late))
    # Of an open hint the calls that were taken tell more than the hint.
    hinted = list(sources) == ["type hints"] and not any(map(is_open, _hints(target)))
    corpus = Corpus(list(known.values()), sources, left_out=left_out, hinted=hinted)
    if wanted(corpus.known):
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


def _cut_down(baseline: Observer, calls: Sequence[Input]) -> list[Input]:
    """The first parts of calls that take too long to be made again and again."""
    found: list[Input] = []
    waiting = list(calls)
    for _ in range(_MOST_CUT):
        if not waiting:
            break
        series = baseline.observe(encode_inputs(waiting), each_s=_QUICK_S, whole_s=20.0)
        if series.seen and series.seen[-1].why == "late":
            found += _first_part(baseline, waiting[len(series.seen) - 1])
        waiting = waiting[len(series.seen) :]
    return found


def _first_part(baseline: Observer, call: Input) -> list[Input]:
    """The largest part of a call that is taken in time; of containers and numbers one, if it can.

    Where it takes both, each alone is tried again: the first time the machine may have been busy.
    """
    for factor in _PARTS:
        for containers, numbers in ((True, False), (False, True), (True, True)):
            part = cut(call, factor, containers=containers, numbers=numbers)
            if encode_inputs([part]) == encode_inputs([call]) or not _in_time(baseline, part):
                continue
            if containers and numbers:
                alone = [
                    cut(call, factor, containers=True, numbers=False),
                    cut(call, factor, containers=False, numbers=True),
                ]
                return [next((one for one in alone if _in_time(baseline, one)), part)]
            return [part]
    return []


def _in_time(baseline: Observer, call: Input) -> bool:
    """Whether a call is quick and raises nothing."""
    series = baseline.observe(encode_inputs([call]), each_s=_QUICK_S, whole_s=1.0)
    seen = series.seen[0].what if series.seen else None
    return seen is not None and seen["error"] is None


def _taken(baseline: Observer, calls: Sequence[Input]) -> tuple[list[Input], int]:
    """Those that a function does not refuse by their class; how many took too long."""
    found = []
    waiting = list(calls)
    late = 0
    for _ in range(_MOST_SERIES):
        if not waiting:
            break
        series = baseline.observe(encode_inputs(waiting), each_s=_TRIED_S, whole_s=20.0)
        for call, seen in zip(waiting, series.seen, strict=False):
            late += seen.why == "late"
            if seen.what is not None and seen.what["error"] is None:
                found.append(call)
        waiting = waiting[len(series.seen) :]
    return found, late


def _nothing(target: Target, left_out: dict[str, int], late: int) -> str:
    names = ", ".join(target.signature.parameters) or ""
    comma = "," if len(target.signature.parameters) == 1 else ""
    template = TEMPLATE.format(name=target.name, arguments=f"{names}{comma}")
    guessed = (
        f"raise TypeError or take longer than {_TRIED_S:g} s ({late} of those that were tried did)"
        if late
        else "raise TypeError"
    )
    seen = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    tests = f"of tests there are {seen}" if seen else "no test calls it"
    return (
        f"there are no inputs for {target.file.name}:{target.entry}: {tests}, it has no type hints"
        f" that say enough, and guesses {guessed}. Name tests with --tests, or write a file"
        f" cases.py and pass --inputs cases.py:cases:\n\n{template}"
    )
