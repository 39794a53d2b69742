"""Streams of requests: read from CSV, written, or drawn to published statistics.

Patel et al., Splitwise: Efficient Generative LLM Inference Using Phase Splitting, ISCA 2024,
arXiv 2311.18677, section III: coding has a median prompt of 1500 tokens and a median answer of 13,
conversation 1020 and 129. With the means of the public traces, lengths are drawn by::

    tokens = round(median * exp(sigma * z)),    sigma^2 = 2 ln(mean / median),    z ~ N(0, 1)

cut to the range of the public trace. Arrivals are a renewal process of the given rate: gaps are
exponential (Poisson), or Gamma with a coefficient of variation ``cv`` (bursty above 1)::

    gap ~ Gamma(shape = 1 / cv^2, scale = cv^2 / rate)

Differs from the paper: it replays the production trace, whose answers in conversations have two
modes; a log-normal has one. Prompt and answer are drawn independently.
"""

from __future__ import annotations

import csv
import math
import random
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError

__all__ = ["KINDS", "Trace", "synthetic_trace"]

_PROMPT = ("prompt_size", "ContextTokens")
_OUTPUT = ("token_size", "GeneratedTokens")
_ARRIVAL = ("arrival_timestamp", "TIMESTAMP")
_MOST_REQUESTS = 20_000_000


@dataclass(frozen=True, slots=True)
class _Lengths:
    """Of prompts or answers: statistics of a public trace, in tokens."""

    median: float
    mean: float
    least: int
    most: int

    def draw(self, rng: random.Random) -> int:
        sigma = math.sqrt(2 * math.log(self.mean / self.median))
        value = round(self.median * math.exp(sigma * rng.gauss(0, 1)))
        return min(max(value, self.least), self.most)


