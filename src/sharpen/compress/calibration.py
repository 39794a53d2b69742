"""Texts that show a method what usually goes into each layer, as rows of tokens."""

from __future__ import annotations

from pathlib import Path

from sharpen.core.errors import DataError
from sharpen.data.formats import Document, encode_rows, normalize
from sharpen.data.readers import locate_rows
from sharpen.data.shards import TokenDataset, write_dataset
from sharpen.models.tokenizer import Tokenizer

__all__ = ["calibration_dataset"]

_ROW_TOKENS = 512


def calibration_dataset(
    source: str | Path, tokenizer: Tokenizer, folder: Path, *, rows: int
) -> TokenDataset:
    """Rows of 512 tokens from the first texts of a file.

    Args:
        source: a file or folder of texts, as :func:`~sharpen.data.read_rows` reads them; rows of
            JSON have the key ``text``. Or the folder of a token data set, which is taken as it is.
        tokenizer: the model's.
        folder: an existing folder, where the rows are written.
        rows: as many as are needed; reading stops there.

    Raises:
        MissingFileError: the source does not exist.
        DataError: it cannot be read, has no text, or was made with another tokenizer.
    """
    source = Path(source)
    if (source / "manifest.json").is_file():
        return TokenDataset(source, "train", tokenizer_fingerprint=tokenizer.fingerprint)
    texts = (normalize(row, "text", where) for where, row in locate_rows(source))
    pieces: list[Document] = []
    tokens = 0
    for text in texts:
        (document,) = encode_rows([text], tokenizer)
        # Neighbouring pieces share a token: the last predicted is the next one's first input.
        for start in range(0, len(document.ids) - 1, _ROW_TOKENS):
            part = slice(start, start + _ROW_TOKENS + 1)
            pieces.append(Document(document.ids[part], document.learned[part]))
        tokens += len(document.ids)
        if tokens >= rows * _ROW_TOKENS:
            break
    if not pieces:
        raise DataError(f"{source} has no text to calibrate on.")
    write_dataset(
        folder,
        {"train": pieces},
        max_tokens=_ROW_TOKENS,
        packing=True,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        pad_id=tokenizer.pad_id or 0,
    )
    return TokenDataset(folder, "train", tokenizer_fingerprint=tokenizer.fingerprint)
