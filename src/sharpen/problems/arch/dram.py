"""A DRAM channel with its controller, cycle by cycle at the level of commands.

The controller's ten parameters are those of DRAMSys (Lukas Steiner et al., "DRAMSys4.0: A Fast and
Cycle-Accurate SystemC/TLM-Based DRAM Simulator", SAMOS 2020), which ArchGym searches over
(Srivatsan Krishnan et al., "ArchGym: An Open-Source Gymnasium for Machine Learning Assisted
Architecture Design", ISCA 2023, arXiv:2306.08888). The rules::

    arbiter     Simple: requests come in one by one, in the order of the trace, one a cycle
                Fifo: each source has its own queue, and the sources take turns
                Reorder: as Fifo, and a source gets its answers in the order of its requests
    active      requests between coming in and being answered: at most so many a queue
    buffer      room for requests that wait: by bank, by kind (read, write) or shared. Split by
                kind, writes wait until they fill 3/4 of it or no read waits, and then go until 1/4
    scheduler   each bank works on its oldest request (Fifo), its oldest row hit (FrFcfs), or its
                oldest hit of the kind last transferred (FrFcfsGrp); without a hit on its oldest
    page        Open leaves rows open; Closed precharges after each access; OpenAdaptive does so if
                requests wait for the bank and none for its row; ClosedAdaptive unless one does
    refresh     one a rank is due every tREFI; a rank without requests for tRFC takes what is due
                and up to `pulled_in` in advance; else refreshes wait until `postponed` are due and
                the next is near, and then go before all else
    answers     Fifo: when the data are through; Reorder: in the order in which requests came in
    bus         one command at a time: refreshes that must be, then data, then rows, then refreshes
                that may be; the oldest request first

Where requests might overtake each other (a buffer split by kind, FrFcfsGrp), one for a line that a
request of the other kind waits for stays outside until that is served: data are never wrong.

Differs from DRAMSys: one channel; no power-down; no per-bank refresh. Time O(banks + buffer) a
command; memory O(requests). The loop is native code where there is a compiler, else Python; both
give the same numbers.
"""

from __future__ import annotations

import copy
import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.native.build import function, load
from sharpen.problems.arch.dram_twin import COUNTS, Setup, Streams, simulate
from sharpen.problems.arch.timings import LINE_BYTES, MOST_BANKS, DramSpec, find_spec
from sharpen.problems.arch.traces import Trace

__all__ = ["DramController", "DramPolicy", "DramResult"]

Ints = npt.NDArray[np.int64]
PagePolicy = Literal["Open", "OpenAdaptive", "Closed", "ClosedAdaptive"]
Scheduler = Literal["Fifo", "FrFcfsGrp", "FrFcfs"]
SchedulerBuffer = Literal["Bankwise", "ReadWrite", "Shared"]
RespQueue = Literal["Fifo", "Reorder"]
RefreshPolicy = Literal["AllBank", "NoRefresh"]
Arbiter = Literal["Simple", "Fifo", "Reorder"]
COMMAND = np.dtype([(n, np.int64) for n in ("cycle", "kind", "rank", "bank", "row", "request")])
_MOST_REFRESHES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DramPolicy:
    """What a controller does; the names and words are those of DRAMSys. See the module."""

    page_policy: PagePolicy = "Open"
    """When rows are closed."""

    scheduler: Scheduler = "FrFcfs"
    """Which request a bank works on."""

    scheduler_buffer: SchedulerBuffer = "Bankwise"
    """How the room for waiting requests is split."""

    request_buffer_size: int = 8
    """Requests that fit each part of it."""

    resp_queue: RespQueue = "Fifo"
    """Order of answers."""

    refresh_policy: RefreshPolicy = "AllBank"
    """``NoRefresh`` loses data within milliseconds; a controller takes it only when told so."""

    refresh_max_postponed: int = 8
    """Refreshes that may be late, 1 to 8 as JEDEC allows."""

    refresh_max_pulledin: int = 8
    """Refreshes that may be early, 1 to 8."""

    arbiter: Arbiter = "Simple"
    """How requests come in."""

    max_active_transactions: int = 128
    """Requests of a queue of the arbiter that are under way."""

    def __post_init__(self) -> None:
        for name, kind in _WORDS.items():
            value = getattr(self, name)
            if value not in get_args(kind):
                raise ConfigError(
                    f"{name}={value!r} must be one of {', '.join(get_args(kind))} (DramPolicy)."
                )
        for name in ("request_buffer_size", "max_active_transactions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1 (DramPolicy).")
        for name in ("refresh_max_postponed", "refresh_max_pulledin"):
            if not 1 <= getattr(self, name) <= _MOST_REFRESHES:
                raise ConfigError(
                    f"{name}={getattr(self, name)} must be from 1 to {_MOST_REFRESHES}, the most "
                    "that JEDEC allows (DramPolicy)."
                )