KINDS: dict[str, tuple[_Lengths, _Lengths]] = {
    "code": (_Lengths(1500, 2048, 3, 7437), _Lengths(13, 28, 6, 1899)),
    "conv": (_Lengths(1020, 1155, 2, 14050), _Lengths(129, 211, 7, 1000)),
}
"""Lengths of prompts and answers by kind of use."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in the order of arrival.

    Raises:
        ConfigError: columns of unequal length, arrivals out of order, or lengths below 1.
    """

    arrival_s: tuple[float, ...]
    """When each comes."""

    prompt_tokens: tuple[int, ...]
    """Of each, at least 1."""

    output_tokens: tuple[int, ...]
    """Of each, at least 1."""

    def __post_init__(self) -> None:
        """Check the columns."""
        if not len(self.arrival_s) == len(self.prompt_tokens) == len(self.output_tokens):
            raise ConfigError("a trace needs as many arrivals as prompts and answers.")
        previous = -math.inf
        for i, arrival in enumerate(self.arrival_s):
            if not previous <= arrival < math.inf:
                raise ConfigError(f"request {i} of the trace arrives at {arrival}, out of order.")
            previous = arrival
            if self.prompt_tokens[i] < 1 or self.output_tokens[i] < 1:
                raise ConfigError(
                    f"request {i} of the trace has {self.prompt_tokens[i]} prompt and "
                    f"{self.output_tokens[i]} output tokens; both must be at least 1."
                )

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def rate(self) -> float:
        """Requests a second, from the first arrival to the last; 0 for fewer than two."""
        if len(self) < 2 or self.arrival_s[-1] <= self.arrival_s[0]:
            return 0.0
        return (len(self) - 1) / (self.arrival_s[-1] - self.arrival_s[0])

    @property
    def mean_prompt(self) -> float:
        """Tokens."""
        return sum(self.prompt_tokens) / max(len(self), 1)

    @property
    def mean_output(self) -> float:
        """Tokens."""
        return sum(self.output_tokens) / max(len(self), 1)

    def at_rate(self, rate: float) -> Trace:
        """The same requests with all times stretched, so that ``rate`` come a second.

        Raises:
            ConfigError: ``rate`` is not above 0, or the trace has no rate of its own.
        """
        if not 0 < rate < math.inf or not self.rate:
            raise ConfigError(
                f"rate={rate} must be above 0, and the trace needs two arrivals apart."
            )
        first, factor = self.arrival_s[0], self.rate / rate
        times = tuple((x - first) * factor for x in self.arrival_s)
        return Trace(times, self.prompt_tokens, self.output_tokens)

    def until(self, seconds: float) -> Trace:
        """Those that arrive before ``seconds``."""
        end = bisect_left(self.arrival_s, seconds)
        return Trace(self.arrival_s[:end], self.prompt_tokens[:end], self.output_tokens[:end])

    @classmethod
    def of(cls, rows: Iterable[tuple[float, int, int]]) -> Trace:
        """From rows of arrival, prompt and output tokens, in any order."""
        ordered: Sequence[tuple[float, int, int]] = sorted(rows, key=lambda row: row[0])
        if not ordered:
            return cls((), (), ())
        arrivals, prompts, outputs = zip(*ordered, strict=True)
        return cls(arrivals, prompts, outputs)

    @classmethod
    def read(cls, path: str | Path) -> Trace:
        """Read a CSV file, either of the simulator's columns or of the public production traces.

        Args:
            path: has ``arrival_timestamp`` (seconds), ``prompt_size`` and ``token_size``; or
                ``TIMESTAMP`` (date and time), ``ContextTokens`` and ``GeneratedTokens``. Times
                begin at 0 where they are dates. Rows without any output are left out.

        Raises:
            MissingFileError: no such file.
            FileFormatError: a column is missing, or a value is no number.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingFileError(f"no such trace: {path}")
        rows: list[tuple[float, int, int]] = []
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or []
            prompt, output, arrival = (
                _column(names, choices, path) for choices in (_PROMPT, _OUTPUT, _ARRIVAL)
            )
            for row in reader:
                try:
                    time_s = _seconds(row[arrival])
                    one = (time_s, int(float(row[prompt])), int(float(row[output])))
                except (TypeError, ValueError, OverflowError):
                    raise FileFormatError(
                        f"{path}:{reader.line_num} is no request: {arrival}={row[arrival]!r}, "
                        f"{prompt}={row[prompt]!r}, {output}={row[output]!r}."
                    ) from None
                if not math.isfinite(time_s) or one[1] < 1 or one[2] < 0:
                    raise FileFormatError(
                        f"{path}:{reader.line_num}: {arrival}={time_s}, {prompt}={one[1]} and "
                        f"{output}={one[2]}; a time, at least 1 and at least 0 are needed."
                    )
                if one[2]:
                    rows.append(one)
        if arrival == "TIMESTAMP" and rows:
            first = min(row[0] for row in rows)
            rows = [(time_s - first, size, count) for time_s, size, count in rows]
        return cls.of(rows)

    def write(self, path: str | Path) -> None:
        """Write the columns that :meth:`read` and other simulators take."""
        columns = (
            "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,"
            "token_size"
        )
        with Path(path).open("w", encoding="utf-8") as file:
            file.write(columns + "\n")
            rows = zip(self.arrival_s, self.prompt_tokens, self.output_tokens, strict=True)
            for i, (arrival, prompt, output) in enumerate(rows):
                file.write(f"{i},2,0,{arrival!r},1,{prompt},{output}\n")


def synthetic_trace(
    kind: Literal["code", "conv"] | str,
    *,
    rate: float,
    seconds: float,
    seed: int = 0,
    cv: float = 1.0,
) -> Trace:
    """Draw a trace.

    Args:
        kind: ``code`` or ``conv``: whose lengths.
        rate: requests a second.
        seconds: arrivals lie in [0, ``seconds``).
        seed: of all that is drawn; the same seed at another rate draws the same requests.
        cv: coefficient of variation of the gaps: 1 for Poisson, above for bursts.

    Raises:
        ConfigError: an unknown kind, or a value out of range.

    Example:
        >>> trace = synthetic_trace("conv", rate=20, seconds=600)
        >>> 19 < trace.rate < 21
        True
    """
    if kind not in KINDS:
        raise ConfigError(f"kind={kind!r} must be {' or '.join(KINDS)}.")
    for name, value in (("rate", rate), ("seconds", seconds), ("cv", cv)):
        if not 0 < value < math.inf:
            raise ConfigError(f"{name}={value} must be above 0 and finite.")
    if rate * seconds > _MOST_REQUESTS:
        raise ConfigError(
            f"rate={rate} for {seconds} s makes {rate * seconds:.3g} requests; at most "
            f"{_MOST_REQUESTS} are drawn. Shorten the trace."
        )
    prompts, outputs = KINDS[kind]
    gaps, lengths = random.Random(seed), random.Random(seed + 1)
    shape, scale = 1 / cv**2, cv**2 / rate
    rows: list[tuple[float, int, int]] = []
    now = gaps.gammavariate(shape, scale)
    while now < seconds:
        rows.append((now, prompts.draw(lengths), outputs.draw(lengths)))
        now += gaps.gammavariate(shape, scale)
    return Trace.of(rows)


def _column(names: Sequence[str], choices: Sequence[str], path: Path) -> str:
    for name in choices:
        if name in names:
            return name
    raise FileFormatError(
        f"{path} has no column {' or '.join(choices)}; it has {', '.join(names) or 'none'}."
    )


def _seconds(text: str) -> float:
    """A number of seconds, or a date and time with any number of decimals."""
    try:
        return float(text)
    except ValueError:
        moment, _, decimals = text.strip().partition(".")
        return datetime.fromisoformat(moment).timestamp() + float(f"0.{decimals or 0}")
