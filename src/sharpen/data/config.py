"""The keys of a recipe's ``data`` stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from sharpen.core.assets import ASSETS
from sharpen.core.errors import ConfigError, did_you_mean

__all__ = ["DataConfig", "OutputConfig", "SourceConfig", "SplitConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """Where the rows come from: a path, or an asset."""

    path: str | None = None
    """A file or folder: JSONL (also .gz), Parquet, text, Python sources."""

    asset: str | None = None
    """A corpus of ``sharpen assets list``."""

    text_key: str = "text"
    """Where a row's text stands that operators work on; ``a.b`` is ``b`` of the object ``a``."""

    view: Literal["docstrings", "text"] = "text"
    """``python-stdlib``: whole files, or functions (prompt) with docstrings (completion)."""

    def __post_init__(self) -> None:
        """Exactly one of path and asset."""
        if (self.path is None) == (self.asset is None):
            raise ConfigError("give exactly one of path and asset.")
        corpora = [a.name for a in ASSETS.values() if a.kind == "corpus"]
        if self.asset is not None and self.asset not in corpora:
            raise ConfigError(
                f"asset {self.asset!r} is no corpus.{did_you_mean(self.asset, corpora)} "
                f"Corpora: {', '.join(corpora)}."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitConfig:
    """What is held out."""

    valid: float = 0.05
    """Share of the rows to hold out, at least; 0 holds out none."""

    by: str | None = None
    """Rows with equal values under this key stay on one side; default: every row for itself."""

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 <= self.valid < 1:
            raise ConfigError(f"valid={self.valid} must be at least 0 and below 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputConfig:
    """Files of rows."""

    path: str | None = None
    """Folder; default ``clean/<name of the recipe>``. A relative path starts at the working
    folder."""

    format: Literal["jsonl", "parquet"] = "jsonl"
    """``data-00000.jsonl``, or ``.parquet``."""

    trace: bool = True
    """Whether to write why each row went."""

    excerpts: int = 10
    """Edits of each operator and batch of which both texts are kept in the trace."""

    keep_statistics: bool = False
    """Whether to add what filters measured to the rows, as ``stats``."""

    shard_bytes: int = 256 << 20
    """A file is closed when it has reached so many."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.excerpts < 0:
            raise ConfigError(f"excerpts={self.excerpts} must not be negative.")
        if self.shard_bytes < 1:
            raise ConfigError(f"shard_bytes={self.shard_bytes} must be at least 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """From a source to token shards."""

    source: SourceConfig
    """Where the rows come from."""

    format: Literal["text", "prompt_completion", "chat", "alpaca"] = "text"
    """What a row is."""

    split: SplitConfig = field(default_factory=SplitConfig)
    """What is held out."""

    dedup: Literal["exact", "none"] = "exact"
    """Drop rows equal to an earlier one, before the split."""

    max_tokens: int = 512
    """Tokens of a sequence; longer examples are dropped, longer texts cut."""

    packing: bool = True
    """Several documents a sequence, attention kept inside each."""

    mask_prompt: bool = True
    """Learn only what the assistant (or the completion) says."""

    template: Literal["auto", "none"] = "auto"
    """``auto`` renders prompt and completion by the model's chat template, if it has one."""

    limit: int | None = None
    """At most so many rows of the source."""

    on_error: Literal["fail", "skip", "quarantine"] = "fail"
    """What becomes of a row that cannot be read, lacks a key or makes an operator fail: ``fail``
    ends the run, ``skip`` counts it, ``quarantine`` also keeps it (``sharpen data run``)."""

    process: list[Any] = field(default_factory=list)
    """Operators, each a name or ``name: {arguments}``; see ``sharpen data ops``."""

    order: Literal["auto", "given"] = "auto"
    """Of filters that follow each other: ``auto`` begins with those that drop most for least
    time; the rows that are kept are the same."""

    output: OutputConfig = field(default_factory=OutputConfig)
    """What ``sharpen data run`` writes."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.max_tokens < 8:
            raise ConfigError(f"max_tokens={self.max_tokens} must be at least 8.")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit={self.limit} must be at least 1.")
        if self.process:
            from sharpen.data.process import operators_of  # needs pyarrow

            operators_of(self.process)
