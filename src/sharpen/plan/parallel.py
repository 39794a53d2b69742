"""How a training job is laid out over processes, and which layouts are legal.

Axes from outer to inner, so that the chattiest stay inside a machine::

    dp_replicate   copies of the model that see different data
    dp_shard       data-parallel ranks that share parameters, gradients and optimizer states (ZeRO)
    ring           ranks that pass keys and values around (ring attention)
    sp             ranks that exchange heads against tokens (Ulysses)

Every rank of ``dp_shard x ring x sp`` holds a share of the states: ranks of one sequence see
different tokens of it, which is data parallelism to the parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sharpen.core.errors import ConfigError

__all__ = ["ParallelConfig", "ParallelLayout"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelConfig:
    """Degrees of parallelism. Their product is the number of processes."""

    dp_replicate: int = 1
    """Copies of the sharded model (HSDP); gradients are summed over them."""

    dp_shard: int = -1
    """Data-parallel ranks that share the states; -1 takes what the other axes leave."""

    sp: int = 1
    """Ulysses degree: ranks that share a sequence by exchanging heads. Any number of heads."""

    ring: int = 1
    """Ring degree: ranks that share a sequence by passing keys and values on."""

    zero_stage: Literal[0, 1, 2, 3] = 0
    """What is shared: 0 nothing, 1 optimizer states, 2 and gradients, 3 and parameters."""

    sp_mode: Literal["auto", "ulysses", "ring", "usp"] = "auto"
    """Name of the sequence parallelism; ``auto`` follows the degrees, another must agree."""

    load_balance: Literal["auto", "none", "zigzag"] = "auto"
    """Tokens of a ring: in order, or zigzag, which gives every rank equal causal work.
    ``auto`` is zigzag when ``ring`` is above 1."""

    def __post_init__(self) -> None:
        """Check the ranges, and that the name agrees with the degrees."""
        for name in ("dp_replicate", "sp", "ring"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.dp_shard < 1 and self.dp_shard != -1:
            raise ConfigError(f"dp_shard={self.dp_shard} must be at least 1, or -1 for the rest.")
        needs = {"ulysses": self.ring == 1, "ring": self.sp == 1, "usp": True, "auto": True}
        if not needs[self.sp_mode]:
            other = "ring" if self.sp_mode == "ulysses" else "sp"
            raise ConfigError(
                f"sp_mode={self.sp_mode} needs {other}=1, not {getattr(self, other)}; "
                "use sp_mode 'usp' for both, or leave it out."
            )
        if self.load_balance == "zigzag" and self.ring == 1:
            raise ConfigError("load_balance=zigzag needs ring above 1.")

    @property
    def sequence_ranks(self) -> int:
        """Ranks that share one sequence."""
        return self.sp * self.ring

    @property
    def zigzag(self) -> bool:
        """Whether a ring's tokens lie zigzag."""
        return self.ring > 1 and self.load_balance != "none"

    def processes(self, nproc: int | None = None) -> int:
        """Processes of a job: ``nproc``, or as many as the degrees ask for."""
        if nproc is not None:
            return nproc
        return self.dp_replicate * max(self.dp_shard, 1) * self.ring * self.sp

    def layout(self, world_size: int) -> ParallelLayout:
        """The degrees for so many processes.

        Raises:
            ConfigError: they do not multiply to ``world_size``; the message gives legal values.
        """
        fixed = self.dp_replicate * self.ring * self.sp
        shard = world_size // fixed if self.dp_shard == -1 else self.dp_shard
        if shard < 1 or fixed * shard != world_size:
            written = f"dp_replicate {self.dp_replicate} x ring {self.ring} x sp {self.sp}"
            if self.dp_shard != -1:
                written += f" x dp_shard {self.dp_shard}"
                fixed *= self.dp_shard
            below, above = world_size // fixed * fixed, (world_size // fixed + 1) * fixed
            near = " or ".join(str(n) for n in (below, above) if n)
            if self.dp_shard != -1:
                near = str(fixed)
            raise ConfigError(
                f"{written} is {fixed}, which does not fit {world_size} processes. Start {near} "
                f"processes, or choose degrees that multiply to a divisor of {world_size}."
            )
        return ParallelLayout(
            dp_replicate=self.dp_replicate, dp_shard=shard, ring=self.ring, sp=self.sp
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelLayout:
    """Degrees whose product is the number of processes."""

    dp_replicate: int = 1
    """Copies of the sharded model."""

    dp_shard: int = 1
    """Data-parallel ranks that share the states."""

    ring: int = 1
    """Ring degree."""

    sp: int = 1
    """Ulysses degree."""

    @property
    def world_size(self) -> int:
        """Processes."""
        return self.dp_replicate * self.dp_shard * self.ring * self.sp

    @property
    def data_ranks(self) -> int:
        """Ranks that read different sequences: dp_replicate x dp_shard."""
        return self.dp_replicate * self.dp_shard

    @property
    def state_ranks(self) -> int:
        """N, ranks that share parameters, gradients and optimizer states."""
        return self.dp_shard * self.ring * self.sp
