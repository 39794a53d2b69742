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
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from sharpen.align.rewards.checked import Scored, Scores, scores
from sharpen.align.rewards.pending import Call, Pending, Rewards, RewardStats, State
from sharpen.align.rewards.registry import Meta, RewardFunction, find_reward
from sharpen.core.errors import ConfigError, DataError, SharpenError
from sharpen.core.executor import Job, Local
from sharpen.core.feedback import Feedback

__all__ = ["RewardPool"]

_POLL_S = 0.02  # while a worker is free, how soon new samples are seen


class RewardPool:
    """Computes rewards in worker processes, asynchronously.

    Args:
        reward: a reward, or its name (:func:`~sharpen.align.rewards.find_reward`).
        workers: processes; 0 computes in this one, at once, without a deadline.
        deadline_s: seconds that a call may take; then its process is killed.
        chunk: samples a call. Where a call of several fails, each is tried alone.
        memory_bytes: address space that a worker may use beside what it has at its start.

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
        self._state = State(find_reward(reward))
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
        calls: list[Call] = []
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
                    calls.append(Call(([], [], []), [], []))
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


def _end(state: State, thread: threading.Thread | None) -> None:
    state.closing.set()
    state.calls.put(None)
    if thread is not None:
        thread.join()
    state.is_over = True
    close = getattr(state.function, "close", None)
    if close is not None:
        close()


def _here(state: State, call: Call) -> None:
    begin = time.perf_counter()
    found = scores(state.function, call.samples)
    state.count(call)
    if found.error and len(call.places) > 1:
        for one in call.alone():
            _here(state, one)
        return
    state.settle(call, found, time.perf_counter() - begin)


def _serve(state: State, local: Local) -> None:
    """Give calls to workers until the pool closes; in a thread of its own."""
    running: dict[int, Call] = {}
    again: deque[Call] = deque()
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


def _next(state: State, again: deque[Call], *, wait: bool) -> Call | None:
    """The next call that somebody waits for; None where there is none now, or at the end."""
    while True:
        if again:
            call: Call | None = again.popleft()
        else:
            try:
                call = state.calls.get(block=wait)
            except queue.Empty:
                return None
        if call is None or not state.forget(call):
            return call


def _after(state: State, call: Call, feedback: Feedback) -> list[Call]:
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


def _abandon(state: State, calls: list[Call]) -> None:
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
