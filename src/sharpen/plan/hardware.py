"""Machines that a plan can be made for without having them: published peaks, memory and links.

``64xH100`` is a count and a preset; ``64xH100:network_gb_s=25`` changes a figure, and a YAML file
describes any device::

    count: 64
    device: {like: h100, per_machine: 4, network_gb_s: 25}

``cpu`` is this machine, measured. What published figures do not say is assumed: the share of its
peak that a kernel reaches (``products``, ``attention``), and :class:`Assumptions`.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sharpen.core.config import Document, Marks, apply_overrides, from_dict, load_yaml, to_dict
from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.plan.device import DeviceProfile, load_profile

__all__ = ["Accelerator", "Assumptions", "Cluster", "accelerator_names", "parse_devices"]

_PRESETS = Path(__file__).with_name("hardware.yaml")
_DEVICES = re.compile(
    r"^(?:(?P<count>-?\d+)\s*[xX*]\s*)?(?P<name>[A-Za-z][\w -]*)(?::(?P<more>.+))?$"
)
_ALIASES = {"a100": "a100-80gb", "a100-80": "a100-80gb", "a100-40": "a100-40gb"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One device and how it is wired. GB are 10^9 bytes; rates of links count one direction."""

    name: str
    """What it is called."""

    peak_tflops: Mapping[str, float]
    """Dense products, 10^12 FLOP/s by type: ``bfloat16``, ``float32``."""

    memory_gb: float
    """Its own memory."""

    memory_gb_s: float
    """Rate of that memory."""

    link: str = "PCIe"
    """What connects the devices of a machine."""

    link_gb_s: float
    """Rate at which a device sends to the others of its machine."""

    host_gb_s: float
    """Rate between a device and its host's memory."""

    per_machine: int
    """Devices of a machine."""

    network_gb_s: float
    """A device's share of its machine's network."""

    source: str
    """Where the figures come from."""

    products: float = 0.6
    """Share of the peak that large matrix products reach; assumed, not published."""

    attention: float = 0.3
    """Share of the peak that flash attention reaches, counting what it sees; assumed."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.per_machine < 1:
            raise ConfigError(f"per_machine={self.per_machine} must be at least 1.")
        for name in ("memory_gb", "memory_gb_s", "link_gb_s", "host_gb_s", "network_gb_s"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigError(f"{name}={value} must be above 0 and finite.")
        for name in ("products", "attention"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be above 0 and at most 1.")
        if not self.peak_tflops or not all(0 < v < math.inf for v in self.peak_tflops.values()):
            raise ConfigError(f"peak_tflops={dict(self.peak_tflops)} must have rates above 0.")

    @property
    def memory_bytes(self) -> int:
        """Its memory in bytes."""
        return round(self.memory_gb * 1e9)

    def peak_flops(self, dtype: str) -> float:
        """Peak FLOP/s of dense products.

        Raises:
            ConfigError: the device has no figure for ``dtype``.
        """
        if dtype not in self.peak_tflops:
            raise ConfigError(
                f"{self.name} has no peak for dtype={dtype}. It has: "
                f"{', '.join(sorted(self.peak_tflops))}."
            )
        return self.peak_tflops[dtype] * 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """Shares of the published figures that a run is taken to reach; none is measured."""

    memory: float = 0.8
    """Share of the memory's rate that element-wise passes reach."""

    links: float = 0.8
    """Share of a link's rate that collectives reach."""

    overlap: float = 0.8
    """Share of gathers and reductions of states that can hide behind computing."""

    link_latency_s: float = 3e-6
    """Start of one hop inside a machine."""

    network_latency_s: float = 12e-6
    """Start of one hop between machines."""

    reserved_gb: float = 1.5
    """Memory of a device that is gone before anything is allocated: context, collectives."""

    slack: float = 0.06
    """What the allocator wastes, as a share of everything allocated."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("memory", "links"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be above 0 and at most 1.")
        if not 0 <= self.overlap <= 1:
            raise ConfigError(f"overlap={self.overlap} must be from 0 to 1.")
        for name in ("link_latency_s", "network_latency_s", "reserved_gb", "slack"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 0 and finite.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Equal devices in machines of equal size; ranks fill one machine after another."""

    count: int
    """Devices."""

    device: Accelerator
    """What each is."""

    assume: Assumptions = field(default_factory=Assumptions)
    """What the figures do not say."""

    def __post_init__(self) -> None:
        """Check the range."""
        if self.count < 1:
            raise ConfigError(f"count={self.count} must be at least 1: give devices as 8xH100.")

    @property
    def memory_bytes(self) -> int:
        """Memory of one device."""
        return self.device.memory_bytes

    def members_a_machine(self, size: int, stride: int) -> int:
        """How many of a group of ``size`` ranks, ``stride`` apart, share a machine."""
        return min(size, max(1, self.device.per_machine // stride))

    def crosses(self, size: int, stride: int) -> bool:
        """Whether such a group spans machines."""
        return self.members_a_machine(size, stride) < size

    def start_s(self, size: int, stride: int) -> float:
        """Latency of one collective: a hop for each other member, machine by machine."""
        inside = self.members_a_machine(size, stride)
        machines = -(-size // inside)
        return (inside - 1) * self.assume.link_latency_s + (
            machines - 1
        ) * self.assume.network_latency_s

    def ring_rate(self, size: int, stride: int) -> float:
        """Bytes/s a device of the group sends in gathers, reductions and all-reduces.

        Members of one machine use all their network shares for the rings that leave it.
        """
        device, inside = self.device, self.members_a_machine(size, stride)
        rate = device.link_gb_s
        if inside < size:
            rate = min(rate, device.network_gb_s * inside)
        return rate * 1e9 * self.assume.links

    def neighbour_rate(self, size: int, stride: int) -> float:
        """Bytes/s of the slowest hop when each passes data to the next."""
        rate = self.device.network_gb_s if self.crosses(size, stride) else self.device.link_gb_s
        return min(rate, self.device.link_gb_s) * 1e9 * self.assume.links

    def all_to_all_rate(self, size: int, stride: int) -> float:
        """Bytes/s a device sends when every pair exchanges equal parts."""
        inside = self.members_a_machine(size, stride)
        if size == 1:
            return self.device.link_gb_s * 1e9 * self.assume.links
        away = (size - inside) / (size - 1)
        seconds = max(away / self.device.network_gb_s, (1 - away) / self.device.link_gb_s)
        return 1e9 * self.assume.links / seconds

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"count": self.count, "device": to_dict(self.device), "assume": to_dict(self.assume)}


@functools.cache
def _presets() -> dict[str, Any]:
    data: dict[str, Any] = load_yaml(_PRESETS).data
    return data


def accelerator_names() -> list[str]:
    """Presets of :func:`parse_devices`, sorted; ``cpu`` is this machine."""
    return sorted([*_presets(), "cpu"])


def _preset(name: str) -> dict[str, Any]:
    """Fields of a preset.

    Raises:
        ConfigError: no such preset, with the nearest names.
    """
    key = name.strip().lower().replace("_", "-").replace(" ", "-")
    key = _ALIASES.get(key, key)
    if key == "cpu":
        return to_dict(_this_machine(load_profile()))  # type: ignore[no-any-return]
    if key not in _presets():
        raise ConfigError(
            f"there is no device '{name}'.{did_you_mean(key, accelerator_names())} Known: "
            f"{', '.join(accelerator_names())}. Describe another in a YAML file: --devices my.yaml."
        )
    return dict(_presets()[key])


def _this_machine(profile: DeviceProfile) -> Accelerator:
    """This machine as a device: one process a machine, on ten-gigabit Ethernet."""
    return Accelerator(
        name=profile.name,
        peak_tflops={k: table.peak / 1e3 for k, table in profile.matmul.items()},
        memory_gb=profile.memory_bytes / 1e9,
        memory_gb_s=profile.copy_gbps,
        link="none",
        link_gb_s=profile.copy_gbps,
        host_gb_s=profile.copy_gbps,
        per_machine=1,
        network_gb_s=1.25,
        products=0.9,
        attention=0.1,
        source="measured on this machine; 10 Gb/s Ethernet assumed",
    )


def parse_devices(text: str | Path | Cluster) -> Cluster:
    """Devices as the command line gives them.

    Args:
        text: ``64xH100``, ``64xH100:per_machine=4,network_gb_s=25``, or a YAML file with ``count``,
            ``device`` (a preset's name, or a mapping of figures that may start from a preset by
            ``like:``) and ``assume``.

    Raises:
        ConfigError: an unknown device or figure, a count below 1, or a bad value.
        MissingFileError: the file does not exist.

    Example:
        >>> cluster = parse_devices("64xH100:network_gb_s=25")
        >>> cluster.count, cluster.device.name, cluster.device.network_gb_s
        (64, 'H100 SXM 80GB', 25)
    """
    if isinstance(text, Cluster):
        return text
    given = str(text).strip()
    if given.endswith((".yaml", ".yml")):
        return _from_document(load_yaml(given))
    found = _DEVICES.match(given)
    if found is None:
        raise ConfigError(
            f"devices {given!r} are not of the form COUNTxNAME, for example 8xH100 or "
            "64xH100:network_gb_s=25, and no .yaml file."
        )
    count = int(found["count"] or 1)
    if count < 1:
        raise ConfigError(f"devices {given!r}: the count {count} must be at least 1.")
    data = {"count": count, "device": {"like": found["name"]}}
    parts = (part.strip() for part in (found["more"] or "").split(","))
    document = Document(data, Marks(file=f"devices {given!r}"))
    return _from_document(apply_overrides(document, [f"device.{part}" for part in parts if part]))


def _from_document(document: Document) -> Cluster:
    data, marks = document.data, document.marks
    if not isinstance(data, dict):
        raise ConfigError(f"{marks.file}: a description of devices has 'count' and 'device'.")
    device = data.get("device")
    if isinstance(device, str):
        device = {"like": device}
    if isinstance(device, dict) and "like" in device:
        own = {k: v for k, v in device.items() if k != "like"}
        device = {**_preset(str(device["like"])), **own}
        if own:
            device["source"] += f"; given: {', '.join(own)}"
    return from_dict(Cluster, {**data, "device": device}, marks=marks)
