"""Rewards that are computed while the trainer goes on, each call in a process that may be killed.

A call that crashes, never ends or is late takes nobody with it: its process is killed, its sample
gets no value and a reason, the others go on. Results come in the order of the samples. Where a
reward tells a key, what was computed once is not computed again.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

from sharpen.align.rewards.checked import Samples, Scored, Scores, scores
from sharpen.align.rewards.registry import Meta, RewardFunction, find_reward
from sharpen.core.errors import ConfigError, DataError, SharpenError
from sharpen.core.executor import Job, Local
from sharpen.core.feedback import Feedback

__all__ = ["Pending", "RewardPool", "RewardStats", "Rewards"]

_REMEMBERED = 100_000  # values by key
_POLL_S = 0.02  # while a worker is free, how soon new samples are seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewards:
    """What came of some samples, in their order."""

    values: list[float | None]
    """None: the sample is to be left out."""

    reasons: list[str]
    """Why: ``dropped`` (the reward said so), ``deadline``, ``crashed``, ``raised``, ``not finite``,
    ``wrong type``, ``wrong length``, ``closed``; empty where there is a value."""

    error: str = ""
    """What was said of the last call that raised or crashed."""


@dataclass(slots=True, kw_only=True)
class RewardStats:
    """What a pool has done."""

    samples: int = 0
    """Asked for."""

    known: int = 0
    """Of these, how many had been computed before, or were just being computed."""

    calls: int = 0
    """Of the reward, those tried again included."""

    retried: int = 0
    """Calls tried again: alone after a call of several failed, or after a crash."""

    missing: dict[str, int] = field(default_factory=dict)
    """Samples without a value, by reason."""

    waited_s: float = 0.0
    """Seconds that callers waited for results."""

    busy_s: float = 0.0
    """Seconds of calls that came to an end, over all workers."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


class Pending:
    """Rewards that are being computed."""

    def __init__(self, count: int, pool: _State) -> None:
        self._pool = pool
        self._left = count
        self._values: list[float | None] = [None] * count
        self._reasons = ["deadline"] * count
        self._error = ""
        self._failure: SharpenError | None = None
        self._done = threading.Event()
        if not count:
            self._done.set()

    def done(self) -> bool:
        """Whether all are there."""
        return self._done.is_set()

    def result(self, timeout_s: float | None = None) -> Rewards:
        """Wait for all of them.

        Args:
            timeout_s: wait so long at most; what is not there then has the reason ``deadline``, and
                is not computed any more if it has not begun.

        Raises:
            ExecutionError: the reward cannot be loaded by the workers.
        """
        begin = time.perf_counter()
        self._done.wait(timeout_s)
        with self._pool.lock:
            self._pool.stats.waited_s += time.perf_counter() - begin
            if self._failure is not None:
                raise self._failure
            if not self._done.is_set():
                late = self._reasons.count("deadline")
                self._count("deadline", late)
                self._done.set()
            return Rewards(
                values=list(self._values), reasons=list(self._reasons), error=self._error
            )

    def put(self, index: int, value: float | None, reason: str, error: str) -> None:
        """Take one; the pool's lock is held."""
        if self._done.is_set():
            return
        self._values[index], self._reasons[index] = value, reason
        self._error = error or self._error
        if reason:
            self._count(reason, 1)
        self._left -= 1
        if not self._left:
            self._done.set()

    def fail(self, failure: SharpenError) -> None:
        """End with an error; the pool's lock is held."""
        self._failure = failure
        self._done.set()

    def _count(self, reason: str, count: int) -> None:
        if count:
            missing = self._pool.stats.missing
            missing[reason] = missing.get(reason, 0) + count


_Place = tuple[Pending, int]


@dataclass(slots=True)
class _Call:
    """Samples that one call of the reward gets."""

    samples: Samples
    places: list[list[_Place]]
    """Who waits for each sample."""

    keys: list[str | None]
    is_again: bool = False
    crashes: int = 0

    def alone(self) -> list[_Call]:
        """A call for each of its samples."""
        return [
            _Call(
                ([self.samples[0][i]], [self.samples[1][i]], [self.samples[2][i]]),
                [places],
                [self.keys[i]],
                is_again=True,
                crashes=self.crashes,
            )
            for i, places in enumerate(self.places)
        ]


