"""The keys of a recipe's ``data`` stage."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from sharpen.core.assets import ASSETS
from sharpen.core.errors import ConfigError, did_you_mean

__all__ = ["DataConfig", "OutputConfig", "SourceConfig", "SplitConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """Where the rows come from: a path, an asset, or a mix of such."""

    path: str | None = None
    """A file, a folder, or a pattern; or an address of such (``s3://``, ``https://`` ...)."""

    asset: str | None = None
    """A corpus of ``sharpen assets list``."""

    mix: list[SourceConfig] = field(default_factory=list)
    """Several sources, mixed by their ``weight``; without weights one after the other."""

    text_key: str = "text"
    """Where a row's text stands that operators work on; ``a.b`` is ``b`` of the object ``a``. Of a
    mix: where the texts of all its sources come out."""

    view: Literal["docstrings", "text"] = "text"
    """``python-stdlib``: whole files, or functions (prompt) with docstrings (completion)."""

    max_samples: int | None = None
    """At most so many rows: the first, or a draw if there is a ``seed``."""

    seed: int | None = None
    """Of the draw of ``max_samples`` rows."""

    weight: float | None = None
    """Share of this source's rows in a mix, against the others' weights."""

    name: str | None = None
    """Of this source of a mix; default: of the file, the folder or the asset."""

    column: str | None = "source"
    """Of a mix: the field that says which source a row is of; null for none."""

    def __post_init__(self) -> None:
        """Exactly one of path, asset and mix."""
        if [self.path is None, self.asset is None, not self.mix].count(False) != 1:
            raise ConfigError("give exactly one of path, asset and mix.")
        corpora = [a.name for a in ASSETS.values() if a.kind == "corpus"]
        if self.asset is not None and self.asset not in corpora:
            raise ConfigError(
                f"asset {self.asset!r} is no corpus.{did_you_mean(self.asset, corpora)} "
                f"Corpora: {', '.join(corpora)}."
            )
        if self.max_samples is not None and self.max_samples < 1:
            raise ConfigError(f"max_samples={self.max_samples} must be at least 1.")
        if self.seed is not None and self.max_samples is None:
            raise ConfigError("a seed draws max_samples rows; give max_samples, too.")
        if self.weight is not None and not 0 < self.weight < math.inf:
            raise ConfigError(f"weight={self.weight:g} must be above 0.")
        if self.mix:
            self._check_mix()

    def _check_mix(self) -> None:
        if self.max_samples is not None:
            raise ConfigError("max_samples is given for each source of a mix; of all: data.limit.")
        if any(one.mix for one in self.mix):
            raise ConfigError("a mix has no mix inside; put its sources into the one mix.")
        if len({one.weight is None for one in self.mix}) > 1:
            raise ConfigError("give every source of the mix a weight, or none of them.")
        names = [one.label for one in self.mix]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"two sources of the mix are '{twice}'; give each a name.")

    @property
    def label(self) -> str:
        """What a source of a mix is called."""
        if self.name is not None:
            return self.name
        if self.asset is not None:
            return self.asset
        assert self.path is not None
        return next((p for p in reversed(self.path.split("/")) if p and "*" not in p), self.path)


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

    format: Literal["jsonl", "parquet", "webdataset"] = "jsonl"
    """``data-00000.jsonl``, ``.parquet``, or ``.tar`` of samples."""

    upload: str | None = None
    """An address to which the finished folder is copied, too, such as ``s3://bucket/clean``."""

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
        if self.source.weight is not None or self.source.name is not None:
            raise ConfigError("name and weight belong to a source of a mix: source.mix.")
        if self.max_tokens < 8:
            raise ConfigError(f"max_tokens={self.max_tokens} must be at least 8.")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit={self.limit} must be at least 1.")
        if self.process:
            from sharpen.data.process import operators_of  # needs pyarrow

            operators_of(self.process)
