"""Text of a continuation as it grows: whole characters, held back where a stop text may begin."""

from __future__ import annotations

from collections.abc import Sequence

from sharpen.models.tokenizer import StreamDecoder, Tokenizer

__all__ = ["StopText", "TextStream"]


class StopText:
    """Finds stop texts in text that arrives in pieces, wherever the pieces are cut.

    Args:
        stops: the texts, not empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Add text; returns what is certain to come before any stop, and whether one was found."""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            ready, self._held = self._held[: min(found)], ""
            return ready, True
        keep = max((self._overlap(stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        ready, self._held = self._held[:cut], self._held[cut:]
        return ready, False

    def finish(self) -> str:
        """What was held back, once no more text comes."""
        ready, self._held = self._held, ""
        return ready

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that begins ``stop``."""
        for size in range(min(len(stop) - 1, len(self._held)), 0, -1):
            if self._held.endswith(stop[:size]):
                return size
        return 0


class TextStream:
    """Tokens in, text out that is safe to show: no half characters, nothing of a stop text.

    Args:
        tokenizer: whose tokens they are.
        stops: texts that end the stream.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._decoder = StreamDecoder(tokenizer)
        self._stop = StopText(stops)
        self._has_stops = bool(stops)

    def push(self, token: int) -> tuple[str, bool]:
        """Add one token; returns new text, which may be empty, and whether a stop text ended it."""
        text = self._decoder.push(token)
        return self._stop.push(text) if self._has_stops else (text, False)

    def finish(self) -> tuple[str, bool]:
        """What is left at the end; incomplete characters are U+FFFD."""
        ready, stopped = self._stop.push(self._decoder.finish())
        return ready if stopped else ready + self._stop.finish(), stopped
