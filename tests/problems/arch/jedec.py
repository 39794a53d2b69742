"""A checker of DRAM commands that shares nothing with the simulator.

It keeps every command of the past and compares each new one with all that may forbid it, pair by
pair, in the words of JEDEC's tables; no state machine, no "earliest time".
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

from sharpen.problems.arch import DramTimings

KINDS = ("ACT", "PRE", "PREA", "RD", "RDA", "WR", "WRA", "REF")
READS, WRITES = ("RD", "RDA"), ("WR", "WRA")


class Jedec:
    """Asserts that a list of commands keeps every constraint of ``timings``."""

    def __init__(self, timings: DramTimings, ranks: int) -> None:
        self.t, self.ranks = timings, ranks
        self.per_rank = timings.groups * timings.banks

    def group(self, bank: int) -> int:
        return bank % self.per_rank // self.t.banks

    def check(self, commands: Any) -> None:
        t = self.t
        width = dict(zip(("ACT", "PRE", "CAS", "REF"), t.command_cycles, strict=True))
        row: dict[int, int] = {}
        opened: dict[int, int] = {}
        acts: dict[int, list[tuple[int, int]]] = defaultdict(list)  # by rank: time, bank
        last_cas: dict[int, tuple[int, str]] = {}  # of the open row, by bank
        precharged: dict[int, tuple[int, int]] = {}  # by bank: when it began, how long it takes
        column: list[tuple[int, str, int, int]] = []  # time, kind, rank, bank
        refreshed: dict[int, int] = {}
        precharges: dict[int, int] = {}
        free = 0
        data_until = -1
        for c in commands:
            now, kind = int(c["cycle"]), KINDS[c["kind"]]
            rank, bank = int(c["rank"]), int(c["bank"])
            assert now >= free, "the command bus is taken"
            of = {"PREA": "PRE", "ACT": "ACT", "PRE": "PRE", "REF": "REF"}.get(kind, "CAS")
            free = now + width[of]
            if rank in refreshed:
                assert now >= refreshed[rank] + t.rfc, "tRFC"
            if kind == "ACT":
                assert bank not in row, "the bank is open"
                if bank in precharged:
                    begun, takes = precharged[bank]
                    assert now >= begun + takes, "tRP"
                if bank in opened:
                    assert now >= opened[bank] + t.rc, "tRC"
                for when, other in acts[rank][-8:]:
                    far = t.rrd_l if self.group(other) == self.group(bank) else t.rrd_s
                    assert far is not None
                    assert now >= when + far, "tRRD"
                if len(acts[rank]) >= 4:
                    assert now >= acts[rank][-4][0] + t.faw, "tFAW"
                acts[rank].append((now, bank))
                row[bank], opened[bank] = int(c["row"]), now
                last_cas.pop(bank, None)
            elif kind in ("PRE", "PREA"):
                if rank in precharges:
                    assert now >= precharges[rank] + t.ppd, "tPPD"
                precharges[rank] = now
                mine = range(rank * self.per_rank, (rank + 1) * self.per_rank)
                closing = [bank] if kind == "PRE" else [b for b in mine if b in row]
                assert closing, "nothing is open"
                for b in closing:
                    assert b in row, "the bank is closed"
                    assert now >= self.may_close(b, opened, last_cas), "tRAS, tRTP or tWR"
                    takes = t.rp if kind == "PRE" else t.rp_all
                    assert takes is not None
                    precharged[b] = (now, takes)
                    del row[b]
            elif kind == "REF":
                for b in range(rank * self.per_rank, (rank + 1) * self.per_rank):
                    assert b not in row, "a bank is open"
                    if b in precharged:
                        begun, takes = precharged[b]
                        assert now >= begun + takes, "tRP before REF"
                refreshed[rank] = now
            else:
                assert row.get(bank) == int(c["row"]), "another row is open"
                assert now >= opened[bank] + t.rcd, "tRCD"
                for when, other_kind, other_rank, other in column[-32:]:
                    self.check_columns(now, kind, rank, bank, when, other_kind, other_rank, other)
                begins = now + (t.cl if kind in READS else t.cwl)
                assert begins >= data_until, "data overlap"
                data_until = begins + t.burst
                column.append((now, kind, rank, bank))
                last_cas[bank] = (now, kind)
                if kind in ("RDA", "WRA"):
                    precharged[bank] = (self.may_close(bank, opened, last_cas), t.rp)
                    del row[bank]

    def may_close(self, bank: int, opened: Any, last_cas: Any) -> int:
        t, found = self.t, opened[bank] + self.t.ras
        if bank in last_cas:
            when, kind = last_cas[bank]
            after = t.rtp if kind in READS else t.cwl + t.burst + t.wr
            found = max(found, when + after)
        return int(found)

    def check_columns(
        self, now: int, kind: str, rank: int, bank: int, when: int, before: str, at: int, other: int
    ) -> None:
        t, same = self.t, self.group(bank) == self.group(other) and at == rank
        assert t.ccd_l is not None
        assert t.wtr_l is not None
        if at == rank and (kind in READS) == (before in READS):
            assert now >= when + (t.ccd_l if same else t.ccd_s), "tCCD"
        if at == rank and before in WRITES and kind in READS:
            far = t.wtr_l if same else t.wtr_s
            assert now >= when + t.cwl + t.burst + far, "tWTR"
        begins = now + (t.cl if kind in READS else t.cwl)
        ended = when + (t.cl if before in READS else t.cwl) + t.burst
        if at != rank:
            assert begins >= ended + t.rtrs, "tRTRS"
        if before in READS and kind in WRITES:
            assert begins >= ended + t.turnaround, "read to write"

    def check_refreshes(self, commands: Any, postponed: int, pulled_in: int) -> None:
        """At every moment, refreshes are at most so late and so early; none is 9 tREFI apart."""
        t = self.t
        for rank in range(self.ranks):
            shift = rank * t.refi // self.ranks
            mine = [c for c in commands if c["rank"] == rank and KINDS[c["kind"]] == "REF"]
            times = [int(c["cycle"]) for c in mine]
            for k, when in enumerate(times, start=1):
                due = max(when - shift, 0) // t.refi
                assert k - due <= pulled_in, "too early"
                assert due - (k - 1) <= postponed, "too late"
            last = int(commands["cycle"][-1])
            assert max((last - shift) // t.refi, 0) - len(times) <= postponed
            for one, two in itertools.pairwise(times):
                assert two - one <= 9 * t.refi
