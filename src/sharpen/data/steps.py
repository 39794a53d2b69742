"""One batch through the operators between two places where the whole data set must be known.

Filters that follow each other measure the same texts, so that what they share is computed once; the
rows that one drops are taken out before the next only when less than half are left. The order is
that of the recipe. A row that makes an operator fail is dropped with the reason, or ends the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sharpen.core.errors import ConfigError, DataError, NotInstalledError, StorageError
from sharpen.core.lm.errors import BudgetExhausted, ServiceError
from sharpen.data.batch import ID, STATISTICS, Batch, Mask
from sharpen.data.ops.base import Annotator, Filter, Mapper, Operator, Splitter, Statistics
from sharpen.data.trace import Tally, Trace

__all__ = ["OnError", "apply_operators", "measure_operators"]

OnError = Literal["fail", "skip", "quarantine"]
R = TypeVar("R")

_OF_ALL_ROWS = (NotInstalledError, ConfigError, StorageError, BudgetExhausted, ServiceError)
"""Errors that are no row's."""

_KEEP = "keep."  # of columns that go along while rows may still be taken out


@dataclass(slots=True)
class _State:
    """A batch of which some rows are dropped already, though still there."""

    batch: Batch
    trace: Trace
    on_error: OnError
    alive: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.alive = np.ones(len(self.batch), bool)

    def settle(self) -> None:
        """Take out what is dropped."""
        if not self.alive.all():
            self.replace(self.batch.select(self.alive))

    def replace(self, batch: Batch) -> None:
        self.batch = batch
        self.alive = np.ones(len(batch), bool)


def apply_operators(
    batch: Batch,
    operators: Sequence[Operator],
    names: Sequence[str],
    trace: Trace,
    *,
    keep_statistics: bool = False,
    on_error: OnError = "fail",
) -> tuple[Batch, list[Tally]]:
    """Take a batch through filters, mappers, annotators and splitters, in order.

    Args:
        batch: the rows.
        operators: none of which needs the whole data set.
        names: of each, as they are to stand in the trace.
        trace: is told what happens to rows.
        keep_statistics: keep what filters measured as columns.
        on_error: what a row is to do that makes an operator fail.

    Returns:
        The rows that are left, and what each operator did.

    Raises:
        DataError: an operator failed, with ``on_error="fail"``; it names the row.
    """
    state, tallies = _State(batch, trace, on_error), []
    for one, name in zip(operators, names, strict=True):
        begin = time.perf_counter()
        tally = Tally(rows_in=int(state.alive.sum()))
        if isinstance(one, Filter):
            if one.pays or 2 * tally.rows_in < len(state.alive):
                state.settle()
            _filter(state, one, name, keep_statistics, tally)
        else:
            state.settle()
            if isinstance(one, Mapper):
                _map(state, one, name, tally)
            elif isinstance(one, Annotator):
                found = _try(state, name, tally, one.annotate)
                state.replace(state.batch.with_fields(found))
            else:
                assert isinstance(one, Splitter), one
                _split(state, one, name, tally)
        tally.rows_out = int(state.alive.sum())
        tally.seconds = time.perf_counter() - begin
        tallies.append(tally)
    state.settle()
    return state.batch, tallies


def measure_operators(
    batch: Batch, operators: Sequence[Operator], *, on_error: str = "fail"
) -> tuple[Batch, int, dict[str, Mask]]:
    """Take a batch through operators with filters that measure and drop nothing.

    Args:
        batch: the rows.
        operators: none of which needs the whole data set.
        on_error: ``skip`` leaves out rows that make an operator fail.

    Returns:
        The rows with all that was measured, how many failed, and the rows that each filter would
        keep.

    Raises:
        DataError: an operator failed, with ``on_error="fail"``; it names the row.
    """
    state = _State(batch, Trace(0), "fail" if on_error == "fail" else "skip")
    keeps: dict[str, Mask] = {}
    names: set[str] = set()
    for one in operators:
        tally = Tally()
        if isinstance(one, Filter):
            statistics = _try(state, one.name, tally, one.measure)
            columns = _columns(one, statistics)
            if one.name in names:
                raise ConfigError(f"'{one.name}' is measured twice; leave one out.")
            names.add(one.name)
            keep = one.keep(statistics)
            state.batch = state.batch.with_statistics({**columns, f"{_KEEP}{one.name}": keep})
        elif isinstance(one, Mapper):
            _map(state, one, one.name, tally)
        elif isinstance(one, Annotator):
            state.replace(state.batch.with_fields(_try(state, one.name, tally, one.annotate)))
        else:
            assert isinstance(one, Splitter), one
            _split(state, one, one.name, tally)
    table = state.batch.table
    for name in table.schema.names:
        if name.startswith(STATISTICS + _KEEP):
            column = table.column(name).to_numpy(zero_copy_only=False)
            keeps[name.removeprefix(STATISTICS + _KEEP)] = column
            table = table.drop_columns([name])
    failed = sum(operator is not None for _, operator, *_ in state.trace.dropped)
    return Batch(table), failed, keeps


