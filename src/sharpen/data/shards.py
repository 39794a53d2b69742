"""Token shards: rows of fixed length in memory-mapped files, described by a manifest.

::

    manifest.json            format, tokenizer fingerprint, counts, size and sha256 of each shard
    train-00000.bin ...      records of max_tokens tokens
    valid.jsonl              the held-out examples as text, for generation

A record holds, for T = max_tokens: tokens (T x uint16 or uint32), labels (the same), a bit for each
position that has a label, and the number of its document (T x uint16, 65535 where padded). Labels
are already shifted: labels[t] is the token to be predicted at position t.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpen.core.config import digest, read_json
from sharpen.core.errors import ConfigError, DataError, FileFormatError, MissingFileError
from sharpen.core.files import atomic_write_json, sha256_file
from sharpen.data.formats import Document
from sharpen.data.packing import pack

__all__ = ["IGNORE", "PADDING", "Sequence", "TokenDataset", "write_dataset"]

IGNORE = -100
PADDING = -1
_FORMAT = 1
_PAD = 0xFFFF
_MAX_TOKENS = 1 << 24
_SHARD_BYTES = 256 << 20
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sequence:
    """One row; every array is int64 [T]."""

    input_ids: Ints
    labels: Ints
    """Token to be predicted at each position, -100 where none is."""
    position_ids: Ints
    """Restart at 0 in each document."""
    document_ids: Ints
    """Number of the document within the row; -1 where padded."""


def _record(vocab_size: int, length: int) -> np.dtype[np.void]:
    token = "<u2" if vocab_size <= 1 << 16 else "<u4"
    return np.dtype(
        [
            ("tokens", token, (length,)),
            ("labels", token, (length,)),
            ("mask", "u1", ((length + 7) // 8,)),
            ("documents", "<u2", (length,)),
        ]
    )


def write_dataset(
    folder: Path,
    splits: Mapping[str, Seq[Document]],
    *,
    max_tokens: int,
    packing: bool,
    tokenizer_fingerprint: str,
    vocab_size: int,
    pad_id: int = 0,
    info: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write token shards and their manifest into an existing folder.

    Args:
        folder: where to write.
        splits: documents of 2 to ``max_tokens + 1`` tokens by split name; the last token of each is
            only ever predicted.
        max_tokens: tokens of a row.
        packing: several documents a row; otherwise one, padded.
        tokenizer_fingerprint: of the tokenizer that made the ids.
        vocab_size: of that tokenizer.
        pad_id: written where nothing is.
        info: further plain data for the manifest.

    Returns:
        The manifest.

    Raises:
        DataError: a document has an id outside the vocabulary, or a length that does not fit.
    """
    dtype = _record(vocab_size, max_tokens)
    manifest: dict[str, Any] = {
        "format_version": _FORMAT,
        "tokenizer": tokenizer_fingerprint,
        "vocab_size": vocab_size,
        "max_tokens": max_tokens,
        "packing": packing,
        **(info or {}),
        "splits": {},
    }
    per_shard = max(1, _SHARD_BYTES // dtype.itemsize)
    for split, documents in splits.items():
        lengths = [len(d.ids) - 1 for d in documents]
        rows = pack(lengths, max_tokens) if packing else [[i] for i in range(len(documents))]
        shards = []
        for number, start in enumerate(range(0, len(rows), per_shard)):
            name = f"{split}-{number:05d}.bin"
            part = rows[start : start + per_shard]
            block = np.zeros(len(part), dtype)
            block["tokens"] = pad_id
            block["documents"] = _PAD
            for record, row in zip(block, part, strict=True):
                _fill(record, [documents[i] for i in row], vocab_size, max_tokens)
            # Not block.tofile: its error on a full disk does not say that the disk is full.
            (folder / name).write_bytes(block.data)
            shards.append(
                {
                    "file": name,
                    "rows": len(part),
                    "bytes": len(part) * dtype.itemsize,
                    "sha256": sha256_file(folder / name),
                }
            )
        manifest["splits"][split] = {
            "examples": len(documents),
            "rows": len(rows),
            "tokens": sum(lengths),
            "labels": sum(sum(d.learned[1:]) for d in documents),
            "shards": shards,
        }
    atomic_write_json(folder / "manifest.json", manifest)
    return manifest


def _fill(record: Any, documents: Iterable[Document], vocab_size: int, max_tokens: int) -> None:
    at = 0
    mask = np.zeros(max_tokens, np.bool_)
    for number, document in enumerate(documents):
        ids = np.asarray(document.ids, np.int64)
        length = len(ids) - 1
        if length < 1 or at + length > max_tokens or number >= _PAD:
            raise DataError(f"a document of {length + 1} tokens does not fit {max_tokens} tokens.")
        if ids.min() < 0 or ids.max() >= vocab_size:
            raise DataError(f"a token id is outside 0..{vocab_size - 1}: wrong tokenizer.")
        place = slice(at, at + length)
        record["tokens"][place] = ids[:-1]
        mask[place] = document.learned[1:]
        record["labels"][place] = np.where(mask[place], ids[1:], 0)
        record["documents"][place] = number
        at += length
    record["mask"] = np.packbits(mask)


class TokenDataset:
    """One split of a folder of token shards, memory-mapped.

    Args:
        folder: as :func:`write_dataset` made it.
        split: such as ``train`` or ``valid``.
        tokenizer_fingerprint: refuse the data set if it was made with another tokenizer.
        verify: also compare the sha256 of every shard.

    Raises:
        MissingFileError: no manifest, or no such split.
        FileFormatError: a shard or the manifest is damaged.
        ConfigError: another tokenizer.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str = "train",
        *,
        tokenizer_fingerprint: str | None = None,
        verify: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.split = split
        self.manifest = _manifest(self.folder)
        if split not in self.manifest["splits"]:
            raise MissingFileError(
                f"{self.folder} has no split '{split}'; it has: "
                f"{', '.join(self.manifest['splits']) or 'none'}."
            )
        made_with = self.manifest["tokenizer"]
        if tokenizer_fingerprint is not None and tokenizer_fingerprint != made_with:
            raise ConfigError(
                f"the data set {self.folder} was made with another tokenizer than the model's. "
                "Make it again with this model."
            )
        self.max_tokens: int = self.manifest["max_tokens"]
        entry = self.manifest["splits"][split]
        self.num_tokens: int = entry["tokens"]
        self.num_labels: int = entry["labels"]
        self.num_examples: int = entry["examples"]
        dtype = _record(self.manifest["vocab_size"], self.max_tokens)
        self._shards = [_open(self.folder, s, dtype, verify) for s in entry["shards"]]
        self._ends = np.cumsum([len(s) for s in self._shards])

    @property
    def fingerprint(self) -> str:
        """Digest of the split's bytes."""
        return digest([s["sha256"] for s in self.manifest["splits"][self.split]["shards"]])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Sequence:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        shard = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[shard - 1]) if shard else 0
        record = self._shards[shard][index - start]
        mask = np.unpackbits(record["mask"], count=self.max_tokens).astype(np.bool_)
        documents = record["documents"].astype(np.int64)
        documents[documents == _PAD] = PADDING
        border = np.flatnonzero(np.diff(documents, prepend=documents[0] - 1))
        first = np.zeros(self.max_tokens, np.int64)
        first[border] = border
        positions = np.arange(self.max_tokens) - np.maximum.accumulate(first)
        return Sequence(
            input_ids=record["tokens"].astype(np.int64),
            labels=np.where(mask, record["labels"].astype(np.int64), IGNORE),
            position_ids=np.where(documents == PADDING, 0, positions),
            document_ids=documents,
        )

    def examples(self, limit: int | None = None) -> list[dict[str, Any]]:
        """The split's examples as text, as they were before tokenizing."""
        path = self.folder / f"{self.split}.jsonl"
        if not path.exists():
            return []
        try:
            lines = path.read_bytes().decode("utf-8").split("\n")  # texts may hold U+2028
            rows = [json.loads(line) for line in lines if line]
        except (ValueError, RecursionError) as error:
            raise FileFormatError(f"{path} is damaged: {error}.") from None
        return rows[:limit]


