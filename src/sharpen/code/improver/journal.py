"""What was tried, kept as it happens, so that a run that was ended goes on where it was.

``attempts.jsonl`` begins with a line that says what the attempts belong to; those of another file,
other inputs or other settings are not used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from sharpen.core.errors import storage_errors

__all__ = ["Attempt", "Journal", "Verdict"]

Verdict = Literal["kept", "refused", "wrong", "slower", "failed"]
"""``refused`` before it ran, ``wrong`` for an input, not faster (``slower``), or ``failed`` in the
end: its tests, or the last measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A text that was tried."""

    text: str
    origin: str
    """``rewrite``, ``llm`` or ``user``."""

    steps: tuple[str, ...]
    """What was done, one after another."""

    explain: str
    risk: str
    verdict: Verdict
    reason: str = ""
    score: float = 0.0
    """How many times as good it seemed at the largest inputs; a first look, no evidence."""

    opcodes: int = 0
    """Instructions of the interpreter; 0 where they were not counted."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"format": 1, **asdict(self), "steps": list(self.steps)}


def text_key(text: str) -> str:
    """A short name of a text."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass(slots=True)
class Journal:
    """Attempts of a run.

    Args:
        path: the file; None keeps them in memory alone.
        key: of what they belong to.
    """

    path: Path | None
    key: str
    attempts: list[Attempt] = field(default_factory=list)
    reused: int = 0
    _earlier: dict[str, Attempt] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path is None:
            return
        self._earlier = {text_key(one.text): one for one in self._read()}
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps({"format": 1, "key": self.key})]
            lines += [json.dumps(one.to_dict()) for one in self._earlier.values()]
            part = self.path.with_suffix(".part")
            part.write_text("\n".join(lines) + "\n", encoding="utf-8")
            part.replace(self.path)

    def _read(self) -> Iterator[Attempt]:
        assert self.path is not None
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
            if json.loads(lines[0]).get("key") != self.key:
                return
        except (OSError, ValueError, IndexError, AttributeError):
            return
        for line in lines[1:]:
            try:
                row = json.loads(line)
                del row["format"]
                yield Attempt(**{**row, "steps": tuple(row["steps"])})
            except (ValueError, TypeError, KeyError):
                return  # the line that was being written when the run ended

    def earlier(self, text: str) -> Attempt | None:
        """What an earlier part of the same run found of a text."""
        found = self._earlier.get(text_key(text))
        if found is not None:
            self.reused += 1
        return found

    def add(self, attempt: Attempt, *, known: bool = False) -> None:
        """Keep an attempt.

        Raises:
            StorageError: it cannot be written.
        """
        self.attempts.append(attempt)
        if self.path is None or known:
            return
        with storage_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(attempt.to_dict()) + "\n")
            file.flush()
