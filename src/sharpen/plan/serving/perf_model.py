"""How long one iteration of a serving machine takes: from a table, a roofline, or measurement.

Patel et al., Splitwise, ISCA 2024, arXiv 2311.18677, section V-B: times of prompt and token phases
are piecewise linear in the tokens of the batch. An iteration of ``p`` prompt tokens and ``d``
sequences at their next token takes, with curves P and T of the table::

    d = 0    P(p)                      P, T: medians of all runs with as many tokens in the batch,
    p = 0    T(d)                            linear between and beyond them
    else     1.1 P(p + d)

The roofline (Williams et al., CACM 2009) needs no runs: with W bytes of weights, F(p + d) FLOPs of
products, c tokens of context and k bytes of keys and values each, split over ``n`` devices::

    max(F / (n peak products), (W + c k) / (n rate memory)) + 2 L all_reduce((p + d) h)

The measured model interpolates runs of one engine, and charges each token of context by a slope.

Differs from the paper: the table's last point of a batch of prompts that was split by the server
does not enter the one that ships (only eight devices, where none was).
"""

from __future__ import annotations

import csv
import statistics
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError
from sharpen.core.model_spec import ModelSpec
from sharpen.plan.hardware import Accelerator, Assumptions

__all__ = [
    "SHIPPED_TABLE",
    "ConstantPerfModel",
    "Curve",
    "MeasuredPerfModel",
    "PerfModel",
    "RooflinePerfModel",
    "TablePerfModel",
]

SHIPPED_TABLE = Path(__file__).with_name("perf_table.csv")
"""Medians of the runs published with Splitwise (Mutinifni/splitwise-sim, MIT License, Copyright (c)
2024 Pratyush Patel): Llama-2 70B and BLOOM 176B in float16 on eight A100 or H100."""

_MIXED = 1.1
_LEAST_S = 1e-9


class PerfModel(Protocol):
    """Times of iterations."""

    @property
    def uses_context(self) -> bool:
        """Whether the time depends on ``context_tokens``."""
        ...

    def iteration_s(self, prompt_tokens: int, decodes: int, context_tokens: int) -> float:
        """Seconds of one iteration.

        Args:
            prompt_tokens: p, tokens of prompts or of parts of them.
            decodes: d, sequences that get their next token.
            context_tokens: keys and values that those sequences read, in all.
        """
        ...


class Curve:
    """A piecewise linear function, continued beyond its ends.

    Args:
        points: x and y, at least one; medians are taken where an x repeats.

    Raises:
        ConfigError: no point.

    Example:
        >>> Curve([(1, 10), (3, 20), (3, 30), (3, 90)])(2)
        20.0
    """

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        if not points:
            raise ConfigError("a curve needs at least one point.")
        by_x: dict[float, list[float]] = {}
        for x, y in points:
            by_x.setdefault(x, []).append(y)
        self.x = sorted(by_x)
        self.y = [float(statistics.median(by_x[x])) for x in self.x]

    def __call__(self, x: float) -> float:
        """The value at ``x``."""
        if len(self.x) == 1:
            return self.y[0]
        i = min(max(bisect_right(self.x, x), 1), len(self.x) - 1)
        x0, x1, y0, y1 = self.x[i - 1], self.x[i], self.y[i - 1], self.y[i]
        return y0 + (x - x0) * (y1 - y0) / (x1 - x0)


@dataclass(frozen=True, slots=True)
class ConstantPerfModel:
    """The same time whatever the batch: for closed forms and cases by hand."""

    prompt_s: float
    """Of an iteration with a prompt."""

    token_s: float
    """Of one without."""

    @property
    def uses_context(self) -> bool:
        """Never."""
        return False

    def iteration_s(self, prompt_tokens: int, decodes: int, context_tokens: int) -> float:
        """See :class:`PerfModel`."""
        return self.prompt_s if prompt_tokens else self.token_s