class _State:
    """What the pool and its thread share."""

    def __init__(self, function: RewardFunction) -> None:
        self.function = function
        self.lock = threading.Lock()
        self.stats = RewardStats()
        self.known: OrderedDict[str, float] = OrderedDict()
        self.running: dict[str, list[_Place]] = {}
        self.calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self.closing = threading.Event()
        self.is_over = False
        self.failure: SharpenError | None = None

    def count(self, call: _Call) -> None:
        """A call begins."""
        with self.lock:
            self.stats.calls += 1
            self.stats.retried += call.is_again

    def forget(self, call: _Call) -> bool:
        """Whether nobody waits for a call any more; then it is as if it had never been asked."""
        with self.lock:
            if any(not one.done() for places in call.places for one, _ in places):
                return False
            for key in call.keys:
                if key is not None:
                    self.running.pop(key, None)
            return True

    def settle(self, call: _Call, found: Scores, seconds: float = 0.0) -> None:
        """Give what was found to whoever waits."""
        with self.lock:
            self.stats.busy_s += seconds
            for places, key, value, reason in zip(
                call.places, call.keys, found.values, found.reasons, strict=True
            ):
                if key is not None:
                    self.running.pop(key, None)
                    if value is not None:
                        self.known[key] = value
                        if len(self.known) > _REMEMBERED:
                            self.known.popitem(last=False)
                for pending, index in places:
                    pending.put(index, value, reason, found.error)

    def missing(self, call: _Call, reason: str, error: str = "") -> None:
        """There is no value for any sample of a call."""
        count = len(call.places)
        self.settle(call, Scores([None] * count, [reason] * count, error))


