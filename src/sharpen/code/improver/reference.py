"""What the original function does for each input, and whether another text does the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sharpen.code.improver.equality import Difference, Equality
from sharpen.code.improver.observer import Observer, Series, error_name
from sharpen.code.inputs import Input
from sharpen.code.measure.process import encode_inputs
from sharpen.core.errors import ExecutionError
from sharpen.core.sandbox.outcome import find_opaque, shown

__all__ = ["Baseline", "BaselineError", "Refuted", "call_text", "record_baseline"]

_EACH_S = 1.0
_MOST_LATE = 4
_STACK = ("RecursionError", "MemoryError")  # they depend on what is left, not on the arguments


class BaselineError(ExecutionError):
    """The function as it is does not behave: there is nothing to compare with."""


@dataclass(frozen=True, slots=True)
class Refuted:
    """An input for which another text does something else.

    Args:
        index: of the input.
        difference: what differs.
    """

    index: int | None
    difference: Difference


@dataclass(slots=True)
class Baseline:
    """What the original does.

    Args:
        inputs: those that it was seen with.
        expected: [inputs] what was seen.
        state: changes of the module's variables after all of them.
        dropped: inputs that tell nothing, by why.
    """

    inputs: list[Input]
    expected: list[Mapping[str, Any]]
    state: Mapping[str, bytes | None]
    dropped: dict[str, int] = field(default_factory=dict)
    encoded: list[bytes] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Processor time of all calls."""
        return sum(float(one["seconds"]) for one in self.expected)

    def refute(self, other: Observer, equality: Equality) -> Refuted | None:
        """The first input for which another program differs; None where there is none.

        It may take ten times as long as the original, and two seconds more.
        """
        slowest = max((float(one["seconds"]) for one in self.expected), default=0.0)
        each_s, whole_s = _EACH_S + 10 * slowest, 2 * _EACH_S + 10 * self.seconds
        series = other.observe(self.encoded, each_s=each_s, whole_s=whole_s)
        if series.seen and series.seen[-1].why == "late":  # or the machine was busy
            series = other.observe(self.encoded, each_s=3 * each_s, whole_s=3 * whole_s)
        for index, expected in enumerate(self.expected):
            if index >= len(series.seen) or series.seen[index].what is None:
                why = series.seen[index].why if index < len(series.seen) else "ended"
                words = "an endless loop, or ten times as slow" if why == "late" else why
                return Refuted(index, Difference("the call", _outcome(expected), words))
            got = series.seen[index].what
            assert got is not None
            found = equality.difference(expected, got)
            if found is not None:
                return Refuted(index, found)
        return self._state_refutes(series)

    def add_first(self, other: Baseline) -> None:
        """Try the inputs of another first, unless calls change variables of the module."""
        if self.state or other.state or other.encoded[0] in self.encoded:
            return
        self.inputs[:0] = other.inputs
        self.expected[:0] = other.expected
        self.encoded[:0] = other.encoded

    def _state_refutes(self, series: Series) -> Refuted | None:
        changed = changes(series)
        for name in [*self.state, *changed]:
            if self.state.get(name) != changed.get(name) or (name in self.state) != (
                name in changed
            ):
                what = ("left as it was", "changed")
                expected, got = what[name in self.state], what[name in changed]
                if expected == got:
                    got = "changed to something else"
                return Refuted(None, Difference(f"the module's variable '{name}'", expected, got))
        return None


def changes(series: Series) -> dict[str, bytes | None]:
    """Variables of a module that calls have changed: their digests afterwards."""
    names = {*series.before, *series.after}
    return {
        name: series.after.get(name)
        for name in sorted(names)
        if series.before.get(name) != series.after.get(name)
    }