class TablePerfModel:
    """Times read from runs.

    Args:
        prompt: seconds over the tokens of a batch of prompts.
        token: seconds over the tokens of the batch, for next tokens.
        prompt_slowdown: factor of iterations with prompts, such as 1.3 under a cap of power.
    """

    def __init__(self, prompt: Curve, token: Curve, *, prompt_slowdown: float = 1.0) -> None:
        if not prompt_slowdown > 0:
            raise ConfigError(f"prompt_slowdown={prompt_slowdown} must be above 0.")
        self.prompt = prompt
        self.token = token
        self.prompt_slowdown = prompt_slowdown
        self._known: dict[tuple[bool, bool, int], float] = {}

    @classmethod
    def from_csv(
        cls,
        path: str | Path = SHIPPED_TABLE,
        *,
        model: str,
        hardware: str,
        tensor_parallel: int = 8,
        prompt_slowdown: float = 1.0,
    ) -> TablePerfModel:
        """Read a table of runs.

        Args:
            path: CSV with ``model, hardware, tensor_parallel, prompt_size, batch_size,
                prompt_time, token_time``; times in milliseconds, one row a run.
            model: rows of this model.
            hardware: and this hardware.
            tensor_parallel: and as many devices.
            prompt_slowdown: see :class:`TablePerfModel`.

        Raises:
            MissingFileError: no such file.
            FileFormatError: a column is missing or no number.
            ConfigError: no such rows; the message lists those there are.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingFileError(f"no such table of runs: {path}")
        prompt: list[tuple[float, float]] = []
        token: list[tuple[float, float]] = []
        known: set[str] = set()
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            for row in reader:
                try:
                    here = (row["model"], row["hardware"], int(row["tensor_parallel"]))
                    known.add(f"{here[0]} on {here[2]} x {here[1]}")
                    if here == (model, hardware, tensor_parallel):
                        tokens = int(row["prompt_size"]) * int(row["batch_size"])
                        prompt.append((tokens, float(row["prompt_time"]) / 1e3))
                        token.append((tokens, float(row["token_time"]) / 1e3))
                except (KeyError, TypeError, ValueError) as error:
                    raise FileFormatError(
                        f"{path}:{reader.line_num} is no run: {error}. Needed are model, "
                        "hardware, tensor_parallel, prompt_size, batch_size, prompt_time and "
                        "token_time."
                    ) from None
        if not prompt:
            raise ConfigError(
                f"{path.name} has no runs of {model} on {tensor_parallel} x {hardware}. It has: "
                f"{', '.join(sorted(known)) or 'none'}."
            )
        return cls(Curve(prompt), Curve(token), prompt_slowdown=prompt_slowdown)

    @property
    def uses_context(self) -> bool:
        """Never: its runs do not tell it apart."""
        return False

    def iteration_s(self, prompt_tokens: int, decodes: int, context_tokens: int) -> float:
        """See :class:`PerfModel`."""
        key = (prompt_tokens > 0, decodes > 0, prompt_tokens + decodes)
        seconds = self._known.get(key)
        if seconds is None:
            if not prompt_tokens:
                seconds = self.token(decodes)
            else:
                seconds = self.prompt(prompt_tokens + decodes) * self.prompt_slowdown
                seconds *= _MIXED if decodes else 1.0
            seconds = self._known[key] = max(seconds, _LEAST_S)
        return seconds


class RooflinePerfModel:
    """Times from what a model needs and a device gives.

    Args:
        spec: the model's shape.
        device: published figures.
        tensor_parallel: devices that share every product.
        weight_bytes: of one weight.
        cache_bytes: of one key or value.
        dtype: whose peak counts.
        assume: shares of the figures that are reached.
        overhead_s: of every iteration, for scheduling and launches.

    Raises:
        ConfigError: no device, or no peak for the type.
    """

    def __init__(
        self,
        spec: ModelSpec,
        device: Accelerator,
        *,
        tensor_parallel: int = 1,
        weight_bytes: float = 2.0,
        cache_bytes: float = 2.0,
        dtype: str = "bfloat16",
        assume: Assumptions | None = None,
        overhead_s: float = 0.0,
    ) -> None:
        if tensor_parallel < 1:
            raise ConfigError(f"tensor_parallel={tensor_parallel} must be at least 1.")
        assume = assume or Assumptions()
        n = tensor_parallel
        layers = spec.num_layers * spec.layer_matmul_parameters
        self._flops_a_token = 2.0 * layers
        self._head_flops = 2.0 * spec.embedding_parameters
        self._attention_flops = 4.0 * spec.query_size * spec.num_layers
        self._weights = (layers + spec.embedding_parameters) * weight_bytes
        self._kv = 2 * spec.num_layers * spec.kv_size * cache_bytes
        self._peak = n * device.peak_flops(dtype) * device.products
        self._attention_peak = n * device.peak_flops(dtype) * device.attention
        self._memory = n * device.memory_gb_s * 1e9 * assume.memory
        reduces = 2 * spec.num_layers if n > 1 else 0
        self._fixed = overhead_s + reduces * 2 * (n - 1) * assume.link_latency_s
        sent = 2 * (n - 1) / n * spec.hidden_size * 2
        self._reduce_a_token = reduces * sent / (device.link_gb_s * 1e9 * assume.links)

    @property
    def uses_context(self) -> bool:
        """Always: keys and values are read."""
        return True

    def iteration_s(self, prompt_tokens: int, decodes: int, context_tokens: int) -> float:
        """See :class:`PerfModel`; a prompt's tokens see half of them on average."""
        tokens = prompt_tokens + decodes
        heads = decodes + (prompt_tokens > 0)
        compute = (self._flops_a_token * tokens + self._head_flops * heads) / self._peak
        seen = context_tokens + prompt_tokens * (prompt_tokens + 1) / 2
        compute += self._attention_flops * seen / self._attention_peak
        moved = (self._weights + self._kv * (context_tokens + prompt_tokens)) / self._memory
        return max(compute, moved) + self._reduce_a_token * tokens + self._fixed


