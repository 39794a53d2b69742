"""Timings and currents of DRAM devices, from public data sheets.

::

    DDR3-1600    11-11-11, 4 Gbit x8 at 1.35 V: JEDEC JESD79-3F; currents of Micron MT41K512M8
    DDR4-2400    16-16-16, 8 Gbit x8 at 1.2 V: JEDEC JESD79-4; currents of Micron MT40A1G8
    LPDDR4-3200  RL 28, WL 14 (set A), 8 Gbit x16: JEDEC JESD209-4, timings and currents as in
                 DRAMSys 5's "JEDEC_8Gb_LPDDR4-3200_16bit"

The currents of the first two are those that DRAMsim3's configurations hold for the same parts. A
channel moves 64 bytes with one burst: eight x8 devices, or two x16 in lockstep.

Currents are of the core alone: I/O, termination and the pump voltage of DDR4 are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from sharpen.core.errors import ConfigError, did_you_mean

__all__ = ["SPECS", "DramSpec", "DramTimings", "Rail", "find_spec"]

LINE_BYTES = 64
MOST_BANKS = 64
_DEFAULTS = {"rp_all": "rp", "rrd_l": "rrd_s", "ccd_l": "ccd_s", "wtr_l": "wtr_s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DramTimings:
    """Organisation and least distances of a rank, in clock cycles; JEDEC's names without the t."""

    clock_ns: float
    """Length of a cycle."""

    groups: int = 1
    """Bank groups of a rank."""

    banks: int = 8
    """Banks of a group."""

    rows: int = 65536
    """Rows of a bank."""

    lines: int = 128
    """Lines of 64 bytes in a row of the rank."""

    cl: int
    """From a read to its first data; with tDQSCK where the standard adds it."""

    cwl: int
    """From a write to its first data; with tDQSS where the standard adds it."""

    burst: int = 4
    """Cycles of data a burst: half its length."""

    rcd: int
    """From an activate to a read or write of its row."""

    rp: int
    """From a precharge to an activate."""

    rp_all: int | None = None
    """From a precharge of all banks to an activate; None is ``rp``."""

    ras: int
    """From an activate to a precharge."""

    rc: int
    """From an activate to the next of its bank."""

    rrd_s: int
    """Between activates of different groups."""

    rrd_l: int | None = None
    """Between activates of one group; None is ``rrd_s``."""

    faw: int
    """Window that holds at most four activates of a rank."""

    ccd_s: int = 4
    """Between reads, or writes, of different groups."""

    ccd_l: int | None = None
    """Between reads, or writes, of one group; None is ``ccd_s``."""

    wr: int
    """From the end of written data to a precharge."""

    wtr_s: int
    """From the end of written data to a read of another group."""

    wtr_l: int | None = None
    """From the end of written data to a read of its group; None is ``wtr_s``."""

    rtp: int
    """From a read to a precharge."""

    refi: int
    """Mean distance of refreshes."""

    rfc: int
    """From a refresh to the next command of its rank."""

    rtrs: int = 1
    """Between the data of two ranks."""

    turnaround: int = 2
    """Between read data and written data."""

    ppd: int = 1
    """Between precharges of a rank."""

    command_cycles: tuple[int, ...] = (1, 1, 1, 1)
    """Cycles on the command bus of an activate, a precharge, a read or write, and a refresh."""

    def __post_init__(self) -> None:
        for name, source in _DEFAULTS.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(self, source))
        if not self.clock_ns > 0:
            raise ConfigError(f"clock_ns={self.clock_ns} must be positive (DramTimings).")
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("turnaround", "rtrs") else 1
            if isinstance(value, int) and value < least:
                raise ConfigError(f"{field.name}={value} must be at least {least} (DramTimings).")
        if len(self.command_cycles) != 4 or min(self.command_cycles) < 1:
            raise ConfigError(
                f"command_cycles={self.command_cycles} must be four numbers from 1 (DramTimings)."
            )
        if self.ccd_s < self.burst:
            raise ConfigError(
                f"ccd_s={self.ccd_s} must be at least burst={self.burst}, or data would overlap "
                "(DramTimings)."
            )
        if self.refi <= self.rfc + self.closing(1):
            raise ConfigError(
                f"refi={self.refi} leaves no time beside rfc={self.rfc} (DramTimings)."
            )

    def closing(self, ranks: int) -> int:
        """Cycles that suffice to close every bank of a rank, whatever it does."""
        assert self.rp_all is not None
        longest = max(self.ras, self.cwl + self.burst + self.wr)
        return longest + self.rp_all + 8 + 4 * ranks * self.command_cycles[0]

    @property
    def peak_bytes_s(self) -> float:
        """Bytes a second of back-to-back bursts."""
        return LINE_BYTES / (self.burst * self.clock_ns * 1e-9)


