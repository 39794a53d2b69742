"""Which tiers of protection this machine has.

====  ======================================================================================
tier  made of
====  ======================================================================================
3     tier 2, and a control group: memory and processes of all of a sandbox together
2     namespaces by bubblewrap (processes, network, files, ...) and tier 1
1     resource limits, a filter of system calls (seccomp), rules for files and signals (Landlock)
0     resource limits alone: no protection, refused unless asked for by name
====  ======================================================================================
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from sharpen.core.errors import ConfigError, NotInstalledError
from sharpen.core.sandbox.cgroup import CgroupHome

__all__ = ["SandboxUnavailable", "Tiers", "choose_tier", "detect_tiers"]

_INSTALL = "apt install bubblewrap, or your distribution's package of that name"


class SandboxUnavailable(NotInstalledError):
    """This machine cannot run untrusted code with the protection asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiers:
    """What this machine has."""

    best: int
    """The highest tier."""

    missing: Mapping[int, str]
    """Why each higher tier is not there, and what would make it so."""

    landlock: int = 0
    """Version of Landlock's interface; 0 without it."""

    seccomp: bool = False
    """Whether system calls can be filtered."""

    bubblewrap: str | None = None
    """Path of ``bwrap``."""

    cgroup: CgroupHome | None = None
    """Where control groups can be made."""

    kernel: str = ""
    """Release of the kernel."""

    @property
    def signals(self) -> str:
        """What keeps signals in at tier 1: ``landlock``, or ``filter`` with an older kernel."""
        return "landlock" if self.landlock >= 6 else "filter"

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        return {
            "best": self.best,
            "missing": {str(tier): why for tier, why in self.missing.items()},
            "landlock": self.landlock,
            "signals": self.signals if self.best >= 1 else None,
            "seccomp": self.seccomp,
            "bubblewrap": self.bubblewrap,
            "cgroup": self.cgroup.version if self.cgroup else None,
            "kernel": self.kernel,
        }


@cache
def detect_tiers() -> Tiers:
    """Find out which tiers this machine has, by trying; the answer is kept."""
    kernel = platform.release()
    if sys.platform != "linux":
        why = f"untrusted code runs on Linux alone, this is {platform.system()}: use a container"
        return Tiers(best=0, missing=dict.fromkeys((1, 2, 3), why), kernel=kernel)
    from sharpen.core.sandbox import bubblewrap
    from sharpen.core.sandbox.cgroup import find_home
    from sharpen.core.sandbox.inside import landlock, seccomp
    from sharpen.core.sandbox.python import interpreter

    version, filters = landlock.abi_version(), seccomp.supported()
    missing: dict[int, str] = {}
    if version == 0:
        missing[1] = (
            f"Landlock is not in this kernel ({kernel}): use 5.13 or newer, with it enabled"
        )
    elif not filters:
        machine = platform.machine()
        missing[1] = f"seccomp filters are not there, or not known for {machine}"
    path = bubblewrap.program()
    if 1 in missing:
        missing[2] = "needs tier 1"
    elif path is None:
        missing[2] = f"bubblewrap is not installed: {_INSTALL}"
    else:
        failed = bubblewrap.failure(path, interpreter(with_packages=False))
        if failed is not None:
            missing[2] = f"bubblewrap cannot make namespaces here: {failed}"
    home = None
    if 2 in missing:
        missing[3] = "needs tier 2"
    else:
        home = find_home()
        if home is None:
            missing[3] = "no control group may be made here: run as root, or with a delegated one"
    best = next((tier - 1 for tier in (1, 2, 3) if tier in missing), 3)
    return Tiers(
        best=best,
        missing=missing,
        landlock=version,
        seccomp=filters,
        bubblewrap=path,
        cgroup=home,
        kernel=kernel,
    )


def choose_tier(wanted: int | str, *, allow_unsafe: bool = False) -> int:
    """The tier to use.

    Args:
        wanted: ``auto`` for the best, or a number.
        allow_unsafe: take tier 0 where there is no other, or where it is asked for.

    Raises:
        SandboxUnavailable: the machine does not have it; the message says what to install.
    """
    tiers = detect_tiers()
    if wanted != "auto" and wanted not in (0, 1, 2, 3):
        raise ConfigError(f"tier={wanted!r}: give 'auto', or a number from 0 to 3.")
    tier = tiers.best if wanted == "auto" else int(wanted)
    if sys.platform != "linux":
        raise SandboxUnavailable(tiers.missing[1] + ".")
    if tier == 0 and not allow_unsafe:
        why = tiers.missing.get(1, "tier 0 was asked for")
        raise SandboxUnavailable(
            f"code that nobody trusts is not run without protection (tier 0): {why}. In Python,"
            " allow_unsafe=True, on the command line --unsafe-no-sandbox, runs it all the same,"
            " with your rights."
        )
    if tier > tiers.best:
        raise SandboxUnavailable(
            f"tier {tier} of the sandbox is not there: {tiers.missing[tier]}. This machine has tier"
            f" {tiers.best}."
        )
    return tier
