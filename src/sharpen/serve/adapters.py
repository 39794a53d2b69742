"""The LoRA adapters that a model is served with, by name."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.models.adapters import Adapter

__all__ = ["Adapters", "NamedAdapter"]


@dataclass(frozen=True, slots=True)
class NamedAdapter:
    """An adapter that requests may choose."""

    name: str
    """As requests give it."""

    folder: str
    """Where it was loaded from."""

    weights: Adapter
    """What is added to the model."""

    number: int
    """Of this loading: no two share what is known of a prompt."""

    loaded: float = field(default_factory=time.time)
    """When, in seconds since 1970."""


class Adapters:
    """Loads and forgets adapters; safe from any thread.

    Requests under way keep an adapter that is taken out until they end.

    Args:
        load: reads the adapter in a folder.
        most: adapters at the same time.
        taken: names that no adapter may have.

    Raises:
        ConfigError: ``most`` is negative.
    """

    def __init__(
        self, load: Callable[[str | Path], Adapter], *, most: int = 8, taken: tuple[str, ...] = ()
    ) -> None:
        if most < 0:
            raise ConfigError(f"max_loras={most} must be at least 0.")
        self.taken = taken
        self._load = load
        self._most = most
        self._lock = threading.Lock()
        self._known: dict[str, NamedAdapter] = {}
        self._numbers = itertools.count(1)

    def __iter__(self) -> Iterator[NamedAdapter]:
        """All, in the order they came."""
        return iter(list(self._known.values()))

    def load(self, name: str, folder: str | Path) -> NamedAdapter:
        """Let requests choose the adapter in a folder.

        Raises:
            ConfigError: the name is taken or empty, or there are as many as there may be.
            MissingFileError: no such folder.
            FileFormatError: damaged, of another model, or of a kind that cannot be served so.
        """
        self._check(name)
        weights = self._load(folder)
        with self._lock:
            self._check(name)
            made = NamedAdapter(name, str(folder), weights, next(self._numbers))
            self._known[name] = made
        return made

    def unload(self, name: str) -> None:
        """Take an adapter out.

        Raises:
            ConfigError: there is none of that name.
        """
        with self._lock:
            self.get(name)
            del self._known[name]

    def get(self, name: str) -> NamedAdapter:
        """The adapter of a name.

        Raises:
            ConfigError: there is none.
        """
        found = self._known.get(name)
        if found is None:
            hint = did_you_mean(name, self._known)
            names = ", ".join(self._known) or "none"
            raise ConfigError(f"there is no adapter {name!r}.{hint} Loaded: {names}.")
        return found

    def find(self, name: str) -> NamedAdapter | None:
        """The adapter of a name, or None."""
        return self._known.get(name)

    def _check(self, name: str) -> None:
        if not name.strip():
            raise ConfigError("an adapter needs a name.")
        if name in self._known or name in self.taken:
            raise ConfigError(f"the name {name!r} is taken. Choose another, or unload it first.")
        if len(self._known) >= self._most:
            raise ConfigError(
                f"{len(self._known)} adapters are loaded, max_loras={self._most} may be. Unload "
                "one first, or raise it."
            )
