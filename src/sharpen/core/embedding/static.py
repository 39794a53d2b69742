"""Texts as vectors, by the mean of a table's rows for their tokens; no network, no torch.

A table is a safetensors file with one matrix of [tokens, width], and a tokenizer of Hugging Face's
``tokenizers`` beside it. The asset ``wordllama`` is one: 256 wide, 16 MB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.embedding.opening import unit
from sharpen.core.errors import DependencyNotInstalled, FileFormatError

__all__ = ["StaticEmbedding", "load"]

Vectors = npt.NDArray[np.float32]

_AT_ONCE = 512  # texts that are tokenized together


class StaticEmbedding:
    """A table of token vectors and its tokenizer.

    Args:
        table: [tokens, width].
        tokenizer: of ``tokenizers``.
    """

    def __init__(self, table: Vectors, tokenizer: Any) -> None:
        self.table, self._tokenizer = table, tokenizer
        tokenizer.no_padding()
        tokenizer.no_truncation()

    @property
    def width(self) -> int:
        """Of the vectors."""
        return int(self.table.shape[1])

    def encode(self, texts: list[str]) -> Vectors:
        """[n, width] vectors of length 1; zeros of a text without tokens."""
        found = np.zeros((len(texts), self.width), np.float32)
        for start in range(0, len(texts), _AT_ONCE):
            some = texts[start : start + _AT_ONCE]
            coded = self._tokenizer.encode_batch_fast(some, add_special_tokens=False)
            for i, one in enumerate(coded, start=start):
                ids = np.array(one.ids, np.int64)
                if len(ids):
                    found[i] = self.table[ids].mean(0, dtype=np.float64)
        return unit(found)


def load(table: Path, tokenizer: Path) -> StaticEmbedding:
    """Read both files.

    Raises:
        FileFormatError: the table is damaged, or none.
        DependencyNotInstalled: safetensors or tokenizers is missing.
    """
    try:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("embeddings of texts", "data") from None
    try:
        matrices = list(load_file(table).values())
        backend = Tokenizer.from_file(str(tokenizer))
    except Exception as error:  # of two libraries, each with its own
        raise FileFormatError(f"{table} or {tokenizer} cannot be read: {error}.") from None
    if len(matrices) != 1 or matrices[0].ndim != 2:
        raise FileFormatError(f"{table} must hold one matrix of [tokens, width].")
    table_rows = matrices[0].astype(np.float32)
    if len(table_rows) < backend.get_vocab_size():
        raise FileFormatError(
            f"{table} has {len(table_rows)} rows for {backend.get_vocab_size()} tokens."
        )
    return StaticEmbedding(table_rows, backend)