def record_baseline(
    inputs: Sequence[Input], one: Observer, other: Observer, equality: Equality, *, judged: bool
) -> Baseline:
    """See what the original does, in two processes with different seeds of hashes.

    The second takes the inputs in the opposite order, so that what depends on earlier calls shows.

    Args:
        inputs: calls.
        one: the original.
        other: the original in another process.
        equality: when two calls are the same.
        judged: whether a function of the user's decides, so that results may differ.

    Raises:
        BaselineError: it does not do the same twice, or what it gives cannot be compared.
    """
    dropped: dict[str, int] = {}
    good = _calls(inputs, one, dropped)
    series = one.observe(encode_inputs([call for call, _ in good]), each_s=30.0, whole_s=120.0)
    if len(series.seen) != len(good) or any(seen.what is None for seen in series.seen):
        raise BaselineError(f"it does not end twice in the same way: {series.seen[-1].why}.")
    baseline = Baseline(
        [call for call, _ in good],
        [seen.what for seen in series.seen if seen.what is not None],
        changes(series),
        dropped,
        encode_inputs([call for call, _ in good]),
    )
    for (call, first), again in zip(good, baseline.expected, strict=True):
        _check_comparable(call, first)
        if not judged:
            _check_same(call, first, again, "in two processes", equality)
    backwards = other.observe(baseline.encoded[::-1], each_s=30.0, whole_s=120.0)
    for index, seen in enumerate(backwards.seen[::-1] if not judged else []):
        if seen.what is None:
            raise BaselineError(f"it does not end twice in the same way: {seen.why}.")
        call = baseline.inputs[index]
        hint = "with another seed of hashes and in another order"
        _check_same(call, baseline.expected[index], seen.what, hint, equality)
    return baseline


def _calls(
    inputs: Sequence[Input], one: Observer, dropped: dict[str, int]
) -> list[tuple[Input, Mapping[str, Any]]]:
    """Inputs that can be compared, with what was seen."""
    found: list[tuple[Input, Mapping[str, Any]]] = []
    waiting = list(inputs)
    late = 0
    while waiting:
        series = one.observe(encode_inputs(waiting), each_s=_EACH_S, whole_s=120.0)
        for call, seen in zip(waiting, series.seen, strict=False):
            why = seen.why.partition(":")[0]
            if seen.what is not None:
                kind = error_name(seen.what)
                why = f"it raised {kind}" if kind in _STACK else ""
            if why:
                why = {"late": "it took too long", "ended": "it ended its process"}.get(why, why)
                dropped[why] = dropped.get(why, 0) + 1
                late += why == "it took too long"
            elif seen.what is not None:
                found.append((call, seen.what))
        waiting = waiting[len(series.seen) :] if late < _MOST_LATE else []
    if not found:
        reasons = ", ".join(f"{why} ({count})" for why, count in dropped.items())
        raise BaselineError(f"no input can be used: {reasons or 'there are none'}.")
    return found


def _check_same(
    call: Input, a: Mapping[str, Any], b: Mapping[str, Any], when: str, equality: Equality
) -> None:
    found = equality.difference(a, b)
    if found is None:
        return
    raise BaselineError(
        f"it does not do the same twice: for {call_text(call)}, {found.where} was {found.expected}"
        f" and then, {when}, {found.got}. It depends on randomness, time, the order of a set, or"
        " on earlier calls. Take that out of the function, or say when results count as the same:"
        " --equal mod:FILE.py:NAME."
    )


def _check_comparable(call: Input, seen: Mapping[str, Any]) -> None:
    for name in ("value", "error", "args", "kwargs"):
        found = find_opaque(seen[name])
        if found is not None:
            raise BaselineError(
                f"what it does cannot be compared: for {call_text(call)}, its {name} holds"
                f" {found.text or found.type_name} of the type {found.type_name}. Improve a"
                " function that gives plain values."
            )


def _outcome(seen: Mapping[str, Any]) -> str:
    error = seen["error"]
    return shown(seen["value"]) if error is None else f"an exception, {shown(error)}"


def call_text(call: Input) -> str:
    """Arguments as in a call, cut."""
    args, kwargs = call
    words = [*map(shown, args), *[f"{name}={shown(one)}" for name, one in kwargs.items()]]
    return f"({', '.join(words)})"
