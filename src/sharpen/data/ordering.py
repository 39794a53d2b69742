"""In which order filters that follow each other look at rows.

The cheapest filter that drops the most goes first: by ``cost / (1 - pass rate)``, least first, both
measured on a few rows (Hellerstein, "Optimization techniques for queries with expensive methods",
ACM TODS 23(2), 1998). A filter's cost is less when what it needs of the texts is there already, and
its pass rate is that among the rows that the filters before it leave; so the order is chosen one by
one. Only pure filters move, and never across an operator that is none, so the rows that are kept
are the same in every order; only which filter is named as the reason may differ.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sharpen.core.errors import StorageError
from sharpen.core.files import atomic_write_json, cache_home
from sharpen.data.batch import Batch, Mask
from sharpen.data.ops.base import Filter, Operator

__all__ = ["Measured", "choose_order", "few", "known_order", "measure"]

_ROWS, _BYTES = 256, 1 << 20
_EPSILON = 1e-9
_REPEATS = 2  # of which the quicker counts: something else may have run in between


@dataclass(frozen=True, slots=True)
class Measured:
    """What an operator costs and passes, on a few rows."""

    name: str

    seconds: float
    """A byte, what is shared with others included."""

    alone: float
    """A byte, when what is shared is there already."""

    passed: float
    """Share of the rows, of all that it was given; 1 for what is no filter."""


@dataclass(slots=True)
class _Probe:
    cold: float
    warm: float
    needs: frozenset[str]
    keep: Mask


def few(batch: Batch) -> Batch:
    """Rows at the beginning, enough to measure by."""
    size = np.cumsum(np.diff(batch.texts.offsets))
    rows = min(_ROWS, int(np.searchsorted(size, _BYTES)) + 1, len(batch))
    return Batch(batch.table.slice(0, rows))


def choose_order(operators: Sequence[Operator], batch: Batch) -> list[int]:
    """The numbers of the operators in the order in which they are to be carried out.

    Args:
        operators: none of which needs all rows.
        batch: the first rows of the segment.
    """
    found: list[int] = []
    rows = few(batch)
    i = 0
    while i < len(operators):
        run = [i]
        while (
            _moves(operators[i]) and run[-1] + 1 < len(operators) and _moves(operators[run[-1] + 1])
        ):
            run.append(run[-1] + 1)
        found += _best(run, operators, rows) if len(run) > 1 else run
        i = run[-1] + 1
        if i < len(operators):
            rows = _after(rows, [operators[k] for k in run if not operators[k].pays])
    return found


def _moves(one: Operator) -> bool:
    return isinstance(one, Filter) and not one.pays and "stats." not in str(one.describe())


def _after(rows: Batch, operators: Sequence[Operator]) -> Batch:
    from sharpen.data.steps import apply_operators
    from sharpen.data.trace import Trace

    names = [one.name for one in operators]
    return apply_operators(rows, operators, names, Trace(0), on_error="skip")[0]


def _best(run: Sequence[int], operators: Sequence[Operator], rows: Batch) -> list[int]:
    if not len(rows):
        return list(run)
    probes = {}
    for i in run:
        one = operators[i]
        assert isinstance(one, Filter)
        try:
            probes[i] = _probe(one, rows)
        except Exception:  # of a row that makes it fail; the run itself will say so
            return list(run)
    have: frozenset[str] = frozenset()
    alive = np.ones(len(rows), bool)
    left, order = list(run), []

    def rank(i: int) -> float:
        probe = probes[i]
        cost = probe.warm if probe.needs <= have else probe.cold
        passed = float(probe.keep[alive].mean()) if alive.any() else 1.0
        return cost / max(1 - passed, _EPSILON)

    while left:
        best = min(left, key=rank)
        left.remove(best)
        order.append(best)
        have |= probes[best].needs
        alive &= probes[best].keep
    return order


def _probe(one: Filter, rows: Batch) -> _Probe:
    one.measure(Batch(rows.table.slice(0, 1)))  # tables and kernels are loaded once, not each time
    colds, warms = [], []
    for _ in range(_REPEATS):
        fresh = Batch(rows.table)
        start = time.perf_counter()
        statistics = one.measure(fresh)
        middle = time.perf_counter()
        one.measure(fresh)
        colds.append(middle - start)
        warms.append(time.perf_counter() - middle)
    needs = frozenset(fresh.texts.__dict__) - {"column", "offsets", "data"}
    return _Probe(min(colds), min(warms), needs, one.keep(statistics))


def measure(
    operators: Sequence[Operator], names: Sequence[str], rows: Batch
) -> tuple[list[Measured], Batch]:
    """What each operator costs and passes in this order, and the rows that are left.

    Those that cost for each row are left out.
    """
    found = []
    for one, name in zip(operators, names, strict=True):
        if one.pays:
            continue
        size = max(rows.texts.bytes, 1)
        start, before = time.perf_counter(), rows
        rows = _after(rows, [one])
        cost = alone = (time.perf_counter() - start) / size
        if isinstance(one, Filter):
            start = time.perf_counter()
            one.measure(before)
            alone = min((time.perf_counter() - start) / size, cost)
        found.append(Measured(name, cost, alone, len(rows) / max(len(before), 1)))
    return found, rows


def known_order(folder: Path, key: str, operators: Sequence[Operator], batch: Batch) -> list[int]:
    """The order that was chosen before for the same rows, or one that is chosen now and kept.

    Args:
        folder: of the segment: a run that is begun again goes on in the same order.
        key: of the rows and the operators, for the user's cache: another run of the same gives the
            same reasons.
        operators: of a segment.
        batch: its first rows.
    """
    paths = (folder / "order.json", cache_home() / "data" / "orders" / f"{key}.json")
    for path in paths:
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(found, list) and sorted(found) == list(range(len(operators))):
            break
    else:
        found = choose_order(operators, batch)
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write_json(path, found)
        except (OSError, StorageError):  # an order that is lost is chosen again
            continue
    return list(found)
