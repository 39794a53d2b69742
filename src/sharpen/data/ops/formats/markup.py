"""Mappers for pages in HTML, and for tables in plain text."""

from __future__ import annotations

import html
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sharpen.core.errors import ConfigError
from sharpen.data.batch import Batch
from sharpen.data.ops.base import Mapper, operator
from sharpen.data.ops.mappers.editing import edit_where_found, replace_where_found

__all__ = ["CleanHtml", "RemoveTableText"]

_SILENT = ("head", "script", "style", "noscript", "template", "svg", "iframe")
_UNSEEN = r"(?is)<!--.*?-->|" + "|".join(rf"<{t}\b[^>]*>.*?</{t}\s*>" for t in _SILENT)
_BLOCKS = "address|article|aside|blockquote|div|dl|dd|dt|figure|footer|form|h[1-6]|header|hr|main"
_BLOCKS += "|nav|ol|p|pre|section|table|tr|ul"
_ENDS = rf"(?is)<br\b[^>]*>|</(?:{_BLOCKS})\s*>"
_ITEM = r"(?is)<li\b[^>]*>"
_TAG = r"(?s)</?[a-zA-Z][^<>]*>|<[!?][^<>]*>"
_ENTITY = r"&(?:#[0-9]+|#[xX][0-9a-fA-F]+|[a-zA-Z][a-zA-Z0-9]*);?"
_GREATEST = 20


@operator("clean_html")
@dataclass(frozen=True, kw_only=True)
class CleanHtml(Mapper):
    """Takes the text out of HTML: no tags, scripts, styles or comments, and entities as characters.

    A line ends where a block ends (``</p>``, ``<br>``), and an item of a list begins a line with
    ``*``. Text is found by patterns, in linear time; nothing is repaired, and what the page would
    hide is kept.
    """

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        column = batch.texts.column
        for pattern, place in ((_UNSEEN, ""), (_ENDS, "\n"), (_ITEM, "\n* "), (_TAG, "")):
            column = replace_where_found(column, pattern, place)
        return edit_where_found(column, _ENTITY, html.unescape)


@operator("remove_table_text")
@dataclass(frozen=True, kw_only=True)
class RemoveTableText(Mapper):
    """Takes out tables: two or more lines in sequence of as many columns.

    Columns are parted by one space, tab or ``|``, so that lines of prose with as many words are
    taken for a table, too; raise ``min_columns`` or lower ``max_columns`` if there are such.
    """

    min_columns: int = 2
    """Least columns of a table."""

    max_columns: int = 20
    """Most columns of a table, at most 20."""

    def __post_init__(self) -> None:
        """Check the range."""
        if not 2 <= self.min_columns <= self.max_columns <= _GREATEST:
            raise ConfigError(
                f"min_columns={self.min_columns} and max_columns={self.max_columns} must be 2 to "
                f"{_GREATEST}, in this order."
            )

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        column = batch.texts.column
        for more in range(self.min_columns - 1, self.max_columns):
            table = rf"\n(?:\S+(?:[ |\t]\S+){{{more}}}\n+){{2,}}"
            column = pc.replace_substring_regex(column, table, "\n")
        return column