_WORDS: dict[str, Any] = {
    "page_policy": PagePolicy,
    "scheduler": Scheduler,
    "scheduler_buffer": SchedulerBuffer,
    "resp_queue": RespQueue,
    "refresh_policy": RefreshPolicy,
    "arbiter": Arbiter,
}


@dataclass(frozen=True, slots=True)
class DramResult:
    """What a trace took."""

    counts: dict[str, int]
    """``cycles`` until the last answer, ``activates``, ``reads``, ``writes``, ``refreshes``,
    ``row_hits``, ``active`` (cycles of ranks with an open row) and ``commands``."""

    energy_parts_uj: dict[str, float]
    """Microjoules: ``activate``, ``read``, ``write``, ``refresh`` and ``standby``."""

    time_ns: float
    """Until the last answer."""

    begin: Ints = field(repr=False)
    """[n] cycle in which each request was ready to come in."""

    finish: Ints = field(repr=False)
    """[n] cycle in which each was answered."""

    clock_ns: float
    """Length of a cycle."""

    commands: Any = field(default=None, repr=False)
    """Structured array of ``cycle kind rank bank row request``, where asked for; ``kind`` counts
    along ``ACT PRE PREA RD RDA WR WRA REF``."""

    @property
    def energy_uj(self) -> float:
        """All energy, in microjoules."""
        return sum(self.energy_parts_uj.values())

    @property
    def power_w(self) -> float:
        """Mean power, in watts."""
        return self.energy_uj * 1e3 / self.time_ns if self.time_ns else 0.0

    @property
    def latencies_ns(self) -> npt.NDArray[np.float64]:
        """[n] from being ready to the answer."""
        return np.asarray((self.finish - self.begin) * self.clock_ns)

    @property
    def latency_ns(self) -> float:
        """Mean latency."""
        return float(self.latencies_ns.mean()) if len(self.finish) else 0.0

    @property
    def bandwidth_bytes_s(self) -> float:
        """Bytes moved a second."""
        return len(self.finish) * LINE_BYTES / self.time_ns * 1e9 if self.time_ns else 0.0

    def histogram(self, bins: int = 20) -> tuple[Ints, npt.NDArray[np.float64]]:
        """Counts [bins] of latencies, and the edges [bins + 1] in nanoseconds."""
        counts, edges = np.histogram(self.latencies_ns, bins=bins)
        return counts.astype(np.int64), edges

    def summary(self) -> str:
        """Two lines."""
        c = self.counts
        hits = c["row_hits"] / max(c["reads"] + c["writes"], 1)
        return (
            f"{self.time_ns / 1e3:.2f} us, {self.bandwidth_bytes_s / 1e9:.2f} GB/s, latency "
            f"{self.latency_ns:.1f} ns, {self.power_w:.3f} W, {self.energy_uj:.2f} uJ\n"
            f"{c['activates']} activates, {hits:.0%} row hits, {c['refreshes']} refreshes, "
            f"{c['commands']} commands"
        )


