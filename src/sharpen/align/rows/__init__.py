"""Reading feedback: files in TRL's formats, tokens, batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.align.rows.batches import label_batch, pad_rows, pair_batch, rank_batch, row_batch
    from sharpen.align.rows.inspect import RowsReport, inspect_rows
    from sharpen.align.rows.parse import KINDS, BadRow, Kind, Row
    from sharpen.align.rows.read import AlignRows, as_kind, read_feedback
    from sharpen.align.rows.tokens import TokenizedRows, TokenRow, prompt_ids, tokenize_rows

_MODULES = {
    "batches": ["label_batch", "pad_rows", "pair_batch", "rank_batch", "row_batch"],
    "inspect": ["RowsReport", "inspect_rows"],
    "parse": ["KINDS", "BadRow", "Kind", "Row"],
    "read": ["AlignRows", "as_kind", "read_feedback"],
    "tokens": ["TokenRow", "TokenizedRows", "prompt_ids", "tokenize_rows"],
}

__all__ = [
    "KINDS",
    "AlignRows",
    "BadRow",
    "Kind",
    "Row",
    "RowsReport",
    "TokenRow",
    "TokenizedRows",
    "as_kind",
    "inspect_rows",
    "label_batch",
    "pad_rows",
    "pair_batch",
    "prompt_ids",
    "rank_batch",
    "read_feedback",
    "row_batch",
    "tokenize_rows",
]

__getattr__ = exports(
    __name__,
    {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names},
)
