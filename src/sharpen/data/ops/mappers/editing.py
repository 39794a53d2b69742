"""Editing some of a column's texts by a function of Python; the others are copied as they lie."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["edit_each", "edit_where", "edit_where_found", "replace_where_found"]


def edit_where(column: pa.Array, which: pa.Array, edit: Callable[[str], str]) -> pa.Array:
    """[n] large strings, edited where ``which`` holds; the column itself if nowhere.

    Args:
        column: [n] large strings.
        which: [n] booleans.
        edit: of one text.
    """
    if not pc.any(which).as_py():
        return column
    made = [edit(text) for text in column.filter(which).to_pylist()]
    return pc.replace_with_mask(column, which, pa.array(made, pa.large_string()))


def edit_where_found(column: pa.Array, pattern: str, edit: Callable[[str], str]) -> pa.Array:
    """[n] large strings, edited where a pattern of RE2 matches; see :func:`edit_where`."""
    return edit_where(column, pc.match_substring_regex(column, pattern), edit)


def replace_where_found(column: pa.Array, pattern: str, place: str) -> pa.Array:
    r"""[n] large strings with a pattern of RE2 replaced; the column itself if it is nowhere.

    To look whether a pattern matches is faster than to replace it, so that this pays where few
    texts have it.

    Args:
        column: [n] large strings.
        pattern: what is replaced.
        place: what takes its place; ``\1`` is the first group.
    """
    which = pc.match_substring_regex(column, pattern)
    if not pc.any(which).as_py():
        return column
    made = pc.replace_substring_regex(column.filter(which), pattern, place)
    return pc.replace_with_mask(column, which, made)


def edit_each(column: pa.Array, edit: Callable[[str], str]) -> pa.Array:
    """[n] large strings, each edited."""
    return pa.array([edit(text) for text in column.to_pylist()], pa.large_string())
