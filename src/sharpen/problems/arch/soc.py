"""A system on a chip in phases: processors, memories and buses that tasks share.

Behzad Boroujerdian et al., "FARSI: An Early-stage Design Space Exploration Framework to Tame the
Domain-specific System-on-chip Complexity", ACM Transactions on Embedded Computing Systems 22, 2023.

::

    task i     ops on its processor, bytes read from the memories of the outputs it takes, bytes
               written to the memory of its own; all at one pace, as a stream
    share      a processor, memory or bus of capacity C that n running tasks use gives each C / n
    pace       x_i = min over what it uses of (C / n) / demand, in tasks a second
    phase      paces hold until the first running task is done; then tasks whose inputs are all
               there begin, and the paces are found anew
    distance   sum_m alpha_m max(0, x_m - B_m) / B_m over latency, power and area

Buses stand in a row; bytes between a processor and a memory cross every bus from the one's to the
other's. Power is the energy of operations and bytes over the latency, and leakage.

Differs from the paper: tasks on a processor share it instead of waiting; what a task leaves of its
share is not given to others; blocks are four kinds of processors and two of memories. Time
O(tasks^2 * resources).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sharpen.core.errors import ConfigError

__all__ = ["MEMORIES", "PROCESSORS", "Kind", "Metrics", "Soc", "Task", "simulate"]


@dataclass(frozen=True, slots=True)
class Task:
    """A step of the application."""

    name: str
    ops: float
    """Operations, in millions."""
    out: float
    """Bytes of its output, in millions."""
    after: tuple[str, ...] = ()
    """Tasks whose outputs it reads, whole."""
    speedup: float = 1.0
    """How many times faster an accelerator made for it is than a large core."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of block."""

    rate: float
    """Millions of operations, or of bytes, a second at 1 GHz."""
    picojoules: float
    """An operation or byte."""
    area: float
    """Square millimetres."""
    leakage: float
    """Milliwatts."""


PROCESSORS: dict[str, Kind] = {
    "little": Kind(2_000, 20.0, 0.4, 5.0),
    "big": Kind(8_000, 60.0, 2.0, 40.0),
    "dsp": Kind(16_000, 25.0, 1.5, 25.0),
    "accelerator": Kind(8_000, 4.0, 1.0, 15.0),
}
"""Processors at 1 GHz. An accelerator is as fast as ``big`` times the task's own speedup."""

MEMORIES: dict[str, Kind] = {
    "dram": Kind(8_000, 60.0, 0.5, 20.0),
    "sram": Kind(32_000, 4.0, 4.0, 60.0),
}
"""Memories at 1 GHz."""

BUS = Kind(8_000, 2.0, 0.2, 4.0)
"""A bus of 8 bytes at 1 GHz."""


@dataclass(frozen=True, slots=True)
class Soc:
    """Blocks, how they are connected, and what runs and lies where."""

    processors: tuple[tuple[str, float, int], ...]
    """Kind, GHz and bus of each."""
    memories: tuple[tuple[str, float, int], ...]
    """Kind, GHz and bus of each."""
    buses: tuple[int, ...]
    """Width of each, in bytes."""
    runs_on: Mapping[str, int]
    """Processor by task."""
    lies_in: Mapping[str, int]
    """Memory of its output, by task."""

    def __post_init__(self) -> None:
        if not self.processors or not self.memories or not self.buses:
            raise ConfigError("a system needs a processor, a memory and a bus.")
        for blocks, kinds in ((self.processors, PROCESSORS), (self.memories, MEMORIES)):
            for kind, ghz, bus in blocks:
                if kind not in kinds or not ghz > 0 or not 0 <= bus < len(self.buses):
                    raise ConfigError(
                        f"the block {(kind, ghz, bus)} must have a kind of {', '.join(kinds)}, a "
                        f"positive clock and a bus from 0 to {len(self.buses) - 1}."
                    )
        if min(self.buses) < 1:
            raise ConfigError(f"buses={self.buses} must be at least a byte wide.")


@dataclass(frozen=True, slots=True)
class Metrics:
    """What an application takes on a system."""

    latency: float
    """Milliseconds."""
    power: float
    """Milliwatts."""
    area: float
    """Square millimetres."""
    energy: float
    """Millijoules."""
    ends: dict[str, float]
    """Milliseconds at which each task was done."""
    phases: int


