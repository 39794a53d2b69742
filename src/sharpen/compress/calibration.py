"""Texts that show a method what usually goes into each layer, as rows of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sharpen.compress.config import PYTHON_STDLIB
from sharpen.core.assets import ASSETS, asset_path
from sharpen.core.errors import DataError
from sharpen.data.formats import Document, encode_rows, normalize
from sharpen.data.readers import locate_rows
from sharpen.data.shards import PADDING, TokenDataset, write_dataset
from sharpen.data.stdlib import stdlib_texts
from sharpen.models.decoder import DecoderLM
from sharpen.models.tokenizer import Tokenizer

__all__ = ["Sample", "calibration_dataset", "samples"]

_LONGEST_TOKEN = 16
"""Characters of source that a token seldom exceeds."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a data set, without its padding; every tensor is int64 [1, T]."""

    input_ids: Tensor
    labels: Tensor
    """The next token, -100 where none is learned."""

    position_ids: Tensor
    document_ids: Tensor


def samples(dataset: TokenDataset, limit: int, model: DecoderLM) -> Iterator[Sample]:
    """At most ``limit`` rows, spread evenly over the data set.

    Args:
        dataset: calibration rows.
        limit: of rows.
        model: that will see them; they go to its device.

    Raises:
        DataError: the data set is empty, or has tokens that the model does not know.
    """
    where = f"the split '{dataset.split}' of {dataset.folder}"
    if len(dataset) == 0:
        raise DataError(f"{where} is empty.")
    device, vocab_size = model.model.norm.weight.device, model.spec.vocab_size
    count = min(len(dataset), limit)
    for number in range(count):
        row = dataset[number * len(dataset) // count]
        used = int(np.count_nonzero(row.document_ids != PADDING))
        names = ("input_ids", "labels", "position_ids", "document_ids")
        arrays = [np.array(getattr(row, name)[None, :used]) for name in names]
        largest = max(int(array.max(initial=0)) for array in arrays[:2])
        if largest >= vocab_size:
            raise DataError(
                f"{where} has the token {largest} in row {number * len(dataset) // count}, and the "
                f"model knows 0 to {vocab_size - 1}: it was made with another model's tokenizer. "
                "Use the model's own."
            )
        yield Sample(*(torch.from_numpy(array).to(device) for array in arrays))


def calibration_dataset(
    source: str | Path, tokenizer: Tokenizer, folder: Path, *, rows: int, tokens: int = 256
) -> TokenDataset:
    """Rows of some hundred tokens from the first texts of a file.

    Args:
        source: a file or folder of texts, as :func:`~sharpen.data.read_rows` reads them; rows of
            JSON have the key ``text``. Or the folder of a token data set, which is taken as it is.
            Or ``python-stdlib``: one row from each of as many modules of the standard library,
            spread over all of it.
        tokenizer: the model's.
        folder: an existing folder, where the rows are written.
        rows: as many as are needed; reading stops there.
        tokens: of each row.

    Raises:
        MissingFileError: the source does not exist.
        DataError: it cannot be read, has no text, or was made with another tokenizer.
    """
    if str(source) == PYTHON_STDLIB:
        return _write(_corpus(tokenizer, rows, tokens), tokenizer, folder, tokens)
    source = Path(source)
    if (source / "manifest.json").is_file():
        return TokenDataset(source, "train", tokenizer_fingerprint=tokenizer.fingerprint)
    texts = (normalize(row, "text", where) for where, row in locate_rows(source))
    pieces: list[Document] = []
    count = 0
    for text in texts:
        (document,) = encode_rows([text], tokenizer)
        # Neighbouring pieces share a token: the last predicted is the next one's first input.
        for start in range(0, len(document.ids) - 1, tokens):
            part = slice(start, start + tokens + 1)
            pieces.append(Document(document.ids[part], document.learned[part]))
        count += len(document.ids)
        if count >= rows * tokens:
            break
    if not pieces:
        raise DataError(f"{source} has no text to calibrate on.")
    return _write(pieces, tokenizer, folder, tokens)


def _corpus(tokenizer: Tokenizer, rows: int, tokens: int) -> list[Document]:
    """The first tokens of evenly spread modules that have as many as a row."""
    texts = list(stdlib_texts(asset_path(ASSETS[PYTHON_STDLIB].name)))
    pieces: list[Document] = []
    stride = max(1, len(texts) // rows)
    # A second round, shifted, makes good for the modules that were too short.
    for start in range(stride):
        for text in texts[start::stride]:
            beginning = {**text, "text": text["text"][: _LONGEST_TOKEN * tokens]}
            (document,) = encode_rows([beginning], tokenizer)
            if len(document.ids) > tokens:
                part = slice(0, tokens + 1)
                pieces.append(Document(document.ids[part], document.learned[part]))
            if len(pieces) == rows:
                return pieces
    return pieces


def _write(pieces: list[Document], tokenizer: Tokenizer, folder: Path, tokens: int) -> TokenDataset:
    write_dataset(
        folder,
        {"train": pieces},
        max_tokens=tokens,
        packing=True,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        pad_id=tokenizer.pad_id or 0,
    )
    return TokenDataset(folder, "train", tokenizer_fingerprint=tokenizer.fingerprint)
