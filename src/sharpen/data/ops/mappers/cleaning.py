"""Mappers that take out or even out what is no text: links, addresses, white space.

Patterns run on RE2, whose time is linear in the text, so that no text and no pattern can hang a
run; what RE2 cannot say (look-around, back-references) is refused when the recipe is read.
"""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from sharpen.core.errors import ConfigError, DependencyNotInstalled
from sharpen.data.batch import Batch
from sharpen.data.ops.base import Mapper, operator

__all__ = [
    "EMAIL",
    "CleanEmail",
    "CleanIp",
    "CleanLinks",
    "FixUnicode",
    "ReplaceContent",
    "WhitespaceNormalization",
    "compiled",
]

EMAIL = r"[A-Za-z0-9._%+\-]+@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)+"
_IP = (
    r"\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b"
    r"|\b(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}\b"
)
_LINK = r"(?i)\b(?:(?:https?|ftps?)://|www\.)[^\s<>\"'`)\]}]*[^\s<>\"'`)\]}.,;:!?]"


@functools.lru_cache(maxsize=256)
def compiled(pattern: str) -> Any:
    """A pattern for RE2.

    Raises:
        ConfigError: RE2 does not take it.
        DependencyNotInstalled: there is no RE2.
    """
    try:
        import re2
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("regular expressions", "data") from None
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise ConfigError(
            f"the pattern {pattern!r} is not one of RE2: {reason}. It has no look-around and no "
            "back-references; its syntax: https://github.com/google/re2/wiki/Syntax"
        ) from None


@dataclass(frozen=True, kw_only=True)
class Replacing(Mapper):
    """Replaces what matches a pattern."""

    pattern: str | None = None
    """Another pattern than the operator's own."""

    repl: str = ""
    """What stands in its place, as it is."""

    def __post_init__(self) -> None:
        """Check the pattern."""
        compiled(self._pattern)

    @property
    def _pattern(self) -> str:
        return self.pattern or ""

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        return pc.replace_substring_regex(
            batch.texts.column, self._pattern, self.repl.replace("\\", "\\\\")
        )


@operator("clean_links")
@dataclass(frozen=True, kw_only=True)
class CleanLinks(Replacing):
    """Takes out addresses of pages: http, https, ftp, and what begins with ``www.``."""

    @property
    def _pattern(self) -> str:
        return self.pattern or _LINK


@operator("clean_email")
@dataclass(frozen=True, kw_only=True)
class CleanEmail(Replacing):
    """Takes out addresses of mail."""

    @property
    def _pattern(self) -> str:
        return self.pattern or EMAIL


@operator("clean_ip")
@dataclass(frozen=True, kw_only=True)
class CleanIp(Replacing):
    """Takes out addresses of machines: four numbers up to 255, or eight groups in hexadecimal."""

    @property
    def _pattern(self) -> str:
        return self.pattern or _IP


@operator("replace_content")
@dataclass(frozen=True, kw_only=True)
class ReplaceContent(Replacing):
    """Replaces what matches a pattern of yours."""

    def __post_init__(self) -> None:
        """Check that there is a pattern."""
        if not self.pattern:
            raise ConfigError("replace_content needs a pattern.")
        super().__post_init__()


@operator("whitespace_normalization")
@dataclass(frozen=True, kw_only=True)
class WhitespaceNormalization(Mapper):
    """Makes every white space but line feeds and tabs a plain space, and strips both ends."""

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        plain = pc.replace_substring_regex(batch.texts.column, _odd_spaces(), " ")
        return pc.utf8_trim_whitespace(plain)


@functools.cache
def _odd_spaces() -> str:
    found = [p for p in range(0x110000) if chr(p).isspace() and chr(p) not in " \n\t\r"]
    return "[" + "".join(f"\\x{{{p:x}}}" for p in found) + "]"


@operator("fix_unicode")
@dataclass(frozen=True, kw_only=True)
class FixUnicode(Mapper):
    """Brings characters to one form, and takes out controls, byte order marks and half characters.

    Line ends become line feeds. Characters that were decoded wrongly are not repaired.
    """

    normalization: Literal["NFC", "NFKC", "NFD", "NFKD"] = "NFC"
    """Unicode's form."""

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        column = pc.replace_substring_regex(batch.texts.column, r"\r\n?|\x{85}|\x{2028}", "\n")
        column = pc.replace_substring_regex(
            column, r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}\x{feff}\x{fffe}\x{ffff}]", ""
        )
        if pc.all(pc.string_is_ascii(column)).as_py() in (True, None):
            return column
        form = self.normalization
        return pa.array(
            [unicodedata.normalize(form, text) for text in column.to_pylist()], pa.large_string()
        )
