"""Counts and histograms of a server in the Prometheus text format, version 0.0.4.

Names are ``sharpen:`` and then those that dashboards of other servers read, so an alias of the
prefix (``vllm:``) makes these work unchanged. ``kv_cache_usage_perc`` is from 0 to 1, as there.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence

from sharpen.serve.embedding import Embedding
from sharpen.serve.engine import Engine
from sharpen.serve.monitor import Monitor
from sharpen.serve.request import Continuation

__all__ = ["Histogram", "ServerMetrics"]

_PREFIX = "sharpen:"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ROUND_TOKENS = (1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Histogram:
    """Cumulative counts of observations at or below bounds.

    Args:
        bounds: upper bounds, ascending.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[sum(value > bound for bound in self.bounds)] += 1
        self.total += value

    def lines(self, name: str) -> list[str]:
        """Its sample lines under ``name``."""
        lines, running = [], 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            running += count
            label = "+Inf" if bound == float("inf") else repr(bound)
            lines.append(f'{name}_bucket{{le="{label}"}} {running}')
        return [*lines, f"{name}_sum {self.total!r}", f"{name}_count {running}"]


class ServerMetrics:
    """What a server counts; safe from any thread.

    Args:
        aliases: prefixes under which everything is given a second time.
    """

    def __init__(self, aliases: Sequence[str] = ()) -> None:
        self._aliases = tuple(aliases)
        self._lock = threading.Lock()
        self._prompt_tokens = 0
        self._generation_tokens = 0
        self._finished: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._histograms = {
            "time_to_first_token_seconds": Histogram(_SECONDS),
            "inter_token_latency_seconds": Histogram(_TOKEN_SECONDS),
            "e2e_request_latency_seconds": Histogram(_SECONDS),
            "request_queue_time_seconds": Histogram(_SECONDS),
            "request_prefill_time_seconds": Histogram(_SECONDS),
            "request_decode_time_seconds": Histogram(_SECONDS),
            "iteration_tokens_total": Histogram(_ROUND_TOKENS),
        }

    def finished(self, sequence: Continuation | Embedding) -> None:
        """Count a continuation or an embedding that ended."""
        with self._lock:
            self._finished[str(sequence.finish_reason)] += 1
            self._prompt_tokens += len(sequence.prompt_ids)
            self._generation_tokens += sequence.num_tokens
            start, first, last = sequence.started_s, sequence.first_token_s, sequence.last_token_s
            if start is None or first is None or last is None:
                return
            observe = {
                "time_to_first_token_seconds": first - sequence.submitted_s,
                "e2e_request_latency_seconds": last - sequence.submitted_s,
                "request_queue_time_seconds": start - sequence.submitted_s,
                "request_prefill_time_seconds": first - start,
                "request_decode_time_seconds": last - first,
            }
            if sequence.num_tokens > 1:
                gaps = sequence.num_tokens - 1
                observe["inter_token_latency_seconds"] = (last - first) / gaps
            for name, value in observe.items():
                self._histograms[name].observe(value)

    def stepped(self, num_tokens: int) -> None:
        """Count a round of so many tokens."""
        with self._lock:
            self._histograms["iteration_tokens_total"].observe(num_tokens)

    def rejected(self, reason: str) -> None:
        """Count a request that was refused."""
        with self._lock:
            self._rejected[reason] += 1

    def text(self, engine: Engine | None, monitor: Monitor | None = None) -> str:
        """Everything as Prometheus scrapes it; ``engine`` is None while the model loads."""
        with self._lock:
            lines = [
                *_engine_lines(engine),
                *_metric("counter", "prompt_tokens_total", {"": self._prompt_tokens}),
                *_metric("counter", "generation_tokens_total", {"": self._generation_tokens}),
                *_metric("counter", "request_success_total", self._finished, "finished_reason"),
                *_metric("counter", "requests_rejected_total", self._rejected, "reason"),
            ]
            for name, histogram in self._histograms.items():
                lines.append(f"# TYPE {_PREFIX}{name} histogram")
                lines += histogram.lines(_PREFIX + name)
        if monitor is not None:
            lines += monitor.lines(_PREFIX)
        text = "\n".join(lines) + "\n"
        return text + "".join(text.replace(_PREFIX, f"{alias}:") for alias in self._aliases)


def _engine_lines(engine: Engine | None) -> list[str]:
    running = waiting = used = queries = hits = preemptions = 0.0
    if engine is not None:
        scheduler = engine.scheduler
        running, waiting = engine.num_running, engine.num_waiting
        used = scheduler.pool.num_used / scheduler.pool.count
        queries, hits = scheduler.prefix_queries, scheduler.prefix_hits
        preemptions = scheduler.num_preemptions
    return [
        *_metric("gauge", "num_requests_running", {"": running}),
        *_metric("gauge", "num_requests_waiting", {"": waiting}),
        *_metric("gauge", "kv_cache_usage_perc", {"": used}),
        *_metric("counter", "prefix_cache_queries", {"": queries}),
        *_metric("counter", "prefix_cache_hits", {"": hits}),
        *_metric("counter", "num_preemptions_total", {"": preemptions}),
    ]


def _metric(kind: str, name: str, values: Mapping[str, float], label: str = "") -> list[str]:
    lines = [f"# TYPE {_PREFIX}{name} {kind}"]
    for key, value in sorted(values.items()):
        labels = f'{{{label}="{key}"}}' if label else ""
        lines.append(f"{_PREFIX}{name}{labels} {value}")
    return lines
