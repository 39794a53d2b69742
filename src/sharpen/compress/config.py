"""The ``compress`` stage's config: the smaller copies of a model, and how they are measured."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from sharpen.compress.grid import Grid, Head
from sharpen.core.errors import ConfigError

__all__ = [
    "BASELINE",
    "PYTHON_STDLIB",
    "CompressConfig",
    "MixLLMConfig",
    "PruneConfig",
    "VariantConfig",
]

BASELINE = "baseline"
"""What the results call the uncompressed model."""
PYTHON_STDLIB = "python-stdlib"
"""Calibration texts that every machine has: the source of Python's library."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneConfig:
    """Which weights become zero."""

    method: Literal["wanda", "magnitude"] = "wanda"
    """``wanda`` needs a data set to calibrate on."""

    sparsity: float = 0.5
    """Share of zeros in each matrix; not with ``pattern``."""

    pattern: str | None = None
    """``n:m`` keeps n of every m weights in a row, such as ``2:4``."""

    calibration: int = 64
    """Wanda: rows of the training split it looks at."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.sparsity < 1:
            raise ConfigError(f"sparsity={self.sparsity} must be above 0 and below 1.")
        if self.calibration < 1:
            raise ConfigError(f"calibration={self.calibration} must be at least 1.")
        if self.pattern is not None:
            found = re.fullmatch(r"(\d{1,3}):(\d{1,3})", self.pattern)
            if not found or not 0 < int(found[1]) < int(found[2]):
                raise ConfigError(
                    f"pattern={self.pattern!r} must be 'n:m' with 0 < n < m, such as '2:4'."
                )
            if self.sparsity not in (0.5, 1 - int(found[1]) / int(found[2])):
                raise ConfigError(
                    f"sparsity={self.sparsity} contradicts pattern={self.pattern!r}; give one."
                )

    @property
    def kept(self) -> tuple[int, int] | None:
        """N and m of the pattern."""
        if self.pattern is None:
            return None
        n, m = self.pattern.split(":")
        return int(n), int(m)

    @property
    def label(self) -> str:
        """A name for what comes out, such as ``wanda50`` or ``magnitude2of4``."""
        if self.pattern is not None:
            return self.method + self.pattern.replace(":", "of")
        return f"{self.method}{self.sparsity:.0%}".rstrip("%")


@dataclass(frozen=True, kw_only=True, slots=True)
class MixLLMConfig:
    """Rows of 4 and of 8 bits, chosen over the whole model."""

    bits: float = 4.4
    """Mean of the bits of the blocks' rows, 4 to 8: (bits - 4) / 4 of them have 8, which is 10 % at
    4.4."""

    unit: Literal["rows", "bytes"] = "rows"
    """What the share counts: ``rows``, as the paper does, or the ``bytes`` that 8 bits add, so that
    a long row must matter more."""

    solver: Literal["gptq", "awq", "rtn"] = "gptq"
    """How weights are rounded: by GPTQ, to nearest with scaled inputs, or to nearest."""

    clip: bool = True
    """Search ranges of the grids below the full one; not with ``rtn``."""

    calibration: int = 64
    """Rows of calibration text; 128 is the paper's."""

    head: Literal[8, 16] = 8
    """Bits of the head, and of an embedding tied to it: 8 as the other 8-bit rows, or 16 to keep
    its type. ``bits`` does not count it."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.head not in (8, 16):
            raise ConfigError(f"head={self.head!r} must be 8, or 16 to keep the head's type.")
        if not 4 <= self.bits <= 8:
            raise ConfigError(
                f"bits={self.bits} must be from 4 (all rows) to 8 (all rows), such as 4.4."
            )
        if self.calibration < 1:
            raise ConfigError(f"calibration={self.calibration} must be at least 1.")

    @property
    def share(self) -> float:
        """Of 8-bit rows, 0 to 1."""
        return (self.bits - 4) / 4

    @property
    def needs_texts(self) -> bool:
        """Whether rows are chosen, or rounded, by what goes into the layers."""
        return self.solver != "rtn" or 0 < self.share < 1


@dataclass(frozen=True, kw_only=True, slots=True)
class VariantConfig:
    """One smaller copy of the model: quantized, pruned, or pruned and then quantized."""

    bits: Literal[4, 8] | None = None
    """Of each weight; null does not quantize so."""

    mixllm: MixLLMConfig | None = None
    """Rows of 4 and of 8 bits, with 8-bit activations; instead of ``bits``."""

    prune: PruneConfig | None = None
    """Which weights become zero; null keeps them all."""

    group: int | None = None
    """Weights that share a scale: 32, 64, 128, or -1 for a whole row; default 32 for 4 bits and the
    row for 8 bits."""

    symmetric: bool = True
    """No zero points; asymmetric folders are read by Sharpen only."""

    clip: Literal["none", "mse"] = "none"
    """``mse`` searches scales for the least squared error of the weights."""

    head: Head = "keep"
    """``int8`` also stores embedding and head as 8-bit rows; read by Sharpen only."""

    name: str | None = None
    """Of the sub-folder and the results; default such as ``int4``, ``wanda50``,
    ``wanda2of4-int4``, ``mixllm``."""

    def __post_init__(self) -> None:
        """Check the grid and the name."""
        if self.bits is None and self.prune is None and self.mixllm is None:
            raise ConfigError("a variant changes nothing; give it 'bits', 'mixllm' or 'prune'.")
        if self.bits is not None and self.mixllm is not None:
            raise ConfigError(
                "'bits' and 'mixllm' both say how to quantize; give the variant one of them."
            )
        quantized = (self.group, self.symmetric, self.clip, self.head)
        if self.bits is None and quantized != (None, True, "none", "keep"):
            raise ConfigError(
                "group, symmetric, clip and head belong to quantization; give the variant 'bits'. "
                "(mixllm has its own head and clip.)"
            )
        _ = self.grid
        if not self.label.replace("-", "").replace("_", "").isalnum() or self.label == BASELINE:
            raise ConfigError(
                f"name={self.name!r} must be letters, digits, '-' and '_', and not '{BASELINE}'."
            )

    @property
    def grid(self) -> Grid | None:
        """How weights are rounded, if they are."""
        if self.bits is None:
            return None
        return Grid(bits=self.bits, group=self.group, symmetric=self.symmetric, clip=self.clip)

    @property
    def label(self) -> str:
        """``name`` with its default filled in."""
        parts = [
            *([self.prune.label] if self.prune is not None else []),
            *([f"int{self.bits}"] if self.bits is not None else []),
            *(["mixllm"] if self.mixllm is not None else []),
        ]
        return self.name if self.name is not None else "-".join(parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompressConfig:
    """Which smaller copies are made, and how they are measured."""

    variants: tuple[VariantConfig, ...] = (VariantConfig(bits=8), VariantConfig(bits=4))
    """One model folder each; names must differ."""

    limit: int | None = 64
    """Held-out examples for the perplexity; null is all."""

    new_tokens: int = 32
    """Tokens decoded to measure the speed, at batch 1; 0 skips that."""

    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of what is not quantized, stored and run; also of the baseline."""

    calibration_texts: str | None = None
    """What ``wanda`` and ``mixllm`` look at: a file or folder of texts, a data set, or
    ``python-stdlib``; null is the training split of the data before this stage."""

    def __post_init__(self) -> None:
        """Check the ranges and names."""
        if not self.variants:
            raise ConfigError("variants is empty; give at least one, such as {bits: 4}.")
        labels = [variant.label for variant in self.variants]
        for label in labels:
            if labels.count(label) > 1:
                raise ConfigError(f"two variants are called {label!r}; give one a 'name'.")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit={self.limit} must be at least 1.")
        if self.new_tokens < 0:
            raise ConfigError(f"new_tokens={self.new_tokens} must be at least 0.")

    @property
    def calibration_rows(self) -> int:
        """The most rows of texts that a variant looks at; 0 if none does."""
        rows = [0]
        for variant in self.variants:
            if variant.prune is not None and variant.prune.method == "wanda":
                rows.append(variant.prune.calibration)
            if variant.mixllm is not None and variant.mixllm.needs_texts:
                rows.append(variant.mixllm.calibration)
        return max(rows)