@dataclass(frozen=True, slots=True)
class Rail:
    """A supply of a device: volts, and milliamperes by JEDEC's conditions."""

    volts: float
    idd0: float
    """Activate and precharge of one bank every tRC."""
    idd2n: float
    """Standby, all banks closed."""
    idd3n: float
    """Standby, a bank open."""
    idd4r: float
    """Reading without a gap."""
    idd4w: float
    """Writing without a gap."""
    idd5: float
    """Refreshing without a gap."""


@dataclass(frozen=True, slots=True)
class DramSpec:
    """A kind of memory."""

    name: str
    timings: DramTimings
    rails: tuple[Rail, ...]
    devices: int
    """Devices of a rank."""

    def energies_nj(self) -> dict[str, float]:
        """Energy above standby of an activate with its precharge, a read, a write and a refresh.

        And ``idle`` and ``open``: standby energy of a rank a cycle, without and with open rows. The
        method is that of Micron, "TN-41-01: Calculating Memory System Power for DDR3", 2007.
        """
        t = self.timings
        found = dict.fromkeys(("activate", "read", "write", "refresh", "idle", "open"), 0.0)
        for rail in self.rails:
            # mA * V * ns = pJ
            scale = rail.volts * t.clock_ns * self.devices * 1e-3
            standby = rail.idd3n * t.ras + rail.idd2n * (t.rc - t.ras)
            found["activate"] += scale * (rail.idd0 * t.rc - standby)
            found["read"] += scale * (rail.idd4r - rail.idd3n) * t.burst
            found["write"] += scale * (rail.idd4w - rail.idd3n) * t.burst
            found["refresh"] += scale * (rail.idd5 - rail.idd2n) * t.rfc
            found["idle"] += scale * rail.idd2n
            found["open"] += scale * rail.idd3n
        return found


SPECS: dict[str, DramSpec] = {
    spec.name: spec
    for spec in (
        DramSpec(
            "DDR3-1600",
            DramTimings(
                clock_ns=1.25, cl=11, cwl=8, rcd=11, rp=11, ras=28, rc=39, rrd_s=5, faw=24, wr=12,
                wtr_s=6, rtp=6, refi=6240, rfc=208,
            ),
            (Rail(1.35, 55, 32, 38, 157, 125, 235),),
            8,
        ),
        DramSpec(
            "DDR4-2400",
            DramTimings(
                clock_ns=1 / 1.2, groups=4, banks=4, cl=16, cwl=16, rcd=16, rp=16, ras=39, rc=55,
                rrd_s=4, rrd_l=6, faw=26, ccd_l=6, wr=18, wtr_s=3, wtr_l=9, rtp=9, refi=9360,
                rfc=420, rtrs=2,
            ),
            (Rail(1.2, 48, 34, 43, 135, 123, 250),),
            8,
        ),
        DramSpec(
            "LPDDR4-3200",
            DramTimings(
                clock_ns=0.625, lines=64, cl=28 + 6, cwl=14 + 1, burst=8, rcd=29, rp=29, rp_all=34,
                ras=68, rc=97, rrd_s=16, faw=64, ccd_s=8, wr=29, wtr_s=16, rtp=12, refi=6246,
                rfc=448, ppd=4, command_cycles=(4, 2, 4, 2),
            ),
            (
                Rail(1.8, 3.5, 2.0, 2.25, 2.25, 2.25, 10.0),
                Rail(1.1, 45.0, 27.0, 30.0, 275.0, 210.0, 90.0),
            ),
            2,
        ),
    )
}  # fmt: skip
"""Known kinds of memory by name."""


def find_spec(spec: str | DramSpec) -> DramSpec:
    """A kind of memory, by name or as it is.

    Raises:
        ConfigError: there is none of that name.
    """
    if isinstance(spec, DramSpec):
        return spec
    if spec not in SPECS:
        raise ConfigError(
            f"there is no memory '{spec}'.{did_you_mean(spec, SPECS)} Known: {', '.join(SPECS)}; "
            "or give a DramSpec."
        )
    return SPECS[spec]