class DramController:
    """A controller and its channel, for a trace of requests.

    Args:
        trace: the requests.
        spec: kind of memory: ``"DDR3-1600"``, ``"DDR4-2400"``, ``"LPDDR4-3200"`` or your own.
        policy: what the controller does.
        ranks: of the channel.
        interleave: whether lines that follow each other lie in different banks; else in one row.
        allow_no_refresh: whether a policy may be without refreshes, which loses data.

    Raises:
        ConfigError: an unknown memory, more than 64 banks in all, or a policy without refreshes.

    Examples:
        >>> from sharpen.problems.arch.traces import workload
        >>> result = DramController(workload("stream", requests=100)).run()
        >>> result.counts["reads"] + result.counts["writes"]
        100
    """

    def __init__(
        self,
        trace: Trace,
        spec: str | DramSpec = "DDR3-1600",
        policy: DramPolicy | None = None,
        *,
        ranks: int = 1,
        interleave: bool = False,
        allow_no_refresh: bool = False,
    ) -> None:
        self.trace = trace
        self.spec = find_spec(spec)
        self.allow_no_refresh = allow_no_refresh
        self.policy = self._checked(policy or DramPolicy())
        self.ranks = ranks
        t = self.spec.timings
        if not 1 <= ranks * t.groups * t.banks <= MOST_BANKS:
            raise ConfigError(
                f"ranks={ranks} of {t.groups * t.banks} banks must have 1 to {MOST_BANKS} in all "
                "(DramController)."
            )
        self._streams = _decode(trace, self.spec, ranks, interleave)

    def with_policy(self, policy: DramPolicy) -> DramController:
        """The same channel and trace under another policy."""
        other = copy.copy(self)
        other.policy = self._checked(policy)
        return other

    def _checked(self, policy: DramPolicy) -> DramPolicy:
        if policy.refresh_policy == "NoRefresh" and not self.allow_no_refresh:
            raise ConfigError(
                "refresh_policy='NoRefresh' loses the data of a real memory. Use AllBank, or say "
                "allow_no_refresh=True to compare with designs that have it (DramController)."
            )
        return policy

    def run(self, *, commands: bool = False) -> DramResult:
        """Carry out the trace.

        Args:
            commands: whether to keep every command.
        """
        setup = _setup(self.spec, self.policy, self.ranks, self.trace.sources)
        library = load("dram")
        run = _twin if library is None else _native(library)
        begin, finish, counted, log = run(setup, self._streams, commands)
        counts = dict(zip(COUNTS, (int(x) for x in counted), strict=True))
        each = self.spec.energies_nj()
        cycles, active = counts["cycles"] * self.ranks, counts["active"]
        parts = {
            "activate": each["activate"] * counts["activates"],
            "read": each["read"] * counts["reads"],
            "write": each["write"] * counts["writes"],
            "refresh": each["refresh"] * counts["refreshes"],
            "standby": each["open"] * active + each["idle"] * (cycles - active),
        }
        clock = self.spec.timings.clock_ns
        return DramResult(
            counts=counts,
            energy_parts_uj={name: value * 1e-3 for name, value in parts.items()},
            time_ns=counts["cycles"] * clock,
            begin=begin,
            finish=finish,
            clock_ns=clock,
            commands=log,
        )


