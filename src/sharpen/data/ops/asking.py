"""What operators that ask a language model share: how it is reached, paid for and replied to.

Every reply is kept in a cache, so that the same recipe asks nothing twice: not when it is run
again, not when a run was killed, and not when a budget ended it and a larger one goes on. Replies
are JSON by a schema; one that does not fit is asked for again, and a row whose replies never fit
fails (``on_error`` says what becomes of it). A budget that is used up, or a server that is gone,
ends the run.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sharpen.core.errors import ConfigError, MissingFileError
from sharpen.core.files import sha256_file
from sharpen.core.lm.backends import scheme_names
from sharpen.core.lm.budget import Budget
from sharpen.core.lm.client import LM
from sharpen.data.batch import Batch
from sharpen.data.ops.base import Operator

__all__ = ["Asking", "told"]

_log = logging.getLogger(__name__)
_opening = threading.Lock()
_OF_FILES = ("scripted", "cassette")
_NOT_THE_RESULT = ("budget", "cache", "concurrency", "prices")
_CLIENT = "_client"


@dataclass(frozen=True, kw_only=True)
class Asking(Operator):
    """Asks a language model about each row."""

    pays: ClassVar[bool] = True

    lm: str
    """``local:NAME``, the address of a server, ``http://HOST:PORT/v1``, or ``scripted:FILE``."""

    model: str | None = None
    """Its name on the server; default ``SHARPEN_LLM_MODEL``, else the only one."""

    temperature: float = 0.0
    """0 takes the most likely words; above, each row is drawn for once."""

    max_tokens: int = 256
    """Of a reply; one that is longer does not fit."""

    max_chars: int | None = None
    """Only the first characters of a text are shown to the model; default all."""

    retries: int = 2
    """How often a reply that does not fit is asked for again."""

    concurrency: int = 8
    """Calls at once."""

    budget: Mapping[str, Any] | None = None
    """``max_calls``, ``max_tokens``, ``max_cost``, ``max_seconds``; and ``file``, in which all
    runs that name it share what is spent. Without a file each run begins at 0."""

    prices: str | None = None
    """A file of prices, for ``max_cost``."""

    cache: str | None = None
    """The file in which replies are kept; default the user's."""

    def __post_init__(self) -> None:
        """Check what can be checked without asking.

        Raises:
            ConfigError: a value out of range, or an address that is none.
            MissingFileError: a file that is not there.
        """
        scheme, _, rest = self.lm.partition(":")
        if scheme not in scheme_names():
            raise ConfigError(
                f"lm={self.lm!r} must begin with one of: "
                f"{', '.join(name + ':' for name in scheme_names())}"
            )
        if scheme in _OF_FILES and not Path(rest).is_file():
            raise MissingFileError(f"{self.name}: no such file: {rest}")
        for field in ("max_tokens", "concurrency", "max_chars"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ConfigError(f"{field}={value} must be at least 1.")
        if self.retries < 0 or not 0 <= self.temperature <= 2:
            raise ConfigError(
                f"retries={self.retries} must not be negative, and "
                f"temperature={self.temperature} from 0 to 2."
            )
        if self.budget is not None:
            Budget.of(self.budget)
            if "max_cost" in self.budget and self.prices is None:
                raise ConfigError("a budget with max_cost needs prices: a file of prices.")

    def describe(self) -> dict[str, Any]:
        """Without what does not decide the result; with a mark of the script's or model's files."""
        found = {k: v for k, v in super().describe().items() if k not in _NOT_THE_RESULT}
        model = self.model or os.environ.get("SHARPEN_LLM_MODEL")
        return {**found, "model": model, "files": _files(self.lm)}

    def ask(
        self,
        batch: Batch,
        prompt: Callable[[str], str],
        schema: Mapping[str, Any],
    ) -> list[Any]:
        """The model's replies, one for each row.

        Args:
            batch: the rows.
            prompt: what is asked about a text.
            schema: of a reply.

        Raises:
            ReplyError: the replies about a row do not fit.
            BudgetExhausted: the budget is used up.
            ServiceError: the model cannot be reached.
        """
        if not len(batch):
            return []
        prompts = [prompt(text[: self.max_chars]) for text in batch.texts.strings]
        lm = self._lm()
        replies = lm.map_json(prompts, schema, retries=self.retries, on_error="return")
        spent = lm.usage
        _log.info(
            "%s so far: %d calls, %d tokens, cost %s; %d replies from the cache",
            self.name,
            spent.calls,
            spent.tokens,
            "unknown" if spent.cost is None else f"{spent.cost:.4f}",
            spent.cache_hits,
        )
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply  # all others are in the cache now
        return replies

    def _lm(self) -> LM:
        """The client, which the threads of a run share."""
        with _opening:
            found: LM | None = self.__dict__.get(_CLIENT)
            if found is None:
                found = LM(
                    self.lm,
                    cache=True if self.cache is None else self.cache,
                    budget=self.budget,
                    prices=self.prices,
                    concurrency=self.concurrency,
                    options={} if self.model is None else {"model": self.model},
                    temperature=self.temperature,
                    max_tokens=self.max_tokens,
                    repeat=0 if self.temperature > 0 else None,
                )
                self.__dict__[_CLIENT] = found
            return found

    def __getstate__(self) -> dict[str, Any]:
        """To another process, without the client.

        Raises:
            ConfigError: a budget that processes are to share has no file.
        """
        if self.budget is not None and "file" not in self.budget:
            raise ConfigError(
                f"{self.name}: a budget that processes share needs a file: budget: {{file: PATH}}."
            )
        return {name: value for name, value in self.__dict__.items() if name != _CLIENT}


def told(text: str) -> str:
    """A text between tags that it does not hold, for a prompt."""
    number, tag = 0, "text"
    while f"<{tag}>" in text or f"</{tag}>" in text:
        number += 1
        tag = f"text{number}"
    return f"<{tag}>\n{text}\n</{tag}>"


def _files(address: str) -> Any:
    """What the files of an address hold, or for models when they were written."""
    scheme, _, rest = address.partition(":")
    path = Path(rest)
    if scheme in _OF_FILES:
        return sha256_file(path)
    if scheme != "local" or not path.exists():
        return None
    files: Sequence[Path] = [path]
    if path.is_dir():
        files = sorted(Path(root) / name for root, _, names in os.walk(path) for name in names)
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
