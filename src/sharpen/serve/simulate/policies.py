"""Which machines a request's prompt and its other tokens go to, chosen when it arrives.

Patel et al., Splitwise, ISCA 2024, arXiv 2311.18677, section IV-A; details as its simulator has
them. With P the prompt machines, T the token machines and M those that do both for a while::

    mixed_pool   1  prompt: fewest pending tokens of P, unless its queue is not empty and they
                    would pass 8192; else of M by the same test
                 2  tokens: least reserved memory of T, unless prompt and output would fill it;
                    else of M by the same test
                 3  still no prompt machine: the one of T with fewest pending tokens joins M;
                    still no token machine: the one of P with least memory joins M
                 4  still none: both on the machine with fewest pending tokens
                 5  a machine of M goes home when it is free of foreign work

    random, round_robin, jsq (fewest requests), token_jsq (fewest pending tokens): one machine
    kv_round_robin, kv_jsq, kv_token_jsq: the same over P and over T, and keys and values move

Ties go to the machine that has been longest in its pool. A choice costs O(machines).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol

from sharpen.core.errors import ConfigError, did_you_mean

__all__ = ["POLICIES", "Load", "MixedPool", "OneMachine", "Pair", "Policy", "make_policy"]


class Load(Protocol):
    """What a policy sees of a machine."""

    number: int
    home: Literal["prompt", "token", "mixed"]
    pending_tokens: int
    """Of prompts that are not computed, and one for each request at its other tokens."""
    reserved_tokens: int
    """Of keys and values, of all requests that were placed here and have not left."""
    capacity: int
    foreign: int
    """Requests whose present phase is not that of ``home``."""

    @property
    def waiting(self) -> bool:
        """Whether anything waits in its queue."""
        ...

    @property
    def num_jobs(self) -> int:
        """Requests that are here."""
        ...


class Policy(Protocol):
    """Places requests."""

    def place(self, prompt_tokens: int, output_tokens: int) -> tuple[Load, Load]:
        """Machines of the prompt and of the other tokens; may be the same."""
        ...

    def freed(self, machine: Load) -> None:
        """A machine has no foreign work any more."""


class OneMachine:
    """Both phases on one machine.

    Args:
        machines: to choose from.
        choose: the one.
    """

    def __init__(self, machines: Sequence[Load], choose: Callable[[Sequence[Load]], Load]) -> None:
        self._machines = machines
        self._choose = choose

    def place(self, prompt_tokens: int, output_tokens: int) -> tuple[Load, Load]:
        """See :class:`Policy`."""
        one = self._choose(self._machines)
        return one, one

    def freed(self, machine: Load) -> None:
        """Nothing changes."""


class Pair:
    """A prompt machine and a token machine, each always that.

    Args:
        machines: to choose from, by their ``home``.
        choose_prompt: among prompt machines.
        choose_token: among token machines.
    """

    def __init__(
        self,
        machines: Sequence[Load],
        choose_prompt: Callable[[Sequence[Load]], Load],
        choose_token: Callable[[Sequence[Load]], Load],
    ) -> None:
        self._prompt = [one for one in machines if one.home == "prompt"]
        self._token = [one for one in machines if one.home == "token"]
        _need_both(self._prompt, self._token)
        self._choose = (choose_prompt, choose_token)

    def place(self, prompt_tokens: int, output_tokens: int) -> tuple[Load, Load]:
        """See :class:`Policy`."""
        return self._choose[0](self._prompt), self._choose[1](self._token)

    def freed(self, machine: Load) -> None:
        """Nothing changes."""


class MixedPool:
    """Pools that lend each other machines.

    Args:
        machines: to choose from, by their ``home``.
        max_pending: tokens that may wait at a prompt machine.
    """

    def __init__(self, machines: Sequence[Load], *, max_pending: int = 8192) -> None:
        self.prompt = [one for one in machines if one.home == "prompt"]
        self.token = [one for one in machines if one.home == "token"]
        self.mixed = [one for one in machines if one.home == "mixed"]
        if not self.mixed:
            _need_both(self.prompt, self.token)
        self._max_pending = max_pending

    def place(self, prompt_tokens: int, output_tokens: int) -> tuple[Load, Load]:
        """See :class:`Policy`."""
        needed = prompt_tokens + 1 + output_tokens
        first = self._first(self.prompt, prompt_tokens) or self._first(self.mixed, prompt_tokens)
        second = self._second(self.token, needed) or self._second(self.mixed, needed)
        if first is None and self.token:
            first = min(self.token, key=_pending)
            self._lend(self.token, first)
        if second is None and self.prompt:
            second = min(self.prompt, key=_reserved)
            self._lend(self.prompt, second)
        if first is None or second is None:
            first = second = min([*self.prompt, *self.mixed, *self.token], key=_pending)
        return first, second

    def freed(self, machine: Load) -> None:
        """See :class:`Policy`."""
        if machine in self.mixed and machine.home != "mixed":
            self.mixed.remove(machine)
            (self.prompt if machine.home == "prompt" else self.token).append(machine)

    def _first(self, pool: Sequence[Load], prompt_tokens: int) -> Load | None:
        if not pool:
            return None
        best = min(pool, key=_pending)
        full = best.waiting and best.pending_tokens + prompt_tokens > self._max_pending
        return None if full else best

    def _second(self, pool: Sequence[Load], needed: int) -> Load | None:
        if not pool:
            return None
        best = min(pool, key=_reserved)
        return None if best.reserved_tokens + needed >= best.capacity else best

    def _lend(self, pool: list[Load], machine: Load) -> None:
        pool.remove(machine)
        self.mixed.append(machine)


POLICIES = (
    "mixed_pool",
    "random",
    "round_robin",
    "jsq",
    "token_jsq",
    "kv_round_robin",
    "kv_jsq",
    "kv_token_jsq",
)
"""Names that :func:`make_policy` takes."""


def make_policy(name: str, machines: Sequence[Load], seed: int = 0) -> Policy:
    """A policy by its name.

    Raises:
        ConfigError: an unknown name, or no machine for a phase.
    """
    if name not in POLICIES:
        raise ConfigError(
            f"there is no policy {name!r}.{did_you_mean(name, POLICIES)} Known: "
            f"{', '.join(POLICIES)}."
        )
    if not machines:
        raise ConfigError("a cluster needs at least one machine.")
    if name == "mixed_pool":
        return MixedPool(machines)
    if name == "random":
        rng = random.Random(seed)
        return OneMachine(machines, lambda pool: pool[rng.randrange(len(pool))])
    kind = name.removeprefix("kv_")
    if kind == name:
        return OneMachine(machines, _chooser(kind))
    return Pair(machines, _chooser(kind), _chooser(kind))


def _chooser(kind: str) -> Callable[[Sequence[Load]], Load]:
    if kind == "round_robin":
        turn = [-1]

        def next_one(pool: Sequence[Load]) -> Load:
            turn[0] = (turn[0] + 1) % len(pool)
            return pool[turn[0]]

        return next_one
    key = _pending if kind == "token_jsq" else _requests
    return lambda pool: min(pool, key=key)


def _pending(machine: Load) -> int:
    return machine.pending_tokens


def _reserved(machine: Load) -> int:
    return machine.reserved_tokens


def _requests(machine: Load) -> int:
    return machine.num_jobs


def _need_both(prompt: Iterable[Load], token: Iterable[Load]) -> None:
    if not prompt or not token:
        raise ConfigError(
            "a policy that splits requests needs at least one prompt and one token machine."
        )