class RewardPool:
    """Computes rewards in worker processes, asynchronously.

    Args:
        reward: a reward, or its name (:func:`~sharpen.align.rewards.find_reward`).
        workers: processes; 0 computes in this one, at once, without a deadline.
        deadline_s: seconds that a call may take; then its process is killed.
        chunk: samples a call. Where a call of several fails, each is tried alone.
        memory_bytes: address space that a worker may use.

    Raises:
        ConfigError: a number is out of range, or there is no such reward.

    Example:
        >>> from sharpen.align.rewards import RewardPool
        >>> with RewardPool("number", workers=0) as pool:
        ...     pool.score(["2 + 2?"], ["It is 4"], [{"answer": 4}]).values
        [1.0]
    """

    def __init__(
        self,
        reward: RewardFunction | str,
        *,
        workers: int = 2,
        deadline_s: float = 10.0,
        chunk: int = 1,
        memory_bytes: int | None = None,
    ) -> None:
        if workers < 0 or chunk < 1:
            raise ConfigError(f"workers={workers} must be at least 0, and chunk={chunk} 1.")
        self._state = _State(find_reward(reward))
        self._workers, self._chunk = workers, chunk
        thread = None
        if workers:
            local = Local(workers, timeout_s=deadline_s, memory_bytes=memory_bytes)
            # The thread that starts workers outlives them: when it ends, the kernel ends them.
            thread = threading.Thread(
                target=_serve, args=(self._state, local), name="rewards", daemon=True
            )
            thread.start()
        self._finalizer = weakref.finalize(self, _end, self._state, thread)

    @property
    def stats(self) -> RewardStats:
        """What it has done so far; a copy."""
        with self._state.lock:
            now = asdict(self._state.stats)
        return RewardStats(**{**now, "missing": dict(now["missing"])})

    def submit(
        self,
        prompts: Sequence[Any],
        completions: Sequence[str],
        meta: Sequence[Meta] | None = None,
    ) -> Pending:
        """Begin to compute the rewards of some samples; returns at once.

        Args:
            prompts: [N] what was asked, texts or messages.
            completions: [N] texts.
            meta: [N] further keys of the rows; empty without.

        Raises:
            ConfigError: the pool is closed.
            DataError: the lists differ in length, or the reward cannot judge such a row at all.
            ExecutionError: the workers cannot load the reward.
        """
        state, count = self._state, len(completions)
        meta = [{}] * count if meta is None else meta
        if len(prompts) != count or len(meta) != count:
            raise DataError(
                f"{len(prompts)} prompts, {count} completions and {len(meta)} meta must be as many."
            )
        keys = [self._key(*sample) for sample in zip(prompts, completions, meta, strict=True)]
        pending = Pending(count, state)
        calls: list[_Call] = []
        with state.lock:
            if state.failure is not None:
                raise state.failure
            if state.is_over:
                raise ConfigError("this RewardPool is closed: make another one.")
            state.stats.samples += count
            for i, key in enumerate(keys):
                if key is not None and key in state.known:
                    state.stats.known += 1
                    pending.put(i, state.known[key], "", "")
                    continue
                if key is not None and key in state.running:
                    state.stats.known += 1
                    state.running[key].append((pending, i))
                    continue
                places = [(pending, i)]
                if key is not None:
                    state.running[key] = places
                if not calls or len(calls[-1].places) == self._chunk:
                    calls.append(_Call(([], [], []), [], []))
                call = calls[-1]
                for part, value in zip(
                    call.samples, (prompts[i], completions[i], meta[i]), strict=True
                ):
                    part.append(value)  # type: ignore[attr-defined]
                call.places.append(places)
                call.keys.append(key)
            for call in calls if self._workers else ():
                state.calls.put(call)
        for call in () if self._workers else calls:
            _here(state, call)
        return pending

    def score(
        self,
        prompts: Sequence[Any],
        completions: Sequence[str],
        meta: Sequence[Meta] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Rewards:
        """The rewards of some samples; raises as :meth:`submit` and :meth:`Pending.result`."""
        return self.submit(prompts, completions, meta).result(timeout_s)

    def _key(self, prompt: Any, completion: str, about: Meta) -> str | None:
        find = getattr(self._state.function, "cache_key", None)
        found: str | None = None if find is None else find(prompt, completion, about)
        return found

    def close(self) -> None:
        """Kill what runs and leave no process; whoever waits gets the reason ``closed``."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _end(state: _State, thread: threading.Thread | None) -> None:
    state.closing.set()
    state.calls.put(None)
    if thread is not None:
        thread.join()
    state.is_over = True
    close = getattr(state.function, "close", None)
    if close is not None:
        close()


def _here(state: _State, call: _Call) -> None:
    begin = time.perf_counter()
    found = scores(state.function, call.samples)
    state.count(call)
    if found.error and len(call.places) > 1:
        for one in call.alone():
            _here(state, one)
        return
    state.settle(call, found, time.perf_counter() - begin)


def _serve(state: _State, local: Local) -> None:
    """Give calls to workers until the pool closes; in a thread of its own."""
    running: dict[int, _Call] = {}
    again: deque[_Call] = deque()
    try:
        local.open(Scored(state.function))
        number = 0
        while not state.closing.is_set():
            while len(running) < local.slots:
                call = _next(state, again, wait=not running)
                if call is None:
                    break
                number += 1
                running[number] = call
                state.count(call)
                local.submit(Job(number=number, config={"samples": call.samples}, seed=0))
            pause = _POLL_S if len(running) < local.slots else 10 * _POLL_S
            for done, feedback in local.poll(pause, lambda *_: "continue"):
                again += _after(state, running.pop(done), feedback)
    except SharpenError as error:
        with state.lock:
            state.failure = error
    finally:
        local.close()
        _abandon(state, [*running.values(), *again])


def _next(state: _State, again: deque[_Call], *, wait: bool) -> _Call | None:
    """The next call that somebody waits for; None where there is none now, or at the end."""
    while True:
        if again:
            call: _Call | None = again.popleft()
        else:
            try:
                call = state.calls.get(block=wait)
            except queue.Empty:
                return None
        if call is None or not state.forget(call):
            return call


def _after(state: _State, call: _Call, feedback: Feedback) -> list[_Call]:
    """Give out what a call found; the calls to try again."""
    found = feedback.info.get("scores")
    call.crashes += feedback.status == "failed"
    is_faulty = not isinstance(found, Scores) or bool(found.error)
    if is_faulty and len(call.places) > 1:
        return call.alone()
    if isinstance(found, Scores):
        state.settle(call, found, feedback.cost.get("seconds", 0.0))
    elif feedback.status == "timeout":
        state.missing(call, "deadline", feedback.error or "")
    elif call.crashes < 2:
        call.is_again = True
        return [call]
    else:
        state.missing(call, "crashed", feedback.error or "")
    return []


def _abandon(state: _State, calls: list[_Call]) -> None:
    """Nobody will compute these, nor what still waits."""
    with state.lock:
        state.is_over = True
        while True:
            try:
                call = state.calls.get_nowait()
            except queue.Empty:
                break
            if call is not None:
                calls.append(call)
    for call in calls:
        if state.failure is None:
            state.missing(call, "closed")
            continue
        with state.lock:
            for places in call.places:
                for pending, _ in places:
                    pending.fail(state.failure)
