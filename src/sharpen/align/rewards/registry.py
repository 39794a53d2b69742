"""Rewards by name: what turns a prompt and a completion into a number.

A reward is called with lists of one length and gives a number for each, or None for a sample that
is to be left out::

    reward(prompts, completions, meta) -> list[float | None]

Prompts are what the row has, text or messages; completions are text; ``meta`` has the row's further
keys. A reward with settings is a frozen dataclass with ``__call__``. It may also have
``cache_key(prompt, completion, meta)``, a text that is the same only where the reward is, so that
nothing is computed twice, ``needs``, the row's key without which it gives None, and ``close()``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sharpen.align.places import at_place, file_of
from sharpen.core.config import Document, Marks, apply_overrides, from_dict
from sharpen.core.errors import ConfigError

__all__ = ["BUILT_IN", "Meta", "RewardFunction", "find_reward", "reward", "reward_names"]

Meta = Mapping[str, Any]
RewardFunction = Callable[[Sequence[Any], Sequence[str], Sequence[Meta]], Sequence[float | None]]
F = TypeVar("F", bound=Callable[..., Any])

BUILT_IN = {
    "code": "sharpen.align.rewards.code:CodeReward",
    "code:perf": "sharpen.align.rewards.code:PerfReward",
    "exact": "sharpen.align.rewards.text:Exact",
    "json": "sharpen.align.rewards.text:Json",
    "length": "sharpen.align.rewards.text:Length",
    "number": "sharpen.align.rewards.text:Number",
    "pattern": "sharpen.align.rewards.text:Pattern",
    "programs": "sharpen.align.domains.program_rewards:ProgramReward",
    "score_model": "sharpen.align.rewards.score:ScoreModel",
}
"""Where the rewards that come with the package are; they load on first use."""

_registered: dict[str, Callable[..., Any]] = {}


def reward(name: str) -> Callable[[F], F]:
    """Decorator that gives a reward a name.

    Args:
        name: for :func:`find_reward`.

    Raises:
        ConfigError: something else has the name.

    Example:
        >>> from sharpen.align.rewards import find_reward, reward
        >>> @reward("polite")
        ... def polite(prompts, completions, meta):
        ...     return [float("please" in text) for text in completions]
        >>> find_reward("polite")(["Ask."], ["Sit, please."], [{}])
        [1.0]
    """

    def register(made: F) -> F:
        before = _registered.get(name)
        same = before is not None and _place(before) == _place(made)  # a module that is reloaded
        if name in BUILT_IN or (before is not None and not same):
            raise ConfigError(f"there is a reward '{name}' already: choose another name.")
        if not name or ":" in name:
            raise ConfigError(f"reward name {name!r}: use a word without a colon.")
        _registered[name] = made
        return made

    return register


def _place(made: Callable[..., Any]) -> tuple[str, str]:
    return made.__module__, getattr(made, "__qualname__", repr(made))


def reward_names() -> list[str]:
    """Names that :func:`find_reward` knows, sorted."""
    return sorted({*BUILT_IN, *_registered})


def find_reward(
    ref: str | RewardFunction, options: Mapping[str, Any] | Iterable[str] = ()
) -> RewardFunction:
    """The reward of a name or a place.

    Args:
        ref: a name; ``module:attribute``; ``path.py:attribute``; or a reward, which is given back.
        options: of a reward with settings: a mapping with dotted keys, or ``["key=value", ...]``.

    Returns:
        A function; another process that unpickles it finds it in the same place.

    Raises:
        ConfigError: there is none, it is no function, or it takes no such options.
        MissingFileError: there is no such file.
    """
    found: Any = ref
    if isinstance(ref, str):
        found = _registered.get(ref)
        if found is None:
            found = at_place(BUILT_IN.get(ref, ref), what="reward", known=reward_names())
    given = apply_overrides(Document({}, Marks()), options).data
    name = ref if isinstance(ref, str) else getattr(ref, "__name__", repr(ref))
    if isinstance(found, type):
        if not dataclasses.is_dataclass(found):
            raise ConfigError(f"the reward '{name}' is a class: make it a dataclass.")
        found = from_dict(found, given, path="reward.options")
    elif given:
        raise ConfigError(f"the reward '{name}' takes no options, got {', '.join(given)}.")
    if not callable(found):
        raise ConfigError(f"the reward '{name}' is {found!r:.60}, which cannot be called.")
    if isinstance(ref, str) and file_of(ref) is not None:
        return _FromFile(found, ref, given)
    function: RewardFunction = found
    return function


class _FromFile:
    """A reward from a file, which another process loads from there again."""

    def __init__(self, function: Any, ref: str, options: Mapping[str, Any]) -> None:
        file, _, attribute = ref.rpartition(":")
        self._function = function
        self._again = (f"{Path(file).resolve()}:{attribute}", options)
        for name in ("cache_key", "close", "needs"):
            if hasattr(function, name):
                setattr(self, name, getattr(function, name))

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Meta]
    ) -> Any:
        return self._function(prompts, completions, meta)

    def __reduce__(self) -> Any:
        return find_reward, self._again