def _manifest(folder: Path) -> dict[str, Any]:
    data = read_json(folder / "manifest.json", "token data set")
    try:
        if data["format_version"] != _FORMAT:
            raise FileFormatError(
                f"{folder} has data set format {data['format_version']!r}; this version reads "
                f"{_FORMAT}."
            )
        sizes = [data["max_tokens"], data["vocab_size"]]
        for entry in data["splits"].values():
            sizes += [entry["tokens"] + 1, entry["labels"] + 1, entry["examples"] + 1]
            for shard in entry["shards"]:
                sizes += [shard["rows"], shard["bytes"]]
                if Path(shard["file"]).name != shard["file"] or len(shard["sha256"]) != 64:
                    raise TypeError("a shard's file or sha256")
        if data["max_tokens"] > _MAX_TOKENS:
            raise TypeError(f"max_tokens {data['max_tokens']}")
        if not all(type(n) is int and n >= 1 for n in sizes) or not isinstance(
            data["tokenizer"], str
        ):
            raise TypeError("a count")
    except (KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(f"{folder}/manifest.json is damaged: {error}.") from None
    result: dict[str, Any] = data
    return result


def _open(
    folder: Path, shard: Mapping[str, Any], dtype: np.dtype[np.void], verify: bool
) -> np.memmap[Any, np.dtype[np.void]]:
    path = folder / shard["file"]
    if not path.is_file():
        raise MissingFileError(f"{folder} lacks the shard {shard['file']} of its manifest.")
    size = path.stat().st_size
    if size != shard["bytes"] or size != shard["rows"] * dtype.itemsize:
        raise FileFormatError(
            f"{path} has {size} bytes and the manifest says {shard['bytes']} "
            f"({shard['rows']} rows of {dtype.itemsize}): truncated or tampered with."
        )
    if verify and sha256_file(path) != shard["sha256"]:
        raise FileFormatError(f"{path} does not have the sha256 of its manifest.")
    return np.memmap(path, dtype=dtype, mode="r", shape=(shard["rows"],))
