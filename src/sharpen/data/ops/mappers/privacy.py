"""What must not be learned: addresses of people, their numbers, and secrets of programs.

What a pattern finds is checked where there is something to check: cards by Luhn's sum (ISO/IEC
7812-1), bank accounts by ISO 13616's remainder of 97, addresses of machines by their ranges.
"""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sharpen.data.batch import Batch
from sharpen.data.ops.base import Mapper, Range, Statistics, operator
from sharpen.data.ops.mappers.cleaning import EMAIL, compiled
from sharpen.data.ops.mappers.editing import edit_where_found

__all__ = ["MaskPii", "MaskSecrets", "Secrets"]

_IPV4 = r"\b(?:\d{1,3}\.){3}\d{1,3}\b"
_IPV6 = r"(?i)\b[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){2,7}"
_CARD = r"\b\d(?:[ -]?\d){12,18}\b"
_IBAN = r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"
_PHONE = r"\+\d[\d ()./-]{6,20}\d\b|\(\d{2,5}\) ?\d{3,4}[ .-]?\d{3,5}\b|\b\d{3}[.-]\d{3}[.-]\d{4}\b"

_KEYS = (
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",  # Amazon
    r"\bgh[opsur]_[A-Za-z0-9]{36,250}\b",  # GitHub
    r"\bgithub_pat_[A-Za-z0-9_]{22,250}\b",
    r"\bglpat-[A-Za-z0-9_-]{20,100}",  # GitLab
    r"\bxox[abeoprs]-[A-Za-z0-9-]{10,250}",  # Slack
    r"\bAIza[A-Za-z0-9_-]{35}",  # Google
    r"\b[rs]k_live_[A-Za-z0-9]{16,250}\b",  # Stripe
    r"\bsk-[A-Za-z0-9_-]{32,250}",  # OpenAI, Anthropic
    r"\bnpm_[A-Za-z0-9]{36}\b",
    r"\bhf_[A-Za-z0-9]{30,100}\b",  # Hugging Face
    r"\bpypi-[A-Za-z0-9_-]{50,500}",
    r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",  # JSON web tokens
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
    r"(?s:.*?)(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|$)",
    r"\b[a-z][a-z0-9+.-]*://[^\s:/@]+:[^\s:/@]{3,}@",  # a password in an address
)
_ASSIGNED = (
    r"(?i)\b[a-z0-9_.-]*(?:password|passwd|secret|api_?key|access_?key|auth_?token)\b"
    r"""["']?\s*(?::|=|=>|:=)\s*["']([^"'\s]{8,250})["']"""
)
_LEAST_BITS = 3.0  # for each character of an assigned value; words and placeholders have less


def _luhn(text: str) -> bool:
    digits = [int(c) for c in text if c.isdigit()]
    doubled = [sum(divmod(2 * d, 10)) for d in digits[-2::-2]]
    return len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _account(text: str) -> bool:
    plain = text.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def _public(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    groups = [group for group in text.split(":") if group]
    return address.is_global and (address.version == 4 or len(groups) > 2)


def _dialled(text: str) -> bool:
    return 7 <= sum(map(str.isdigit, text)) <= 15  # E.164 has at most 15


@operator("mask_pii")
@dataclass(frozen=True, kw_only=True)
class MaskPii(Mapper):
    """Puts marks in the place of addresses and numbers of people.

    Numbers of phones are found with ``+`` and a country, with an area in brackets, or in groups of
    3, 3 and 4. Names of people and places are not found.
    """

    emails: str | None = "<EMAIL>"
    """In the place of addresses of mail; null leaves them."""

    phones: str | None = "<PHONE>"
    """In the place of numbers of phones."""

    cards: str | None = "<CARD>"
    """In the place of numbers of payment cards whose check digit is right."""

    ibans: str | None = "<IBAN>"
    """In the place of international bank accounts whose check digits are right."""

    ips: str | None = "<IP>"
    """In the place of public addresses of machines, of version 4 and 6."""

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        column = batch.texts.column
        for pattern, mark, check in self._rules():
            column = _masked(column, pattern, mark, check)
        return column

    def _rules(self) -> Iterator[tuple[str, str, Callable[[str], bool] | None]]:
        for mark, patterns, check in (
            (self.emails, (EMAIL,), None),
            (self.ibans, (_IBAN,), _account),
            (self.cards, (_CARD,), _luhn),
            (self.ips, (_IPV4, _IPV6), _public),
            (self.phones, (_PHONE,), _dialled),
        ):
            if mark is not None:
                for pattern in patterns:
                    yield pattern, mark, check


def _masked(
    column: pa.Array, pattern: str, mark: str, check: Callable[[str], bool] | None
) -> pa.Array:
    if check is None:
        return pc.replace_substring_regex(column, pattern, mark.replace("\\", "\\\\"))
    matcher = compiled(pattern)

    def masked(match: Any) -> str:
        found: str = match.group()
        return mark if check(found) else found

    return edit_where_found(column, pattern, lambda text: matcher.sub(masked, text))


def _random(value: str) -> bool:
    """Whether a value looks like a key, not like a word or a placeholder."""
    counts = Counter(value).values()
    bits = -sum(c / len(value) * math.log2(c / len(value)) for c in counts)
    return any(map(str.isdigit, value)) and any(map(str.isalpha, value)) and bits >= _LEAST_BITS


@operator("secrets")
@dataclass(frozen=True, kw_only=True)
class Secrets(Range):
    """Keys, tokens and passwords in the text.

    Found are keys of well-known services by their form, private keys, passwords in addresses, and
    what names such as ``api_key`` are set to, if it looks random.
    """

    max: float = 0
    """Greatest value to keep."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        column = batch.texts.column
        keys = pc.count_substring_regex(column, "|".join(_KEYS)).to_numpy()
        assigned = np.zeros(len(column), np.int64)
        maybe = pc.match_substring_regex(column, _ASSIGNED).to_numpy(zero_copy_only=False)
        for i in np.nonzero(maybe)[0]:
            found = compiled(_ASSIGNED).finditer(column[int(i)].as_py())
            assigned[i] = sum(_random(match.group(1)) for match in found)
        return {self.name: keys + assigned}


@operator("mask_secrets")
@dataclass(frozen=True, kw_only=True)
class MaskSecrets(Mapper):
    """Puts a mark in the place of keys, tokens and passwords; the same that ``secrets`` finds."""

    repl: str = "<SECRET>"
    """What stands in their place."""

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        column = _masked(batch.texts.column, "|".join(_KEYS), self.repl, None)
        matcher = compiled(_ASSIGNED)

        def masked(match: Any) -> str:
            found, value = str(match.group()), str(match.group(1))
            return found.replace(value, self.repl) if _random(value) else found

        return edit_where_found(column, _ASSIGNED, lambda text: matcher.sub(masked, text))
