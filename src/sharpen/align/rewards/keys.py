"""The key of a row that a reward cannot do without, such as the right answer.

A reward tells it as ``needs``. That no row has it is a mistake, told before anything is learnt; of
rows that lack it, completions earn nothing.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from sharpen.align.rewards.registry import RewardFunction
from sharpen.align.rows import AlignRows
from sharpen.core.errors import DataError

__all__ = ["check_key", "judged"]

_log = logging.getLogger(__name__)


def check_key(function: RewardFunction, found: AlignRows) -> None:
    """See that the key that a reward needs is in some row.

    Raises:
        DataError: it is in none.
    """
    key = getattr(function, "needs", None)
    if key is None or any(key in row.meta for row in found.rows):
        return
    there = ", ".join(sorted({str(other) for row in found.rows for other in row.meta}))
    raise DataError(
        f"{found.rows[0].where.rpartition(':')[0]}: the reward needs the key '{key}', which none "
        f"of the {len(found)} rows has. "
        + (
            f"Their keys beside the text are: {there}. Name the right one, as in "
            "reward.options.key=KEY."
            if there
            else "They have no key beside the text: add it."
        )
    )


def judged(function: RewardFunction, found: AlignRows, *, skip_bad: bool = False) -> AlignRows:
    """The rows that a reward can judge; what lacks the key that it needs is told.

    Args:
        function: the reward.
        found: rows.
        skip_bad: leave those without the key out and count them; else they stay, and their
            completions are dropped.

    Raises:
        DataError: no row has the key.
    """
    check_key(function, found)
    key = getattr(function, "needs", None)
    kept = [row for row in found.rows if key is None or key in row.meta]
    lacking = len(found) - len(kept)
    if not lacking:
        return found
    _log.warning(
        "%s: %d of %d rows lack the key '%s' that the reward needs: %s",
        found.rows[0].where.rpartition(":")[0],
        lacking,
        len(found),
        key,
        "they are left out."
        if skip_bad
        else "their completions are dropped. To leave them out: skip_bad=True, or --skip-bad.",
    )
    if not skip_bad:
        return found
    return replace(found, rows=kept, skipped={**found.skipped, f"no {key}": lacking})
