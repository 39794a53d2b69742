"""What a simulation found: a row for each request, and their summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sharpen.plan.serving.perf_model import PerfModel
from sharpen.plan.serving.slo import PERCENTILES, SLO, Slowdowns, alone_s, percentile
from sharpen.serve.simulate.batching import Job

__all__ = ["SimResult"]


@dataclass(frozen=True, slots=True)
class SimResult:
    """Times of all requests, in the order of arrival."""

    jobs: Sequence[Job]
    """Every request, done."""

    gaps: Sequence[tuple[float, int]]
    """Seconds between tokens of a request, and how often."""

    iterations: int
    """Of all machines."""

    busy_s: Sequence[float]
    """Of each machine."""

    end_s: float
    """When the last request was done."""

    def ttft_s(self) -> list[float]:
        """To the first token, of each request."""
        return [job.first_s - job.arrival_s for job in self.jobs]

    def tbt_s(self) -> list[float]:
        """Mean between tokens, of each request with more than one."""
        return [
            (job.last_s - job.first_s) / (job.output_tokens - 1)
            for job in self.jobs
            if job.output_tokens > 1
        ]

    def e2e_s(self) -> list[float]:
        """To the last token, of each request."""
        return [job.last_s - job.arrival_s for job in self.jobs]

    def table(self) -> list[dict[str, Any]]:
        """A row for each request; times in seconds."""
        return [
            {
                "request": job.number,
                "arrival": job.arrival_s,
                "prompt_tokens": job.prompt_tokens,
                "output_tokens": job.output_tokens,
                "prompt_machine": job.prompt_on,
                "token_machine": job.tokens_on,
                "ttft": job.first_s - job.arrival_s,
                "second_token": job.second_s - job.first_s if job.output_tokens > 1 else None,
                "e2e": job.last_s - job.arrival_s,
                "preemptions": job.preemptions,
            }
            for job in self.jobs
        ]

    def slowdowns(self, alone: PerfModel) -> Slowdowns:
        """Against each request alone on a machine with these times."""
        ttft, tbt, e2e = zip(*self._ratios(alone), strict=True) if self.jobs else ((), (), ())
        return Slowdowns.of({"ttft": ttft, "tbt": [x for x in tbt if x > 0], "e2e": e2e})

    def goodput(self, alone: PerfModel, slo: SLO | None = None) -> float:
        """Requests a second within the limits that hold for 99 of 100."""
        limits = (slo or SLO()).limits
        most = [limits[name][2] if name in limits else None for name in ("ttft", "tbt", "e2e")]
        good = sum(
            all(m is None or value <= m for value, m in zip(row, most, strict=True))
            for row in self._ratios(alone)
        )
        span = self.end_s - self.jobs[0].arrival_s if self.jobs else 0.0
        return good / span if span > 0 else 0.0

    def summary(self) -> dict[str, Any]:
        """Percentiles, in seconds, and rates."""
        out: dict[str, Any] = {"requests": len(self.jobs), "iterations": self.iterations}
        columns = {"ttft": self.ttft_s(), "tbt": self.tbt_s(), "e2e": self.e2e_s()}
        for name, column in columns.items():
            if column:
                ordered = sorted(column)
                out[name] = {f"p{p}": percentile(ordered, p) for p in PERCENTILES}
        if self.gaps:
            out["gap"] = {f"p{p}": _weighted(self.gaps, p) for p in PERCENTILES}
        span = self.end_s - self.jobs[0].arrival_s if self.jobs else 0.0
        if span > 0:
            out["requests_per_s"] = len(self.jobs) / span
            out["output_tokens_per_s"] = sum(job.output_tokens for job in self.jobs) / span
            out["busy"] = [seconds / span for seconds in self.busy_s]
        return out

    def _ratios(self, alone: PerfModel) -> list[tuple[float, float, float]]:
        known: dict[tuple[int, int], tuple[float, float, float]] = {}
        rows = []
        for job in self.jobs:
            key = (job.prompt_tokens, job.output_tokens)
            if key not in known:
                known[key] = alone_s(alone, *key)
            first, token, whole = known[key]
            tbt = (job.last_s - job.first_s) / (job.output_tokens - 1) / token if token else 0.0
            rows.append(
                (
                    (job.first_s - job.arrival_s) / first,
                    tbt,
                    (job.last_s - job.arrival_s) / whole,
                )
            )
        return rows


def _weighted(values: Sequence[tuple[float, int]], percent: float) -> float:
    """The smallest value that at least ``percent`` of the weight does not pass."""
    ordered = sorted(values)
    left = percent / 100 * sum(count for _, count in ordered)
    for value, count in ordered:
        left -= count
        if left <= 0:
            return value
    return ordered[-1][0]
