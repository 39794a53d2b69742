"""Operators of data recipes, each under its name: ``ops.text_length(min=50)``."""

from __future__ import annotations

from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.data.ops import (
    audio,
    augment,
    characters,
    cleaning,
    contamination,
    dedup_exact,
    dedup_images,
    dedup_minhash,
    dedup_pieces,
    dedup_semantic,
    dedup_simhash,
    fields,
    grouping,
    image_models,
    images,
    language_id,
    language_models,
    latex,
    lines,
    lists,
    llm,
    markup,
    own_code,
    privacy,
    quality,
    questions,
    rewriting,
    selecting,
    sentences,
    shares,
    source_code,
    tokens,
    web,
    words,
)
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
    "audio",
    "augment",
    "characters",
    "cleaning",
    "contamination",
    "dedup_exact",
    "dedup_images",
    "dedup_minhash",
    "dedup_pieces",
    "dedup_semantic",
    "dedup_simhash",
    "fields",
    "grouping",
    "image_models",
    "images",
    "language_id",
    "language_models",
    "latex",
    "lines",
    "lists",
    "llm",
    "make_operator",
    "markup",
    "operator",
    "operator_names",
    "operator_type",
    "own_code",
    "privacy",
    "quality",
    "questions",
    "rewriting",
    "selecting",
    "sentences",
    "shares",
    "source_code",
    "tokens",
    "web",
    "words",
]


def __getattr__(name: str) -> Any:
    """The operator of a name."""
    try:
        return operator_type(name)
    except ConfigError as error:
        raise AttributeError(str(error)) from None