def _setup(spec: DramSpec, policy: DramPolicy, ranks: int, sources: int) -> Setup:
    t, p = spec.timings, policy
    assert t.rp_all is not None
    assert t.rrd_l is not None
    assert t.ccd_l is not None
    assert t.wtr_l is not None
    act, pre, cas, ref = t.command_cycles
    return Setup(
        ranks=ranks, groups=t.groups, banks=t.banks, cl=t.cl, cwl=t.cwl, burst=t.burst, rcd=t.rcd,
        rp=t.rp, rp_all=t.rp_all, ras=t.ras, rc=t.rc, rrd_s=t.rrd_s, rrd_l=t.rrd_l, faw=t.faw,
        ccd_s=t.ccd_s, ccd_l=t.ccd_l, wr=t.wr, wtr_s=t.wtr_s, wtr_l=t.wtr_l, rtp=t.rtp, refi=t.refi,
        rfc=t.rfc, rtrs=t.rtrs, turnaround=t.turnaround, ppd=t.ppd, act_cycles=act, pre_cycles=pre,
        cas_cycles=cas, ref_cycles=ref,
        page=get_args(PagePolicy).index(p.page_policy),
        scheduler=get_args(Scheduler).index(p.scheduler),
        buffer=get_args(SchedulerBuffer).index(p.scheduler_buffer),
        size=p.request_buffer_size,
        in_order=int(p.resp_queue == "Reorder"),
        refreshes=int(p.refresh_policy == "AllBank"),
        postponed=p.refresh_max_postponed,
        pulled_in=p.refresh_max_pulledin,
        arbiter=get_args(Arbiter).index(p.arbiter),
        most_active=p.max_active_transactions,
        sources=sources,
    )  # fmt: skip


def _decode(trace: Trace, spec: DramSpec, ranks: int, interleave: bool) -> tuple[Ints, ...]:
    """[7, n] of :class:`Streams`: the bits of an address, from the lowest.

    Group, line in the row, bank, rank, row; with ``interleave`` group, bank, rank, line, row.
    """
    t = spec.timings
    line = trace.address // LINE_BYTES
    rest, group = np.divmod(line, t.groups)
    if interleave:
        rest, bank = np.divmod(rest, t.banks)
        rest, rank = np.divmod(rest, ranks)
        row = rest // t.lines
    else:
        rest, bank = np.divmod(rest // t.lines, t.banks)
        row, rank = np.divmod(rest, ranks)
    flat = (rank * t.groups + group) * t.banks + bank
    found = (trace.at, trace.after, trace.is_write, flat, row % t.rows, line, trace.source)
    return tuple(np.ascontiguousarray(part, dtype=np.int64) for part in found)


Outcome = tuple[Ints, Ints, Any, Any]


@functools.cache
def _native(library: ctypes.CDLL) -> Callable[[Setup, tuple[Ints, ...], bool], Outcome]:
    pointer = ctypes.c_void_p
    call = function(library, "dram", pointer, ctypes.c_int64, *[pointer] * 12)

    def run(setup: Setup, streams: tuple[Ints, ...], commands: bool) -> Outcome:
        numbers, n = np.array(setup, dtype=np.int64), len(streams[0])
        begin, finish = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        counts, done = np.zeros(len(COUNTS), dtype=np.int64), ctypes.c_int64()
        inputs = [part.ctypes.data for part in streams]

        def carry_out(log: Any) -> None:
            kept = [begin.ctypes.data, finish.ctypes.data, counts.ctypes.data]
            where = None if log is None else log.ctypes.data
            call(numbers.ctypes.data, n, *inputs, *kept, where, ctypes.byref(done))
            _check_done(bool(done.value))

        carry_out(None)
        log = None
        if commands:  # how many there are is known only now
            log = np.zeros(counts[-1], dtype=COMMAND)
            carry_out(log)
        return begin, finish, counts, log

    return run


def _twin(setup: Setup, streams: tuple[Ints, ...], commands: bool) -> Outcome:
    begin, finish, counts, log, done = simulate(setup, Streams(*(s.tolist() for s in streams)))
    _check_done(done)
    kept = np.array(log, dtype=COMMAND) if commands else None
    return np.array(begin, dtype=np.int64), np.array(finish, dtype=np.int64), counts, kept


def _check_done(done: bool) -> None:
    if not done:
        raise ExecutionError("a request waits for an answer that never comes; mend the trace.")