class MeasuredPerfModel:
    """Times of one engine, interpolated.

    Args:
        prompt: tokens of a round with prompts alone, and its seconds.
        token: sequences of a round of next tokens, and its seconds, at ``context`` tokens each.
        context: of the runs in ``token``.
        context_s: seconds that a further token of context costs.

    Raises:
        ConfigError: a list is empty.
    """

    def __init__(
        self,
        prompt: Sequence[tuple[float, float]],
        token: Sequence[tuple[float, float]],
        *,
        context: int = 0,
        context_s: float = 0.0,
    ) -> None:
        self.prompt = Curve(prompt)
        self.token = Curve(token)
        self.context = context
        self.context_s = context_s

    @property
    def uses_context(self) -> bool:
        """Where it costs anything."""
        return self.context_s > 0

    def iteration_s(self, prompt_tokens: int, decodes: int, context_tokens: int) -> float:
        """See :class:`PerfModel`; in mixed rounds next tokens add what they add to one alone."""
        extra = self.context_s * (context_tokens - decodes * self.context)
        if not prompt_tokens:
            return max(self.token(decodes) + extra, _LEAST_S)
        seconds = self.prompt(prompt_tokens)
        if decodes:
            seconds += max(self.token(decodes + 1) - self.token(1), 0.0)
            seconds += self.context_s * context_tokens
        return max(seconds, _LEAST_S)

    def beside(self, busy: MeasuredPerfModel, share: float) -> MeasuredPerfModel:
        """Times of a machine whose neighbours on the same memory work a share of the time.

        Args:
            busy: measured while they worked, at the same sizes as this one, while they rested.
            share: 0 to 1.

        Raises:
            ConfigError: other sizes, or a share out of range.
        """
        if (self.prompt.x, self.token.x, self.context) != (
            busy.prompt.x,
            busy.token.x,
            busy.context,
        ):
            raise ConfigError("both models must be measured at the same sizes.")
        if not 0 <= share <= 1:
            raise ConfigError(f"share={share} must be from 0 to 1.")

        def mixed(ours: float, theirs: float) -> float:
            return (1 - share) * ours + share * theirs

        def points(ours: Curve, theirs: Curve) -> list[tuple[float, float]]:
            return list(zip(ours.x, map(mixed, ours.y, theirs.y), strict=True))

        return MeasuredPerfModel(
            points(self.prompt, busy.prompt),
            points(self.token, busy.token),
            context=self.context,
            context_s=mixed(self.context_s, busy.context_s),
        )

    def slowed(self, round_s: float, prompt_factor: float = 1.0) -> MeasuredPerfModel:
        """The same with so many seconds more a round of next tokens, and slower prompts."""
        return MeasuredPerfModel(
            [(x, y * prompt_factor) for x, y in zip(self.prompt.x, self.prompt.y, strict=True)],
            [(x, y + round_s) for x, y in zip(self.token.x, self.token.y, strict=True)],
            context=self.context,
            context_s=self.context_s,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data that :meth:`from_dict` takes."""
        return {
            "prompt": [list(p) for p in zip(self.prompt.x, self.prompt.y, strict=True)],
            "token": [list(p) for p in zip(self.token.x, self.token.y, strict=True)],
            "context": self.context,
            "context_s": self.context_s,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MeasuredPerfModel:
        """From :meth:`to_dict`."""
        return cls(
            [(x, y) for x, y in data["prompt"]],
            [(x, y) for x, y in data["token"]],
            context=data["context"],
            context_s=data["context_s"],
        )
