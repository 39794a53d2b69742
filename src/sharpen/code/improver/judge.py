"""Whether a proposed text is right as far as can be seen, and a first look at how fast it is.

The order is by cost: the text itself, then all inputs, then a short measurement. What passes here
is a candidate; only :mod:`sharpen.code.improver.verdict` accepts one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from sharpen.code.improver.config import ImproveConfig
from sharpen.code.improver.equality import Difference, Equality
from sharpen.code.improver.journal import Attempt, Journal
from sharpen.code.improver.levels import Level
from sharpen.code.improver.objective import LEAST_MIB, TIMES, area, said
from sharpen.code.improver.observer import Observer, Sandboxed, Watcher
from sharpen.code.improver.reference import (
    Baseline,
    BaselineError,
    Refuted,
    call_text,
    record_baseline,
)
from sharpen.code.improver.sandbox_timer import SandboxTimer
from sharpen.code.improver.shrink import shrunk
from sharpen.code.improver.suspicion import complaint, suspicions
from sharpen.code.improver.target import Target
from sharpen.code.inputs import Input
from sharpen.code.measure.process import Timer, encode_inputs
from sharpen.code.measure.program import Program
from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.core.sandbox import SandboxPool

__all__ = ["Judge", "Proposal"]

_LOOKS = 3  # short measurements, of which the least counts
_MOST_S = 5.0
_BATCH_S = 2e-3  # less is called several times
_SLOWER = 0.95
_FAR = 1.5  # times the least cost so far: such a text is looked at once
_CLOSE = 1.2  # times the least cost so far: instructions tell which of such texts comes first
_TRACED_S = 1e-3  # the function takes so long, where there is such a size, to count instructions


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A text to try."""

    text: str
    origin: str
    steps: tuple[str, ...]
    explain: str
    risk: str = "exact"


