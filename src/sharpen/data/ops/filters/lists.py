"""Filters by lists and patterns of yours: domains, phrases, regular expressions."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow.compute as pc

from sharpen.core.errors import ConfigError, DataError, MissingFileError
from sharpen.core.files import sha256_file
from sharpen.data.batch import Batch, Mask
from sharpen.data.ops.base import Filter, Miss, Range, Statistics, operator
from sharpen.data.ops.mappers.cleaning import compiled

__all__ = ["ListedPhrases", "MatchesNumber", "UrlBlocklist"]


@functools.lru_cache(maxsize=16)
def _lines(path: str, stamp: float) -> tuple[str, ...]:
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return tuple(text for line in lines if (text := line.strip()) and not text.startswith("#"))


def read_list(file: str | None) -> tuple[str, ...]:
    """What a file lists, one a line; blank lines and those that begin with ``#`` are left out.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is no text.
    """
    if file is None:
        return ()
    path = Path(file)
    try:
        return _lines(file, path.stat().st_mtime)
    except FileNotFoundError:
        raise MissingFileError(f"no such file: {file}") from None
    except UnicodeDecodeError:
        raise DataError(f"{file} is not UTF-8.") from None


@operator("url_blocklist")
@dataclass(frozen=True, kw_only=True)
class UrlBlocklist(Filter):
    """Drops pages of domains that are listed, and those whose address has a listed word."""

    field: str = "url"
    """Where the address stands; rows without one stay."""

    domains: tuple[str, ...] = ()
    """Such as ``example.org``, which blocks ``a.example.org``, too."""

    file: str | None = None
    """A file of more domains, one a line."""

    words: tuple[str, ...] = ()
    """Words of the address, as letters and digits part it, in lower case."""

    def __post_init__(self) -> None:
        """Check that there is something to look for."""
        if not (self.domains or self.file or self.words):
            raise ConfigError("url_blocklist needs domains, a file of domains, or words.")
        read_list(self.file)

    def describe(self) -> dict[str, Any]:
        """See :class:`Operator`; a changed file is another operator."""
        more = {} if self.file is None else {"sha256": sha256_file(Path(self.file))}
        return {**super().describe(), **more}

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        domains = {one.lower().strip(".") for one in (*self.domains, *read_list(self.file))}
        words = {word.lower() for word in self.words}
        found = np.empty(len(batch), object)
        for i, url in enumerate(batch.field(self.field)):
            found[i] = _listed(url.lower(), domains, words) if isinstance(url, str) else None
        return {self.name: found}

    def keep(self, statistics: Statistics) -> Mask:
        """See :class:`Filter`."""
        return np.array([value is None for value in statistics[self.name]], bool)

    def miss(self, statistics: Statistics, row: int) -> Miss:
        """See :class:`Filter`."""
        return Miss(self.name, reason=f"{statistics[self.name][row]} is listed")


def _listed(url: str, domains: set[str], words: set[str]) -> str | None:
    try:
        host = urlsplit(url if "//" in url else f"//{url}").hostname or ""
    except ValueError:
        host = ""
    parts = host.strip(".").split(".")
    for k in range(len(parts)):
        if (domain := ".".join(parts[k:])) in domains:
            return domain
    return next((w for w in re.findall(r"[^\W_]+", url) if w in words), None) if words else None


@operator("listed_phrases")
@dataclass(frozen=True, kw_only=True)
class ListedPhrases(Range):
    """How often words or phrases of a list stand in the text, in upper or lower case.

    They count where no letter, digit or underscore of ASCII stands before and after.
    """

    phrases: tuple[str, ...] = ()
    """The list."""

    file: str | None = None
    """A file of more, one a line."""

    max: float = 0
    """Greatest value to keep."""

    def __post_init__(self) -> None:
        """Check that there is a list."""
        super().__post_init__()
        if not self.phrases and not self.file:
            raise ConfigError("listed_phrases needs phrases, or a file of them.")
        compiled(self._pattern)

    def describe(self) -> dict[str, Any]:
        """See :class:`Operator`; a changed file is another operator."""
        more = {} if self.file is None else {"sha256": sha256_file(Path(self.file))}
        return {**super().describe(), **more}

    @property
    def _pattern(self) -> str:
        phrases = sorted({*self.phrases, *read_list(self.file)}, key=lambda p: (-len(p), p))
        words = "|".join(re.escape(phrase) for phrase in phrases)
        return rf"(?i)(?:^|\W)(?:{words})(?:$|\W)"

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        return {self.name: pc.count_substring_regex(batch.texts.column, self._pattern).to_numpy()}


@operator("matches_num")
@dataclass(frozen=True, kw_only=True)
class MatchesNumber(Range):
    """How often a pattern matches."""

    pattern: str
    """For RE2."""

    def __post_init__(self) -> None:
        """Check the pattern."""
        super().__post_init__()
        compiled(self.pattern)

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        return {self.name: pc.count_substring_regex(batch.texts.column, self.pattern).to_numpy()}