def _columns(one: Filter, statistics: Statistics) -> dict[str, Any]:
    """What a filter measured, by the name of its column."""
    return {(key if key == one.name else f"{one.name}.{key}"): v for key, v in statistics.items()}


def _try(state: _State, name: str, tally: Tally, call: Callable[[Batch], R]) -> R:
    """``call`` on the batch; rows that make it fail are dropped first."""
    try:
        return call(state.batch)
    except _OF_ALL_ROWS:
        raise
    except Exception:
        fine = state.alive.copy()
        for i, id in enumerate(state.batch.ids.to_pylist()):
            try:
                if fine[i]:
                    call(Batch(state.batch.table.slice(i, 1)))
            except _OF_ALL_ROWS:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                if state.on_error == "fail":
                    raise DataError(
                        f"the operator '{name}' failed on row {id}: {reason}. To leave such rows "
                        "out: on_error=skip."
                    ) from error
                fine[i] = False
                state.trace.drop(id, name, reason=reason)
                if state.on_error == "quarantine":
                    state.trace.fail(id, name, error, state.batch.row(i))
                tally.failed += 1
        if fine.all():
            raise  # no row alone makes it fail
        state.replace(state.batch.select(fine))
        return call(state.batch)


def _filter(state: _State, one: Filter, name: str, keep_statistics: bool, tally: Tally) -> None:
    statistics = _try(state, name, tally, one.measure)
    keep = one.keep(statistics)
    gone = np.nonzero(state.alive & ~keep)[0]
    if len(gone):
        ids = state.batch.ids.take(pa.array(gone)).to_pylist()
        for i, id in zip(gone, ids, strict=True):
            miss = one.miss(statistics, int(i))
            state.trace.drop(
                id,
                name,
                statistic=miss.statistic,
                value=miss.value,
                threshold=miss.threshold,
                reason=miss.reason,
            )
    state.alive &= keep
    if keep_statistics:
        state.batch = state.batch.with_statistics(_columns(one, statistics))


def _map(state: _State, one: Mapper, name: str, tally: Tally) -> None:
    texts = _try(state, name, tally, one.edit)
    before = state.batch
    if texts is before.texts.column:
        return
    after = before.with_texts(texts)
    changed = np.nonzero(
        pc.not_equal(before.texts.column, after.texts.column).to_numpy(zero_copy_only=False)
    )[0]
    tally.edited = len(changed)
    if not len(changed):
        return
    rows = pa.array(changed)
    for id, old, new in zip(
        before.ids.take(rows).to_pylist(),
        before.texts.column.take(rows).to_pylist(),
        after.texts.column.take(rows).to_pylist(),
        strict=True,
    ):
        state.trace.edit(id, name, old, new)
    state.replace(after)


def _split(state: _State, one: Splitter, name: str, tally: Tally) -> None:
    parts = _try(state, name, tally, one.split)
    ids = state.batch.table.column(ID).to_pylist()
    rows, new_ids, texts = [], [], []
    for i, (id, made) in enumerate(zip(ids, parts, strict=True)):
        if not made:
            state.trace.drop(id, name, reason="nothing was left of it")
            continue
        state.trace.made += len(made) - 1
        for j, text in enumerate(made):
            rows.append(i)
            new_ids.append(f"{id}.{j}" if len(made) > 1 else id)
            texts.append(text)
    taken = state.batch.take(np.array(rows, np.int64), new_ids, pa.array(texts, pa.large_string()))
    state.replace(taken)
