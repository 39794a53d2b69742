"""One call of one program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sharpen.core.sandbox.job import Call, Job
from sharpen.core.sandbox.limits import Limits
from sharpen.core.sandbox.pool import SandboxPool
from sharpen.core.sandbox.result import Result

__all__ = ["run_untrusted"]


def run_untrusted(
    source: str,
    entry: str | None = None,
    inputs: Sequence[Call | Sequence[Any]] = (),
    *,
    limits: Limits | None = None,
    tier: int | str = "auto",
    packages: Sequence[str] = (),
    allow_unsafe: bool = False,
) -> Result:
    """Run a program that nobody trusts, in a sandbox made for it.

    Args:
        source: the program.
        entry: the function to call; without one the program is only run.
        inputs: arguments of each call.
        limits: what it may use.
        tier: of protection, see :class:`~sharpen.core.sandbox.SandboxPool`.
        packages: installed packages that it may import.
        allow_unsafe: run it without protection where there is none.

    Raises:
        SandboxUnavailable: this machine cannot.
        DataError: an argument is of a type that cannot cross.

    Example:
        >>> run_untrusted("def f(x): return x + 1", "f", [(1,), (2,)]).outputs
        (2, 3)
    """
    with SandboxPool(1, tier, limits, packages, allow_unsafe=allow_unsafe) as pool:
        return pool.run(Job(source=source, entry=entry, inputs=inputs))
