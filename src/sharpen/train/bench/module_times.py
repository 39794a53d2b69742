"""What is asked of the measurement of a step's modules, and its result as table, chart and data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sharpen.core.config import to_dict
from sharpen.core.errors import ConfigError
from sharpen.core.report import Chart, Section, Series, Table, Text, format_value
from sharpen.train.config import TrainConfig

__all__ = ["ModuleBench", "ModuleRow", "ModuleTimes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleBench:
    """What to measure."""

    batch: int = 1
    """Sequences a forward pass."""

    seq_len: int = 512
    """Tokens of a sequence."""

    document_tokens: int | None = None
    """Tokens of a document when a sequence holds several; null when it is one."""

    labelled: float = 1.0
    """Share of the tokens with a label."""

    repeats: int = 5
    """Steps of each kind that are timed, after one that is not."""

    train: TrainConfig = field(default_factory=TrainConfig)
    """``method``, ``dtype`` and the adapters' fields decide what is trained, and how."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("batch", "seq_len", "repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.document_tokens is not None and self.document_tokens < 1:
            raise ConfigError(f"document_tokens={self.document_tokens} must be at least 1.")
        if not 0 < self.labelled <= 1:
            raise ConfigError(f"labelled={self.labelled} must be above 0 and at most 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleRow:
    """One part of a step, over all blocks."""

    part: str
    """Its name."""

    calls: int
    """Times it ran in a step."""

    forward_s: float
    """Seconds forward, median over the steps."""

    backward_s: float
    """Seconds backward."""

    share: float
    """Of the whole step's time."""

    flops: float
    """Model FLOPs, forward and backward."""

    bytes: int
    """Bytes that must move, forward and backward."""

    roof_s: float
    """Shortest time that the machine's rates allow."""

    bound: str
    """What sets the roof: ``compute`` or ``memory``."""

    @property
    def seconds(self) -> float:
        """Forward and backward."""
        return self.forward_s + self.backward_s

    @property
    def roof_share(self) -> float:
        """Roof over measured time."""
        return self.roof_s / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleTimes:
    """A step and its parts."""

    model: str
    """The model's reference."""

    config: ModuleBench
    """What was measured."""

    step_s: float
    """Seconds of the whole step's forward and backward pass, median."""

    spread_s: float
    """Longest less shortest of the whole steps."""

    parts_s: float
    """Sum of the parts, median over the steps."""

    rows: tuple[ModuleRow, ...]
    """The parts, in a table's order."""

    loss: float
    """Of the uncut step."""

    loss_of_parts: float
    """Of the step cut into parts; the same up to rounding."""

    threads: int
    """Threads that computed."""

    load: float
    """Load average of the last minute when it began; much above the cores spoils the numbers."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``sharpen bench module --json`` prints it."""
        rows = [{**to_dict(r), "seconds": r.seconds, "roof_share": r.roof_share} for r in self.rows]
        return {**to_dict(self), "rows": rows}

    def table(self) -> str:
        """The parts as text."""
        c = self.config
        lines = [
            f"{self.model}: {c.batch} x {c.seq_len} tokens, {c.train.method}, {c.train.dtype}, "
            f"{self.threads} threads",
            "",
            f"{'part':<15}{'calls':>6}{'forward':>11}{'backward':>11}{'of step':>9}{'GFLOP':>9}"
            f"{'GFLOP/s':>9}{'MB':>8}{'of roof':>9}  bound by",
        ]
        for r in self.rows:
            rate = r.flops / r.seconds / 1e9 if r.seconds else 0.0
            lines.append(
                f"{r.part:<15}{r.calls:>6}{r.forward_s * 1e3:>8.2f} ms{r.backward_s * 1e3:>8.2f} ms"
                f"{r.share:>9.1%}{r.flops / 1e9:>9.2f}{rate:>9.1f}{r.bytes / 1e6:>8.0f}"
                f"{r.roof_share:>9.0%}  {r.bound}"
            )
        flops = sum(r.flops for r in self.rows)
        lines += [
            "",
            f"sum of parts {self.parts_s * 1e3:.1f} ms, whole step {self.step_s * 1e3:.1f} ms: "
            f"the parts are {self.parts_s / self.step_s:.0%} of it.",
            f"{flops / 1e9:.1f} GFLOP a step, {flops / self.step_s / 1e9:.1f} GFLOP/s; "
            "roofs are this machine's measured rates.",
        ]
        return "\n".join(lines)

    def sections(self) -> list[Section]:
        """The same for the report writer, with a chart."""
        names = [r.part for r in self.rows]
        columns = ("part", "calls", "forward ms", "backward ms", "share of step", "GFLOP", "MB")
        rows = [
            [
                *(r.part, r.calls, r.forward_s * 1e3, r.backward_s * 1e3, r.share),
                *(r.flops / 1e9, r.bytes / 1e6, r.roof_share, r.bound),
            ]
            for r in self.rows
        ]
        series = [
            Series("forward", names, [r.forward_s * 1e3 for r in self.rows]),
            Series("backward", names, [r.backward_s * 1e3 for r in self.rows]),
            Series("roof", names, [r.roof_s * 1e3 for r in self.rows]),
        ]
        text = (
            f"Parts {format_value(self.parts_s * 1e3)} ms, whole step "
            f"{format_value(self.step_s * 1e3)} ms."
        )
        chart = Chart("Time of a step by module", series, "module", "ms", kind="bar")
        return [
            Section(
                "Modules", [chart, Table([*columns, "share of roof", "bound by"], rows), Text(text)]
            )
        ]