def simulate(tasks: Sequence[Task], soc: Soc) -> Metrics:
    """Carry an application out on a system.

    Raises:
        ConfigError: tasks that wait for each other, or for one that is not there, or that are
            mapped on nothing.
    """
    known = {task.name: task for task in tasks}
    for task in tasks:
        for other in task.after:
            if other not in known:
                raise ConfigError(f"the task '{task.name}' reads '{other}', which is no task.")
        for where, blocks in ((soc.runs_on, soc.processors), (soc.lies_in, soc.memories)):
            if not 0 <= where.get(task.name, -1) < len(blocks):
                raise ConfigError(f"the task '{task.name}' is mapped on no block of {len(blocks)}.")
    demands = {task.name: _demands(task, known, soc) for task in tasks}
    left = {task.name: 1.0 for task in tasks}
    ends: dict[str, float] = {}
    now, phases = 0.0, 0
    while len(ends) < len(tasks):
        running = [
            task.name
            for task in tasks
            if task.name not in ends and all(other in ends for other in task.after)
        ]
        if not running:
            waiting = [name for name in known if name not in ends]
            raise ConfigError(f"the tasks {', '.join(waiting)} wait for each other.")
        users: dict[tuple[str, int], int] = {}
        for name in running:
            for resource in demands[name]:
                users[resource] = users.get(resource, 0) + 1
        # Seconds that the whole task takes at this phase's pace.
        whole = {
            name: max((d * users[r] for r, d in demands[name].items()), default=0.0)
            for name in running
        }
        step = min(left[name] * whole[name] for name in running)
        now += step
        phases += 1
        for name in running:
            if left[name] * whole[name] <= step * (1 + 1e-12):
                ends[name] = now
            else:
                left[name] -= step / whole[name]
    energy, leakage, area = _energy(tasks, known, soc), 0.0, 0.0
    kinds = [PROCESSORS[kind] for kind, _, _ in soc.processors]
    kinds += [MEMORIES[kind] for kind, _, _ in soc.memories]
    for block in kinds:
        leakage += block.leakage
        area += block.area
    for width in soc.buses:
        leakage += BUS.leakage * width / 8
        area += BUS.area * width / 8
    energy += leakage * now
    return Metrics(
        latency=now * 1e3,
        power=energy / now if now else leakage,
        area=area,
        energy=energy,
        ends={name: end * 1e3 for name, end in ends.items()},
        phases=phases,
    )


Flow = tuple[float, int, range]


def _flows(task: Task, known: Mapping[str, Task], soc: Soc) -> list[Flow]:
    """Megabytes of each transfer, its memory, and the buses that it crosses."""
    here = soc.processors[soc.runs_on[task.name]][2]
    found = []
    for name, megabytes in [(other, known[other].out) for other in task.after] + [
        (task.name, task.out)
    ]:
        memory = soc.lies_in[name]
        there = soc.memories[memory][2]
        found.append((megabytes, memory, range(min(here, there), max(here, there) + 1)))
    return found


def _demands(task: Task, known: Mapping[str, Task], soc: Soc) -> dict[tuple[str, int], float]:
    """Seconds that a task takes of each resource, had it all of it."""
    processor = soc.runs_on[task.name]
    kind, ghz, _ = soc.processors[processor]
    own = task.speedup if kind == "accelerator" else 1.0
    found = {("processor", processor): task.ops / (PROCESSORS[kind].rate * ghz * own)}
    for megabytes, memory, crossed in _flows(task, known, soc):
        name, clock, _ = soc.memories[memory]
        key = ("memory", memory)
        found[key] = found.get(key, 0.0) + megabytes / (MEMORIES[name].rate * clock)
        for bus in crossed:
            rate = BUS.rate * soc.buses[bus] / 8
            found["bus", bus] = found.get(("bus", bus), 0.0) + megabytes / rate
    return {key: seconds for key, seconds in found.items() if seconds > 0}


def _energy(tasks: Sequence[Task], known: Mapping[str, Task], soc: Soc) -> float:
    """Millijoules of all operations and transfers; an operation's grows with the clock squared."""
    total = 0.0
    for task in tasks:
        kind, ghz, _ = soc.processors[soc.runs_on[task.name]]
        # 1e6 operations of a picojoule are a microjoule.
        total += task.ops * PROCESSORS[kind].picojoules * ghz**2 * 1e-3
        for megabytes, memory, crossed in _flows(task, known, soc):
            each = MEMORIES[soc.memories[memory][0]].picojoules + BUS.picojoules * len(crossed)
            total += megabytes * each * 1e-3
    return total