@dataclass(slots=True)
class Judge:
    """Tries texts for one function.

    Args:
        target: the function.
        baseline: what the original does with the inputs that are known and made up.
        levels: inputs to time, the largest last.
        config: settings.
        equality: when two calls are the same.
        journal: keeps what was tried.
        pool: sandboxes for texts of language models; None where none will come.
    """

    target: Target
    baseline: Baseline
    levels: Sequence[Level]
    config: ImproveConfig
    equality: Equality
    journal: Journal
    pool: SandboxPool | None = None
    _original: dict[bool, float] = field(default_factory=dict)
    """What the function itself costs, outside of the sandbox or not."""

    _best: dict[bool, float] = field(default_factory=dict)
    """The least that a text has cost so far."""

    def watcher(self, proposal: Proposal | Attempt) -> Observer:
        """What calls a text: in a process where it is trusted, else in a sandbox."""
        program = self.target.program(proposal.text)
        if proposal.origin == "llm" and not self.config.trust_llm:
            assert self.pool is not None
            return Sandboxed(program, self.pool)
        return Watcher(program)

    def timer(self, program: Program, inputs: Sequence[bytes], *, trusted: bool) -> Timer:
        """What times a text, likewise."""
        processor = min(os.sched_getaffinity(0))
        if trusted:
            return Timer(program, inputs, processor)
        assert self.pool is not None
        return SandboxTimer(program, inputs, self.pool)

    def consider(self, proposal: Proposal) -> Attempt:
        """Try a text and keep what was found.

        Raises:
            StorageError: the journal cannot be written.
        """
        known = self.journal.earlier(proposal.text)
        attempt = known or self._consider(proposal)
        self.journal.add(attempt, known=known is not None)
        return attempt

    def _consider(self, proposal: Proposal) -> Attempt:
        attempt = Attempt(
            text=proposal.text,
            origin=proposal.origin,
            steps=proposal.steps,
            explain=proposal.explain,
            risk=proposal.risk,
            verdict="kept",
        )
        refused = self._refused(proposal)
        if refused is not None:
            return replace(attempt, verdict="refused", reason=refused)
        try:
            observer = self.watcher(proposal)
        except (ExecutionError, ConfigError) as error:
            return replace(attempt, verdict="wrong", reason=str(error))
        try:
            refuted = self.baseline.refute(observer, self.equality)
        finally:
            observer.close()
        if refuted is not None:
            return replace(attempt, verdict="wrong", reason=self._told(proposal, refuted))
        try:
            score, opcodes = self.look(proposal.text, proposal.origin)
        except ExecutionError as error:
            return replace(attempt, verdict="slower", reason=f"it was not timed: {error}")
        if score < _SLOWER:
            why = f"{said(self.config.objective, score)} at {self.levels[-1].name}"
            return replace(attempt, verdict="slower", reason=why, score=score, opcodes=opcodes)
        return replace(attempt, score=score, opcodes=opcodes)

    def _told(self, proposal: Proposal, refuted: Refuted) -> str:
        """What differs and for which arguments; for those who write texts, for small ones."""
        if refuted.index is None:
            return str(refuted.difference)
        call = self.baseline.inputs[refuted.index]
        difference = refuted.difference
        if proposal.origin != "rewrite":
            found = self._smallest(proposal, call)
            if found is not None:
                call, difference = found
        return f"for {call_text(call)} {difference}"

    def _smallest(self, proposal: Proposal, call: Input) -> tuple[Input, Difference] | None:
        """A small call for which a text differs, which is tried first from now on."""
        last: dict[int, Refuted] = {}
        seen: dict[int, Baseline] = {}
        with Watcher(self.target.program()) as original:
            observer = self.watcher(proposal)

            def differs(one: Input) -> bool:
                try:
                    alone = record_baseline([one], original, original, self.equality, judged=True)
                except BaselineError:
                    return False
                found = alone.refute(observer, self.equality)
                if found is None or found.index is None:
                    return False
                last[0], seen[0] = found, alone
                return True

            try:
                small = shrunk(call, differs)
            finally:
                observer.close()
        if small is call or not last:
            return None
        self.baseline.add_first(seen[0])
        return small, last[0].difference

    def _refused(self, proposal: Proposal) -> str | None:
        text = self.target.text
        found = complaint(text, proposal.text, self.target.entry, self.config.allow)
        if found is not None or proposal.origin == "rewrite":
            return found
        results = [one["value"] for one in self.baseline.expected]
        doubts = suspicions(text, proposal.text, results)
        return f"it could deceive a test: {'; '.join(doubts)}" if doubts else None

    def look(self, text: str, origin: str) -> tuple[float, int]:
        """How many times as good a text seems at the largest inputs, and its instructions.

        Races: a text that costs far more than the best so far is not looked at again, and the
        instructions of the interpreter, which take long to count, are for those that are close to
        the best; 0 else.

        Raises:
            ExecutionError: it could not be timed.
        """
        trusted = origin != "llm" or self.config.trust_llm
        if trusted not in self._original:
            cost = self._cost(self.target.text, trusted)
            self._original[trusted] = self._best[trusted] = cost
        cost = self._cost(text, trusted)
        opcodes = 0
        if cost < _CLOSE * self._best[trusted]:
            with suppress(ExecutionError):
                opcodes = self._opcodes(text, trusted)
        self._best[trusted] = min(cost, self._best[trusted])
        return self._original[trusted] / max(cost, 1e-12), opcodes

    def peak_mib(self, text: str, *, trusted: bool) -> float:
        """MiB that a text needs at the largest inputs.

        Raises:
            ExecutionError: it could not be measured.
        """
        encoded = encode_inputs(self.levels[-1].inputs)
        with self.timer(self.target.program(text), encoded, trusted=trusted) as timer:
            return timer.peak_mib()

    def _opcodes(self, text: str, trusted: bool) -> int:
        """Instructions of the interpreter at a size at which tracing is quick."""
        level = next((one for one in self.levels if one.seconds >= _TRACED_S), self.levels[-1])
        encoded = encode_inputs(level.inputs)
        with self.timer(self.target.program(text), encoded, trusted=trusted) as timer:
            return sum(timer.opcodes(limit_s=_MOST_S))

    def _cost(self, text: str, trusted: bool) -> float:
        """What a text takes at the largest inputs, by a short look.

        Instructions of the machine take too long to count: time stands for them here.
        """
        encoded = encode_inputs(self.levels[-1].inputs)
        with self.timer(self.target.program(text), encoded, trusted=trusted) as timer:
            objective = self.config.objective
            if objective == "opcodes":
                return float(sum(timer.opcodes()))
            if objective == "memory":
                return max(timer.peak_mib(), LEAST_MIB)
            if objective == "tmu":
                return min(area(timer) for _ in range(_LOOKS))
            clock = objective if objective in TIMES else "cpu"
            loops = 1
            first = sum(timer.time(1, clock=clock, limit_s=60))
            if first > max(_FAR * self._best.get(trusted, first), _BATCH_S):
                return first
            if first < _BATCH_S:
                loops = min(int(4e-3 / max(first, 1e-7)) + 1, 20_000)
            found = [first] if loops == 1 else []
            for _ in range(_LOOKS - len(found)):
                found.append(sum(timer.time(loops, clock=clock, limit_s=60)))
            return min(found)
