"""Mappers for LaTeX: macros, what stands before the first heading, references, comments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sharpen.core.errors import DataError
from sharpen.data.batch import Batch
from sharpen.data.ops.base import Mapper, operator
from sharpen.data.ops.mappers.cleaning import compiled
from sharpen.data.ops.mappers.editing import edit_where, edit_where_found, replace_where_found

__all__ = ["ExpandMacro", "RemoveBibliography", "RemoveComments", "RemoveHeader"]

_DEFINED = (
    r"(?m)\\newcommand\b\*?\{(\\[a-zA-Z0-9]+)\}\{(.*?)\}$",
    r"(?m)\\def\s*(\\[a-zA-Z0-9]+)\s*\{(.*?)\}$",
)
_COMMAND = r"\\[a-zA-Z0-9]+"
_MOST = 16 << 20  # code points; macros inside macros double at each step

_HEADINGS = "chapter|part|section|subsection|subsubsection|paragraph|subparagraph"
_HEADING = rf"(?s)\\(?:{_HEADINGS})\b\*?(?:\[.*?\])?\{{.*?\}}"
_REFERENCES = (
    r"(?s)(?:\\appendix|\\begin\{(?:references|REFERENCES|thebibliography)\}"
    r"|\\bibliography\{.*\})"
)
_WHOLE_LINE = r"(?m)^%.*\n?"
_AFTER_TEXT = r"(?m)((?:^|[^%\\\n])(?:\\.)+|[^%\\\n])%.*"


@operator("expand_macro")
@dataclass(frozen=True, kw_only=True)
class ExpandMacro(Mapper):
    r"""Puts what macros stand for in their place: those without arguments, defined on one line.

    What one stands for may have another in it, but not one that has a third that is defined later.
    """

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        return edit_where_found(batch.texts.column, "|".join(_DEFINED), _expanded)


def _expanded(text: str) -> str:
    found: dict[str, str] = {}
    for pattern in _DEFINED:
        found |= {m.group(1): m.group(2) for m in compiled(pattern).finditer(text)}
    values: dict[str, str] = {}
    for name, value in found.items():
        values[name] = _put_in(value, values)
    return _put_in(_put_in(text, values), values)


def _put_in(text: str, values: dict[str, str]) -> str:
    def value(match: Any) -> str:
        written: str = match.group()
        return values.get(written, written)

    made: str = compiled(_COMMAND).sub(value, text)
    if len(made) > _MOST:
        raise DataError(f"its macros come to more than {_MOST} characters.")
    return made


def _start(pattern: str, text: str) -> int:
    """Where a pattern first matches, which it does."""
    found: int = compiled(pattern).search(text).start()
    return found


@operator("remove_header")
@dataclass(frozen=True, kw_only=True)
class RemoveHeader(Mapper):
    """Takes out what stands before the first chapter, section or paragraph."""

    drop_no_head: bool = True
    """Leave nothing of texts without one."""

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        column = batch.texts.column
        has = pc.match_substring_regex(column, _HEADING)
        cut = edit_where(column, has, lambda text: text[_start(_HEADING, text) :])
        return pc.if_else(has, cut, pa.scalar("", pa.large_string())) if self.drop_no_head else cut


@operator("remove_bibliography")
@dataclass(frozen=True, kw_only=True)
class RemoveBibliography(Mapper):
    """Takes out the appendix and the references, and all that follows."""

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        return edit_where_found(
            batch.texts.column, _REFERENCES, lambda text: text[: _start(_REFERENCES, text)]
        )


@operator("remove_comments")
@dataclass(frozen=True, kw_only=True)
class RemoveComments(Mapper):
    r"""Takes out comments: what follows ``%``, unless it is written ``\%``."""

    inline: bool = True
    """Those that follow some text on the line."""

    multiline: bool = True
    """Lines that begin with ``%``, as a whole."""

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        column = batch.texts.column
        if self.multiline:
            column = replace_where_found(column, _WHOLE_LINE, "")
        if self.inline:
            column = replace_where_found(column, _AFTER_TEXT, r"\1")
        return column
