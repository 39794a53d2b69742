"""Texts to learn from, wherever they are, as columns of some at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

from sharpen.core.errors import ConfigError, DataError
from sharpen.data.sources import FileSource, Source
from sharpen.data.statistics import Texts

if TYPE_CHECKING:
    from sharpen.data.dataset import Dataset

__all__ = ["Given", "columns_of"]

Given: TypeAlias = Union[str, Path, "Dataset", Iterable[str], Iterable[Path]]
"""A file, folder or pattern, several of them as ``Path``, a data set, or the texts themselves."""

_AT_ONCE = 4096


def columns_of(texts: Given, text_key: str = "text") -> Iterator[Texts]:
    """Texts from where they are, some at a time.

    Args:
        texts: see :data:`Given`.
        text_key: where a row's text stands in files.

    Raises:
        ConfigError: a data set whose operators have not been carried out.
        DataError: a row without a text.
    """
    from sharpen.data.dataset import Dataset  # which knows the operators, some of which learn

    if isinstance(texts, Dataset):
        if texts.operators:
            raise ConfigError("the data set has operators: write it, and read what was written.")
        yield from _columns(texts.source)
        return
    if isinstance(texts, (str, Path)):
        yield from _columns(FileSource(texts, text_key=text_key))
        return
    rest = iter(texts)
    while some := list(itertools.islice(rest, _AT_ONCE)):
        for path in some:
            if isinstance(path, Path):
                yield from _columns(FileSource(path, text_key=text_key))
        yield Texts([text for text in some if isinstance(text, str)])


def _columns(source: Source) -> Iterator[Texts]:
    for batch in source:
        if batch.left:
            raise DataError(str(batch.left[0].reason))
        yield batch.rows.texts
