"""The ``eval`` stage's config: what is measured, and how answers are compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sharpen.core.errors import ConfigError

__all__ = ["EvalConfig", "ExactMatchConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactMatchConfig:
    """How answers are generated and compared."""

    max_new_tokens: int = 32
    """Longest answer, in tokens."""

    batch_size: int = 8
    """Questions answered at once."""

    extract: Literal["all", "first_line", "last_number"] = "first_line"
    """Which part of the answer is compared: all of it, its first line that is not empty, or the
    last number in it (thousands separators dropped)."""

    ignore_case: bool = True
    """Compare in lower case."""

    ignore_punctuation: bool = True
    """Drop ASCII punctuation."""

    ignore_articles: bool = False
    """Drop the words a, an, the."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens={self.max_new_tokens} must be at least 1.")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size={self.batch_size} must be at least 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """What is measured."""

    metrics: tuple[Literal["loss", "perplexity"], ...] = ("loss", "perplexity")
    """Of the data set's held-out split: mean nats a label, and its exponential."""

    limit: int | None = 64
    """Held-out examples (and questions of each task) at most; null is all."""

    samples: int = 0
    """Held-out prompts to continue, for reading."""

    max_new_tokens: int = 64
    """Longest continuation of a sample, in tokens."""

    template: Literal["auto", "none"] = "auto"
    """``auto`` renders a sample's prompt by the model's chat template, if it has one."""

    text: str | None = None
    """A text file whose perplexity is measured by sliding windows."""

    window: int = 512
    """Tokens seen at once in ``text``."""

    stride: int | None = None
    """Tokens from one window to the next; default ``window``."""

    max_text_tokens: int | None = None
    """Only so many tokens of ``text``."""

    tasks: tuple[str, ...] = ()
    """Task files (JSONL): multiple choice or exact match."""

    exact_match: ExactMatchConfig = field(default_factory=ExactMatchConfig)
    """How exact-match tasks are answered and compared."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights and of the computation."""

    batch_size: int = 4
    """Sequences at once."""

    variant: str | None = None
    """Sub-folder of the model artifact, such as ``int4``, when it holds several models."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("limit", "max_text_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} must be at least 1.")
        for name in ("max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.samples < 0:
            raise ConfigError(f"samples={self.samples} must be at least 0.")
        if not self.metrics and not self.tasks and self.text is None:
            raise ConfigError("nothing is measured; name metrics, tasks or a text.")
