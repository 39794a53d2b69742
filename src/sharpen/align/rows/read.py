"""Files of feedback: JSONL and what else ``sharpen.data`` reads, packed or not."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from sharpen.align.rows.parse import KINDS, BadRow, Kind, Row, parse_row
from sharpen.core.errors import ConfigError, DataError
from sharpen.data.finding import matching_files
from sharpen.data.readers import locate_file

__all__ = ["AlignRows", "Episodes", "as_kind", "read_feedback", "rows_with_faults"]

_log = logging.getLogger(__name__)

Episodes = Literal["successful", "all"]
"""Which trajectories are learnt from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignRows:
    """The rows of a file, all of one kind."""

    kind: Kind
    rows: list[Row]
    skipped: dict[str, int] = field(default_factory=dict)
    """How many rows were left out, by reason."""

    def __len__(self) -> int:
        return len(self.rows)


def read_feedback(
    path: str | Path,
    *,
    kind: Kind | None = None,
    skip_bad: bool = False,
    episodes: Episodes = "successful",
    limit: int | None = None,
) -> AlignRows:
    """Read a file of feedback, or all files of a folder or pattern.

    Args:
        path: ``.jsonl``, ``.jsonl.gz`` or another format that ``sharpen.data`` reads.
        kind: what is needed; rows of another kind become it where they can (:func:`as_kind`).
        skip_bad: leave bad rows out and count them; else the first one is an error.
        episodes: of trajectories, which are taken; failed ones are counted as left out.
        limit: read so many good rows.

    Raises:
        MissingFileError: there is no such file.
        DataError: a bad row (file, line, key), no rows, rows that cannot become ``kind``, or no
            episode that succeeded.
    """
    rows: list[Row] = []
    skipped: Counter[str] = Counter()
    failed = 0
    for row, fault in rows_with_faults(path):
        if row is not None:
            if row.trajectory is not None and not row.trajectory.success and episodes != "all":
                failed += 1
                continue
            rows.append(row)
            if limit is not None and len(rows) >= limit:
                break
            continue
        assert fault is not None
        if not skip_bad:
            raise DataError(f"{fault} To leave such rows out: skip_bad=True, or --skip-bad.")
        _log.debug("skipped: %s", fault)
        skipped[fault.reason] += 1
    if skipped:
        _log.warning("%s: %d bad rows are left out: %s", path, skipped.total(), dict(skipped))
    if failed:
        _log.info("%s: %d failed episodes are left out", path, failed)
        skipped["failed episode"] = failed
    if not rows and failed:
        raise DataError(
            f"{path}: none of {failed} episodes succeeded, so there is nothing to imitate. Play "
            "more (sharpen align play --draws), or learn from failed ones too with episodes=all."
        )
    if not rows:
        told = f" ({skipped.total()} bad rows were skipped)" if skipped else ""
        raise DataError(f"{path} has no rows{told}.")
    found = rows[0].kind
    if kind is not None and found != kind:
        rows = as_kind(rows, kind)
    return AlignRows(kind=kind or found, rows=rows, skipped=dict(skipped))


def rows_with_faults(path: str | Path) -> Iterator[tuple[Row | None, BadRow | None]]:
    """Each row of the files at a path, or what is wrong with it.

    The first good row decides the kind of all.

    Raises:
        MissingFileError: there is no such file.
        DataError: a file cannot be opened.
    """
    kind: Kind | None = None
    for file in matching_files(path):
        for where, raw, error, _ in locate_file(file):
            if error is not None:
                yield None, BadRow(f"{where}: {error}", "unreadable")
                continue
            try:
                row = parse_row(raw, where, kind)
            except BadRow as fault:
                yield None, fault
                continue
            kind = row.kind
            yield row, None


def as_kind(rows: Iterable[Row], kind: Kind) -> list[Row]:
    """Rows as another kind, where they hold what it needs.

    ==============  ========================================================================
    to              from
    ==============  ========================================================================
    ``prompt``      all but ``messages``
    ``completion``  ``preference``: what was chosen; ``ranked``: the best; ``label``: the
                    desirable ones
    ``label``       ``preference``: two rows each
    ``preference``  ``ranked``: the best and the worst, where their scores differ
    ``ranked``      ``preference``: scores 1 and 0
    ==============  ========================================================================

    Raises:
        ConfigError: there is no such kind.
        DataError: rows of this kind cannot become it, or none is left.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind={kind!r} of rows: {', '.join(KINDS)}.")
    found: list[Row] = []
    rows = list(rows)
    for row in rows:
        if row.kind == kind:
            found.append(row)
            continue
        change = _CHANGES.get((row.kind, kind))
        if change is None:
            able = [given for given, wanted in _CHANGES if wanted == kind]
            raise DataError(
                f"{row.where}: rows of the format '{row.kind}' cannot become '{kind}', which needs"
                f" that format{' or ' + ', '.join(sorted(able)) if able else ''}."
            )
        found += change(row)
    if rows and not found:
        raise DataError(f"{rows[0].where}: no row of '{rows[0].kind}' can become '{kind}'.")
    return found


def _to_prompt(row: Row) -> list[Row]:
    return [Row(where=row.where, kind="prompt", prompt=row.prompt, meta=row.meta)]


def _with(row: Row, index: int) -> Row:
    answer = (row.completions[index],)
    return replace(row, kind="completion", completions=answer, label=None, scores=())


def _best(row: Row) -> int:
    return max(range(len(row.scores)), key=row.scores.__getitem__)


def _unpaired(row: Row) -> list[Row]:
    return [
        replace(row, kind="label", completions=(answer,), label=label)
        for answer, label in zip(row.completions, (True, False), strict=True)
    ]


def _extremes(row: Row) -> list[Row]:
    best = _best(row)
    worst = min(range(len(row.scores)), key=row.scores.__getitem__)
    if row.scores[best] == row.scores[worst] or row.completions[best] == row.completions[worst]:
        return []
    pair = (row.completions[best], row.completions[worst])
    return [replace(row, kind="preference", completions=pair, scores=())]


_CHANGES: dict[tuple[Kind, Kind], Callable[[Row], list[Row]]] = {
    ("completion", "prompt"): _to_prompt,
    ("preference", "prompt"): _to_prompt,
    ("label", "prompt"): _to_prompt,
    ("ranked", "prompt"): _to_prompt,
    ("preference", "completion"): lambda row: [_with(row, 0)],
    ("ranked", "completion"): lambda row: [_with(row, _best(row))],
    ("label", "completion"): lambda row: [_with(row, 0)] if row.label else [],
    ("preference", "label"): _unpaired,
    ("ranked", "preference"): _extremes,
    ("preference", "ranked"): lambda row: [replace(row, kind="ranked", scores=(1.0, 0.0))],
}
