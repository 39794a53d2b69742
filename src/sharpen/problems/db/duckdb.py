"""DuckDB's settings for the queries of TPC-H (extra ``duckdb``).

Twenty settings: threads and memory, thresholds of joins and aggregates, and which passes of its
optimizer run. A trial opens the data as it is on disk, applies its settings, runs every query once,
compares its rows with those under DuckDB's defaults, and times ``repeats`` further passes::

    seconds = sum over queries of the least time over passes

by the processor's time of all threads, which other work on the machine disturbs little, or by the
clock. A configuration under which a query goes on for too long is interrupted (``timeout``), and
one that changes an answer fails.

The data are made by DuckDB's own generator, once for each scale and version, in the cache folder:
50 MB and some seconds at scale 0.1. Transaction Processing Performance Council, TPC Benchmark H,
revision 3.0.1; results are not TPC results.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from sharpen.core.errors import ConfigError, DataError, DependencyNotInstalled
from sharpen.core.feedback import Feedback
from sharpen.core.files import FileLock, cache_home
from sharpen.core.parameters import Bool, Int, Parameter
from sharpen.core.problem import Objective, TrialContext
from sharpen.core.space import Space

__all__ = ["DuckDB"]

_PASSES = (
    *("build_side_probe_side", "common_subplan", "compressed_materialization", "cte_inlining"),
    *("join_filter_pushdown", "late_materialization", "reorder_filter", "row_group_pruner"),
    *("statistics_propagation", "top_n"),
)
"""Of the optimizer, without those whose absence makes cross products."""
_MAKING_S = 600.0  # as long as another process may take to make the data


class DuckDB:
    """Find the settings under which DuckDB answers TPC-H in the least time.

    Args:
        scale: factor of TPC-H; 1 is 6 million rows of line items.
        queries: numbers from 1 to 22; default all.
        repeats: timed passes over them.
        measure: ``"cpu"``, seconds of the processor, or ``"wall"``, of the clock.
        limit_s: of the clock, for one pass over the queries.

    Raises:
        ConfigError: an option is out of its range.
        DependencyNotInstalled: DuckDB or its TPC-H extension is missing.
    """

    constraints = ()

    def __init__(
        self,
        scale: float = 0.1,
        *,
        queries: Sequence[int] | None = None,
        repeats: int = 3,
        measure: Literal["cpu", "wall"] = "cpu",
        limit_s: float = 60.0,
    ) -> None:
        chosen = tuple(range(1, 23)) if queries is None else tuple(queries)
        if not 0 < scale < math.inf or repeats < 1 or not 0 < limit_s < math.inf:
            raise ConfigError(
                f"scale={scale}, repeats={repeats}, limit_s={limit_s} must be above 0 and finite."
            )
        if not chosen or not all(1 <= q <= 22 for q in chosen):
            raise ConfigError(f"queries={chosen} must be numbers from 1 to 22.")
        if measure not in ("cpu", "wall"):
            raise ConfigError(f"measure={measure!r} must be cpu or wall.")
        self.scale, self.queries, self.repeats = scale, chosen, repeats
        self.measure, self.limit_s = measure, limit_s
        self.name = "duckdb-tpch"
        self.objectives = (Objective("seconds", unit="s"),)
        self._data: Path | None = None
        self._answers: dict[int, list[tuple[Any, ...]]] = {}
        parameters: dict[str, Parameter] = {
            "threads": Int(1, max(2, len(os.sched_getaffinity(0))), log=True),
            "memory_mb": Int(128, 8192, log=True, default=2048),
            "preserve_insertion_order": Bool(default=True),
            "prefer_range_joins": Bool(default=False),
            "perfect_ht_threshold": Int(0, 24, default=12),
            "ordered_aggregate_threshold": Int(1024, 1 << 20, log=True, default=262_144),
            "merge_join_threshold": Int(1, 1_000_000, log=True, default=1000),
            "nested_loop_join_threshold": Int(1, 1000, log=True, default=5),
            "late_materialization_max_rows": Int(1, 10_000, log=True, default=50),
            "dynamic_or_filter_threshold": Int(1, 1000, log=True, default=50),
        }
        for name in _PASSES:
            parameters[f"optimizer.{name}"] = Bool(default=True)
        self.space = Space(parameters)

    def __getstate__(self) -> dict[str, Any]:
        """Without answers, which each process asks for itself."""
        return {**self.__dict__, "_data": None, "_answers": {}}

    def evaluate(self, config: dict[str, Any], trial: TrialContext | None = None) -> Any:
        """Answer all queries under a configuration; see :meth:`Problem.evaluate`.

        Raises:
            DataError: an answer is another than under the defaults.
        """
        if not self._answers:
            self._answers = self._run({}, 0)[0]
        found, times = self._run(config, self.repeats)
        if found is None:
            text = f"a pass took more than limit_s={self.limit_s:g} seconds."
            return Feedback(status="timeout", error=text)
        for query, rows in found.items():
            if not _same(rows, self._answers[query]):
                raise DataError(f"query {query} has another answer under these settings.")
        least = {query: min(several) for query, several in times.items()}
        return Feedback(
            objectives={"seconds": sum(least.values())},
            info={"seconds": {str(query): value for query, value in least.items()}},
        )

    def settings(self, config: dict[str, Any]) -> list[str]:
        """The statements that make a configuration hold."""
        lines = []
        for name, value in config.items():
            if name == "memory_mb":
                lines.append(f"SET memory_limit = '{value}MB'")
            elif not name.startswith("optimizer."):
                lines.append(f"SET {name} = {str(value).lower()}")
        off = [name for name in _PASSES if not config.get(f"optimizer.{name}", True)]
        return [*lines, f"SET disabled_optimizers = '{','.join(off)}'"]

    def _run(self, config: dict[str, Any], repeats: int) -> tuple[Any, dict[int, list[float]]]:
        """Answers of each query, None if it took too long; seconds of each in further passes."""
        duckdb = _import()
        if self._data is None:
            self._data = _make_data(self.scale)
        clock = time.process_time if self.measure == "cpu" else time.perf_counter
        times: dict[int, list[float]] = {query: [] for query in self.queries}
        answers: dict[int, list[tuple[Any, ...]]] = {}
        with duckdb.connect(str(self._data), read_only=True) as connection:
            connection.execute("LOAD tpch")
            texts = dict(connection.execute("FROM tpch_queries()").fetchall())
            for statement in self.settings(config):
                connection.execute(statement)
            for number in range(repeats + 1):
                alarm = threading.Timer(self.limit_s, connection.interrupt)
                alarm.start()
                try:
                    for query in self.queries:
                        begin = clock()
                        rows = connection.execute(texts[query]).fetchall()
                        if number:
                            times[query].append(clock() - begin)
                        else:
                            answers[query] = rows
                except duckdb.InterruptException:
                    return None, times
                finally:
                    alarm.cancel()
        return answers, times


def _import() -> Any:
    try:
        import duckdb
        import duckdb_extensions
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("the problem 'duckdb-tpch'", "duckdb") from None
    try:
        with duckdb.connect() as connection:
            duckdb_extensions.import_extension("tpch", con=connection)
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("the problem 'duckdb-tpch'", "duckdb") from None
    return duckdb


def _make_data(scale: float) -> Path:
    """The database of a scale, made when first needed."""
    duckdb = _import()
    folder = cache_home() / "tpch"
    path = folder / f"duckdb-{duckdb.__version__}-{scale:g}.db"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"), f"the data of {path.name}")
    lock.acquire(_MAKING_S)
    try:
        if not path.exists():
            partial = path.with_suffix(".partial")
            for left in folder.glob(f"{partial.name}*"):  # of a process that was killed
                left.unlink()
            with duckdb.connect(str(partial)) as connection:
                connection.execute("LOAD tpch")
                connection.execute(f"CALL dbgen(sf = {scale!r})")
                connection.execute("CHECKPOINT")
            partial.replace(path)
    finally:
        lock.release()
    return path


def _same(found: Sequence[tuple[Any, ...]], wanted: Sequence[tuple[Any, ...]]) -> bool:
    """Whether rows are equal but for the rounding of sums in another order."""
    return len(found) == len(wanted) and all(
        len(a) == len(b) and all(map(_equal, a, b)) for a, b in zip(found, wanted, strict=True)
    )


def _equal(found: Any, wanted: Any) -> bool:
    if isinstance(found, float) and isinstance(wanted, float):
        return math.isclose(found, wanted, rel_tol=1e-9)
    return bool(found == wanted)
