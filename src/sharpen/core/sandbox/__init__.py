"""Running code that nobody trusts: tiers of protection, limits, plain values in and out.

Names load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.core.sandbox.inside.codec import CodecError, Opaque, Raised, Record, decode, encode
    from sharpen.core.sandbox.job import Call, Job
    from sharpen.core.sandbox.limits import Limits
    from sharpen.core.sandbox.once import run_untrusted
    from sharpen.core.sandbox.pool import SandboxPool
    from sharpen.core.sandbox.process import SandboxFailed
    from sharpen.core.sandbox.result import Failure, Result, Status
    from sharpen.core.sandbox.tiers import SandboxUnavailable, Tiers, detect_tiers
    from sharpen.core.sandbox.trust import doubt, overhead_s, seen_s

_MODULES = {
    "Call": "job",
    "CodecError": "inside.codec",
    "Failure": "result",
    "Job": "job",
    "Limits": "limits",
    "Opaque": "inside.codec",
    "Raised": "inside.codec",
    "Record": "inside.codec",
    "Result": "result",
    "SandboxFailed": "process",
    "SandboxPool": "pool",
    "SandboxUnavailable": "tiers",
    "Status": "result",
    "Tiers": "tiers",
    "decode": "inside.codec",
    "detect_tiers": "tiers",
    "doubt": "trust",
    "encode": "inside.codec",
    "overhead_s": "trust",
    "run_untrusted": "once",
    "seen_s": "trust",
}

__all__ = [
    "Call",
    "CodecError",
    "Failure",
    "Job",
    "Limits",
    "Opaque",
    "Raised",
    "Record",
    "Result",
    "SandboxFailed",
    "SandboxPool",
    "SandboxUnavailable",
    "Status",
    "Tiers",
    "decode",
    "detect_tiers",
    "doubt",
    "encode",
    "overhead_s",
    "run_untrusted",
    "seen_s",
]

__getattr__ = exports(
    "sharpen.core.sandbox",
    {name: f"sharpen.core.sandbox.{module}" for name, module in _MODULES.items()},
)
