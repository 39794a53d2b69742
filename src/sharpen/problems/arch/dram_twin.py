"""The DRAM channel's loop in Python: twin of ``sharpen/native/dram.cpp``, equal in every number.

The rules stand in :mod:`sharpen.problems.arch.dram`. All times are whole clock cycles.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["COMMANDS", "COUNTS", "Setup", "Streams", "simulate"]

NEVER = (2**63 - 1) // 4
COMMANDS = ("ACT", "PRE", "PREA", "RD", "RDA", "WR", "WRA", "REF")
COUNTS = ("cycles", "activates", "reads", "writes", "refreshes", "row_hits", "active", "commands")
ACT, PRE, PRE_ALL, READ, READ_PRE, WRITE, WRITE_PRE, REFRESH = range(8)
OPEN, OPEN_ADAPTIVE, CLOSED, CLOSED_ADAPTIVE = range(4)
FIFO, FR_FCFS_GRP, FR_FCFS = range(3)
BANKWISE, READ_WRITE, SHARED = range(3)
SIMPLE, PER_SOURCE, REORDER = range(3)


class Setup(NamedTuple):
    """Timings and policies as the loops take them."""

    ranks: int
    groups: int
    banks: int
    """Of a group."""
    cl: int
    cwl: int
    burst: int
    rcd: int
    rp: int
    rp_all: int
    ras: int
    rc: int
    rrd_s: int
    rrd_l: int
    faw: int
    ccd_s: int
    ccd_l: int
    wr: int
    wtr_s: int
    wtr_l: int
    rtp: int
    refi: int
    rfc: int
    rtrs: int
    turnaround: int
    ppd: int
    act_cycles: int
    pre_cycles: int
    cas_cycles: int
    ref_cycles: int
    page: int
    scheduler: int
    buffer: int
    size: int
    in_order: int
    refreshes: int
    postponed: int
    pulled_in: int
    arbiter: int
    most_active: int
    sources: int


class Streams(NamedTuple):
    """A decoded trace: each [n]."""

    at: list[int]
    after: list[int]
    is_write: list[int]
    bank: list[int]
    row: list[int]
    line: list[int]
    source: list[int]


@dataclass(slots=True)
class _Bank:
    """Times are the earliest for a command of that kind."""

    open: int = -1
    act: int = 0
    cas: int = 0
    pre: int = 0
    requests: list[int] = field(default_factory=list)
    chosen: int = -1
    began: int = 0
    is_stale: bool = False
    is_fresh: bool = False


@dataclass(slots=True)
class _Rank:
    group_read: list[int]
    group_write: list[int]
    group_act: list[int]
    read: int = 0
    write: int = 0
    act: int = 0
    pre: int = 0
    four: list[int] = field(default_factory=lambda: [-NEVER] * 4)
    queued: int = 0
    quiet: int = 0
    issued: int = 0
    force: int = 0
    early: int = 0
    open: list[list[int]] = field(default_factory=list)


@dataclass(slots=True)
class _Lane:
    """Requests that come in one after another."""

    queue: list[int] = field(default_factory=list)
    head: int = 0
    active: int = 0
    answered: int = 0
    last: int = 0


class _Channel:
    def __init__(self, setup: Setup, streams: Streams) -> None:
        c, n = setup, len(streams.at)
        self.c, self.t, self.n = c, streams, n
        self.per_rank = c.groups * c.banks
        self.banks = [_Bank() for _ in range(c.ranks * self.per_rank)]
        self.ranks = [_Rank([0] * c.groups, [0] * c.groups, [0] * c.groups) for _ in range(c.ranks)]
        self.to_write = max(c.cl + c.burst + c.turnaround - c.cwl, c.ccd_l)
        self.closing = max(c.ras, c.cwl + c.burst + c.wr) + c.rp_all + 8
        self.closing += 4 * c.ranks * c.act_cycles
        self.begin, self.finish = [0] * n, [-1] * n
        self.data, self.answered, self.order = [-1] * n, [-1] * n, [0] * n
        self.entered: list[int] = []
        self.high, self.low = c.size - c.size // 4, c.size // 4
        self.is_one = c.arbiter == SIMPLE
        self.lanes = [_Lane() for _ in range(1 if self.is_one else c.sources)]
        for i in range(n):
            self.lanes[0 if self.is_one else streams.source[i]].queue.append(i)
        self.releases: list[tuple[int, int]] = []
        self.waiting = [0, 0]
        self.kinds = [0] * 8
        self.log: list[tuple[int, int, int, int, int, int]] = []
        self.bus = self.turn = self.mode = self.last_kind = 0
        self.delivered = self.responded = self.last_response = self.hits = 0
        self.is_held = self.was_served = False
        for r in range(c.ranks):
            self.plan_refresh(r)

    def run(self) -> bool:
        now = 0
        while self.delivered < self.n:
            while self.releases and self.releases[0][0] <= now:
                self.lanes[heapq.heappop(self.releases)[1]].active -= 1
            then = self.admit(now)
            self.was_served = False
            then = min(then, self.command(now) if self.bus <= now else self.bus)
            if self.was_served and self.is_held:
                then = now + 1
            if then >= NEVER:
                return self.delivered == self.n
            now = max(then, now + 1)
        return True

    def count(self) -> list[int]:
        end, active = max(self.finish, default=0), 0
        end = max(end, 0)
        for b, bank in enumerate(self.banks):
            if bank.open >= 0:
                self.ranks[b // self.per_rank].open[bank.began][1] = end
        for rank in self.ranks:
            covered = 0
            for start, to in rank.open:
                active += max(min(to, end) - max(start, covered), 0)
                covered = max(covered, min(to, end))
        kinds = self.kinds
        reads, writes = kinds[READ] + kinds[READ_PRE], kinds[WRITE] + kinds[WRITE_PRE]
        commands = len(self.log)
        return [end, kinds[ACT], reads, writes, kinds[REFRESH], self.hits, active, commands]

    # -- requests come in -------------------------------------------------------------------------

    def ready(self, i: int) -> int:
        after = self.t.after[i]
        if after < 0:
            return self.t.at[i]
        return NEVER if self.finish[after] < 0 else self.finish[after] + self.t.at[i]

    def has_room(self, i: int) -> bool:
        if self.c.buffer == BANKWISE:
            return len(self.banks[self.t.bank[i]].requests) < self.c.size
        if self.c.buffer == READ_WRITE:
            return self.waiting[self.t.is_write[i]] < self.c.size
        return sum(self.waiting) < self.c.size

    def is_safe(self, i: int) -> bool:
        """Whether no older request of the other kind, which it might overtake, wants its line."""
        if self.c.buffer != READ_WRITE and self.c.scheduler != FR_FCFS_GRP:
            return True
        t = self.t
        return not any(
            t.line[k] == t.line[i] and t.is_write[k] != t.is_write[i]
            for k in self.banks[t.bank[i]].requests
        )

    def admit(self, now: int) -> int:
        """Let at most one request in, the lanes in turn; when to look again."""
        then, is_taken, self.is_held = NEVER, False, False
        count, first = len(self.lanes), self.turn
        for k in range(count):
            number = (first + k) % count
            lane = self.lanes[number]
            if lane.head == len(lane.queue):
                continue
            i = lane.queue[lane.head]
            start = self.ready(i)
            if start > now:
                then = min(then, start)
            elif lane.active >= self.c.most_active:
                then = min(then, self.releases[0][0] if self.releases else NEVER)
            elif not self.has_room(i) or not self.is_safe(i):
                self.is_held = True
            elif is_taken:
                then = now + 1
            else:
                self.begin[i] = start
                lane.active += 1
                lane.head += 1
                if lane.head < len(lane.queue):
                    then = now + 1
                self.order[i] = len(self.entered)
                self.entered.append(i)
                self.banks[self.t.bank[i]].requests.append(i)
                self.count_waiting(i, 1)
                self.turn = (number + 1) % count
                is_taken = True
        return then

    def count_waiting(self, i: int, change: int) -> None:
        b = self.t.bank[i]
        self.banks[b].is_stale = True
        self.waiting[self.t.is_write[i]] += change
        self.ranks[b // self.per_rank].queued += change
        if self.c.buffer != READ_WRITE:
            return
        (reads, writes), old = self.waiting, self.mode
        if not self.mode and (writes >= self.high or (writes and not reads)):
            self.mode = 1
        elif self.mode and (not writes or (writes <= self.low and reads)):
            self.mode = 0
        if self.mode != old:
            self.forget_choices()

    # -- commands go out --------------------------------------------------------------------------

    def forget_choices(self) -> None:
        for bank in self.banks:
            bank.is_stale = True

    def choose(self, bank: _Bank) -> None:
        """The request that a bank works on."""
        oldest = hit = -1
        for i in bank.requests:
            if self.c.buffer == READ_WRITE and self.t.is_write[i] != self.mode:
                continue
            if oldest < 0:
                oldest = i
            if self.c.scheduler == FIFO:
                break
            if self.t.row[i] != bank.open:
                continue
            if hit < 0:
                hit = i
            if self.c.scheduler == FR_FCFS:
                break
            if self.t.is_write[i] == self.last_kind:
                hit = i
                break
        bank.chosen = oldest if hit < 0 else hit
        bank.is_stale = False

    def command(self, now: int) -> int:
        """Issue the command of least class, then of the oldest request, that may go out now.

        Classes: a refresh that must be (0), data (1), rows (2), a refresh that may be (3).
        """
        c, per_rank = self.c, self.per_rank
        then, best_class, best, target, kind = NEVER, 4, NEVER, -1, ACT
        refused: set[int] = set()
        for r in range(c.ranks if c.refreshes else 0):
            rank = self.ranks[r]
            is_forced = now >= rank.force
            if is_forced:
                refused.add(r)
            else:
                then = min(then, rank.force)
                if rank.queued:
                    continue
                wished = max(rank.early, rank.quiet + c.rfc)
                if now < wished:
                    then = min(then, wished)
                    continue
            mine = self.banks[r * per_rank : (r + 1) * per_rank]
            opened = max((bank.pre for bank in mine if bank.open >= 0), default=-1)
            start = max(bank.act for bank in mine) if opened < 0 else max(opened, rank.pre)
            its_class = 0 if is_forced else 3
            if start > now:
                then = min(then, start)
            elif its_class < best_class:
                best_class, target = its_class, r
                kind = REFRESH if opened < 0 else PRE_ALL
        for b, bank in enumerate(self.banks):
            r, group = b // per_rank, b % per_rank // c.banks
            if not bank.requests or r in refused:
                continue
            if bank.is_stale:
                self.choose(bank)
            i, rank, its_class = bank.chosen, self.ranks[r], 2
            if i < 0:
                continue
            if bank.open == self.t.row[i]:
                its_class = 1
                if self.t.is_write[i]:
                    wanted, start = WRITE, max(bank.cas, rank.write, rank.group_write[group])
                else:
                    wanted, start = READ, max(bank.cas, rank.read, rank.group_read[group])
            elif bank.open >= 0:
                wanted, start = PRE, max(bank.pre, rank.pre)
            else:
                wanted = ACT
                start = max(bank.act, rank.act, rank.group_act[group], rank.four[0] + c.faw)
            if start > now:
                then = min(then, start)
            elif (its_class, self.order[i]) < (best_class, best):
                best_class, best, target, kind = its_class, self.order[i], b, wanted
        if best_class == 4:
            return then
        if kind == REFRESH:
            self.refresh(now, target)
        elif kind == PRE_ALL:
            self.close_all(now, target)
        elif kind == PRE:
            self.close_one(now, target)
        elif kind == ACT:
            self.activate(now, target)
        else:
            self.transfer(now, target)
        return self.bus

    def issue(
        self, now: int, kind: int, rank: int, bank: int, row: int, request: int, cycles: int
    ) -> None:
        self.log.append((now, kind, rank, bank, row, request))
        self.kinds[kind] += 1
        self.bus = now + cycles

    def plan_refresh(self, r: int) -> None:
        c, rank = self.c, self.ranks[r]
        shift = r * c.refi // c.ranks
        rank.force = shift + (rank.issued + c.postponed + 1) * c.refi - self.closing
        rank.early = shift + (rank.issued + 1 - c.pulled_in) * c.refi

    def refresh(self, now: int, r: int) -> None:
        self.issue(now, REFRESH, r, -1, -1, -1, self.c.ref_cycles)
        self.ranks[r].issued += 1
        self.plan_refresh(r)
        for bank in self.banks[r * self.per_rank : (r + 1) * self.per_rank]:
            bank.act = max(bank.act, now + self.c.rfc)

    def close(self, b: int, at: int, rp: int) -> None:
        bank = self.banks[b]
        self.ranks[b // self.per_rank].open[bank.began][1] = at
        bank.open = -1
        bank.act = max(bank.act, at + rp)
        bank.is_stale = True

    def close_all(self, now: int, r: int) -> None:
        self.issue(now, PRE_ALL, r, -1, -1, -1, self.c.pre_cycles)
        self.ranks[r].pre = now + self.c.ppd
        for b in range(r * self.per_rank, (r + 1) * self.per_rank):
            if self.banks[b].open >= 0:
                self.close(b, now, self.c.rp_all)

    def close_one(self, now: int, b: int) -> None:
        bank, r = self.banks[b], b // self.per_rank
        self.issue(now, PRE, r, b, bank.open, bank.chosen, self.c.pre_cycles)
        self.ranks[r].pre = now + self.c.ppd
        self.close(b, now, self.c.rp)

    def activate(self, now: int, b: int) -> None:
        c, bank, r = self.c, self.banks[b], b // self.per_rank
        rank, row = self.ranks[r], self.t.row[bank.chosen]
        self.issue(now, ACT, r, b, row, bank.chosen, c.act_cycles)
        bank.open, bank.act, bank.cas, bank.pre = row, now + c.rc, now + c.rcd, now + c.ras
        bank.is_stale = bank.is_fresh = True
        bank.began = len(rank.open)
        rank.open.append([now, now])
        rank.act = now + c.rrd_s
        rank.group_act[b % self.per_rank // c.banks] = now + c.rrd_l
        rank.four = [*rank.four[1:], now]

    def closes_itself(self, bank: _Bank, i: int) -> bool:
        """Whether a bank precharges itself after the data of request ``i``."""
        if self.c.page in (OPEN, CLOSED):
            return self.c.page == CLOSED
        others = [k for k in bank.requests if k != i]
        if any(self.t.row[k] == self.t.row[i] for k in others):
            return False
        return self.c.page == CLOSED_ADAPTIVE or bool(others)

    def transfer(self, now: int, b: int) -> None:
        c, bank = self.c, self.banks[b]
        i, r, group = bank.chosen, b // self.per_rank, b % self.per_rank // c.banks
        is_write, is_last = self.t.is_write[i], self.closes_itself(bank, i)
        kind = (WRITE if is_write else READ) + is_last
        self.issue(now, kind, r, b, bank.open, i, c.cas_cycles)
        self.hits += not bank.is_fresh
        bank.is_fresh = False
        done = now + (c.cwl if is_write else c.cl) + c.burst
        bank.pre = max(bank.pre, done + c.wr if is_write else now + c.rtp)
        if is_last:
            self.close(b, bank.pre, c.rp)
        for k, rank in enumerate(self.ranks):
            apart = now + (c.ccd_s if k == r else c.burst + c.rtrs)
            if is_write:
                other = c.wtr_s if k == r else c.rtrs - c.cl
                rank.write = max(rank.write, apart)
                rank.read = max(rank.read, now + max(c.cwl + c.burst + other, 1))
            else:
                rank.read = max(rank.read, apart)
                rank.write = max(rank.write, now + max(self.to_write, 1))
        rank = self.ranks[r]
        same = rank.group_write if is_write else rank.group_read
        same[group] = max(same[group], now + c.ccd_l)
        if is_write:
            turned = now + c.cwl + c.burst + c.wtr_l
            rank.group_read[group] = max(rank.group_read[group], turned)
        if c.scheduler == FR_FCFS_GRP and self.last_kind != is_write:
            self.forget_choices()
        self.last_kind = is_write
        bank.requests.remove(i)
        self.count_waiting(i, -1)
        if not rank.queued:
            rank.quiet = now
        self.was_served = True
        self.end_data(i, done)

    # -- responses --------------------------------------------------------------------------------

    def end_data(self, i: int, at: int) -> None:
        if not self.c.in_order:
            self.respond(i, at)
            return
        self.data[i] = at
        while self.responded < len(self.entered) and self.data[self.entered[self.responded]] >= 0:
            k = self.entered[self.responded]
            self.responded += 1
            self.last_response = max(self.last_response, self.data[k])
            self.respond(k, self.last_response)

    def respond(self, i: int, at: int) -> None:
        number = 0 if self.is_one else self.t.source[i]
        if self.c.arbiter != REORDER:
            self.deliver(i, at, number)
            return
        lane = self.lanes[number]
        self.answered[i] = at
        while lane.answered < lane.head and self.answered[lane.queue[lane.answered]] >= 0:
            k = lane.queue[lane.answered]
            lane.answered += 1
            lane.last = max(lane.last, self.answered[k])
            self.deliver(k, lane.last, number)

    def deliver(self, i: int, at: int, lane: int) -> None:
        self.finish[i] = at
        self.delivered += 1
        heapq.heappush(self.releases, (at, lane))


def simulate(
    setup: Setup, streams: Streams
) -> tuple[list[int], list[int], list[int], list[tuple[int, int, int, int, int, int]], bool]:
    """Run a trace to its end.

    Returns:
        When each request came in and was answered, the counts of :data:`COUNTS`, the commands as
        (cycle, kind, rank, bank, row, request), and whether all requests were served.
    """
    channel = _Channel(setup, streams)
    done = channel.run()
    return channel.begin, channel.finish, channel.count(), channel.log, done
