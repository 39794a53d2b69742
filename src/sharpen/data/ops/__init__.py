"""Operators of data recipes, each under its name: ``ops.text_length(min=50)``."""

from __future__ import annotations

from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.data.ops import dedup, filters, formats, llm, mappers, media, rows
from sharpen.data.ops.barrier import Barrier, CorpusMapper, Deduplicator, Selector
from sharpen.data.ops.base import (
    Annotator,
    Bound,
    Filter,
    Mapper,
    Miss,
    OneOf,
    Operator,
    Splitter,
    make_operator,
    operator,
    operator_names,
    operator_type,
)

__all__ = [
    "Annotator",
    "Barrier",
    "Bound",
    "CorpusMapper",
    "Deduplicator",
    "Filter",
    "Mapper",
    "Miss",
    "OneOf",
    "Operator",
    "Selector",
    "Splitter",
    "dedup",
    "filters",
    "formats",
    "llm",
    "make_operator",
    "mappers",
    "media",
    "operator",
    "operator_names",
    "operator_type",
    "rows",
]


def __getattr__(name: str) -> Any:
    """The operator of a name."""
    try:
        return operator_type(name)
    except ConfigError as error:
        raise AttributeError(str(error)) from None
