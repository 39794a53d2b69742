import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError, DataError, FileFormatError, MissingFileError
from sharpen.data import shards
from sharpen.data.formats import Document
from sharpen.data.shards import IGNORE, PADDING, TokenDataset, write_dataset
from small_models import save_small_dataset


def write(folder: Path, documents: list[Document], **changes: Any) -> dict[str, Any]:
    options = {
        "max_tokens": 12,
        "packing": True,
        "tokenizer_fingerprint": "t",
        "vocab_size": 300,
        "pad_id": 9,
        **changes,
    }
    return write_dataset(folder, {"train": documents}, **options)


def document(ids: list[int]) -> Document:
    return Document(ids, [True] * len(ids))


def read(dataset: TokenDataset) -> list[tuple[list[int], list[int]]]:
    """Every document: its inputs, and its labels with -100."""
    found = []
    for row in dataset:  # type: ignore[attr-defined]
        for number in sorted(set(row.document_ids.tolist()) - {PADDING}):
            place = row.document_ids == number
            assert row.position_ids[place].tolist() == list(range(int(place.sum())))
            found.append((row.input_ids[place].tolist(), row.labels[place].tolist()))
    return found


@st.composite
def many_documents(draw: st.DrawFn) -> tuple[list[Document], int]:
    vocab_size = draw(st.sampled_from([40, 1 << 16, (1 << 16) + 1, 200_000]))
    ids = st.lists(st.integers(0, vocab_size - 1), min_size=2, max_size=13)
    documents = draw(st.lists(ids, min_size=1, max_size=12))
    masks = [draw(st.lists(st.booleans(), min_size=len(d), max_size=len(d))) for d in documents]
    return [Document(d, m) for d, m in zip(documents, masks, strict=True)], vocab_size


@given(many_documents(), st.booleans(), st.sampled_from([1, 100, 1 << 20]))
def test_any_documents_come_back_with_shifted_labels(
    tmp_path_factory: pytest.TempPathFactory,
    case: tuple[list[Document], int],
    packing: bool,
    shard_bytes: int,
) -> None:
    documents, vocab_size = case
    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "_SHARD_BYTES", shard_bytes)
        manifest = write(folder, documents, vocab_size=vocab_size, packing=packing)
    dataset = TokenDataset(folder, verify=True)
    expected = [
        (
            d.ids[:-1],
            [i if m else IGNORE for i, m in zip(d.ids[1:], d.learned[1:], strict=True)],
        )
        for d in documents
    ]
    assert sorted(read(dataset)) == sorted(expected)
    if not packing:
        assert len(dataset) == len(documents)
        assert read(dataset) == expected
    entry = manifest["splits"]["train"]
    assert dataset.num_tokens == entry["tokens"] == sum(len(e[0]) for e in expected)
    assert dataset.num_labels == sum(x != IGNORE for e in expected for x in e[1])
    assert (dataset.num_examples, len(dataset)) == (len(documents), entry["rows"])
    if shard_bytes == 1:
        assert len(entry["shards"]) == len(dataset)
    for row in dataset:  # type: ignore[attr-defined]
        empty = row.document_ids == PADDING
        assert (row.input_ids[empty] == 9).all()
        assert (row.labels[empty] == IGNORE).all()
        assert (row.position_ids[empty] == 0).all()
        assert {a.dtype for a in (row.input_ids, row.labels, row.position_ids)} == {
            np.dtype(np.int64)
        }


def test_the_same_documents_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, [document([5, 6, 7]), document([8, 9])])
    for file in ("manifest.json", "train-00000.bin"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    one, two = TokenDataset(tmp_path / "a"), TokenDataset(tmp_path / "b")
    assert one.fingerprint == two.fingerprint
    (tmp_path / "c").mkdir()
    write(tmp_path / "c", [document([5, 6, 7]), document([8, 10])])
    assert TokenDataset(tmp_path / "c").fingerprint != one.fingerprint


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([5, 300], "outside 0..299: wrong tokenizer"),
        ([-1, 5], "outside 0..299"),
        ([5], "has 0 tokens"),
        ([5] * 14, "has 13 tokens"),
    ],
)
def test_documents_that_cannot_be_stored_are_refused(
    tmp_path: Path, ids: list[int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write(tmp_path, [document(ids)])
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize("ids", [[5], [5] * 14])
def test_documents_that_do_not_fit_a_row_of_their_own_are_refused(
    tmp_path: Path, ids: list[int]
) -> None:
    with pytest.raises(DataError, match="does not fit 12 tokens"):
        write(tmp_path, [document(ids)], packing=False)


def test_another_tokenizer_and_a_missing_split_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [document([5, 6])])
    assert len(TokenDataset(tmp_path, tokenizer_fingerprint="t")) == 1
    with pytest.raises(ConfigError, match="another tokenizer"):
        TokenDataset(tmp_path, tokenizer_fingerprint="u")
    with pytest.raises(MissingFileError, match="no split 'test'; it has: train"):
        TokenDataset(tmp_path, "test")
    with pytest.raises(MissingFileError, match="token data set"):
        TokenDataset(tmp_path / "absent")
    with pytest.raises(IndexError, match="row 1 of 1"):
        TokenDataset(tmp_path)[1]


def test_a_split_without_documents_has_no_rows(tmp_path: Path) -> None:
    write(tmp_path, [])
    assert len(TokenDataset(tmp_path)) == 0


def test_a_shard_that_was_cut_changed_or_lost_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [document([5, 6, 7])])
    path = tmp_path / "train-00000.bin"
    raw = path.read_bytes()
    path.write_bytes(raw[:-1])
    with pytest.raises(FileFormatError, match="truncated or tampered with"):
        TokenDataset(tmp_path)
    path.write_bytes(bytes([raw[0] ^ 1]) + raw[1:])
    TokenDataset(tmp_path)
    with pytest.raises(FileFormatError, match="sha256"):
        TokenDataset(tmp_path, verify=True)
    path.unlink()
    with pytest.raises(MissingFileError, match=r"lacks the shard train-00000\.bin"):
        TokenDataset(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": 2},
        {"max_tokens": 0},
        {"max_tokens": 10**12},
        {"max_tokens": "12"},
        {"max_tokens": 13},
        {"vocab_size": None},
        {"vocab_size": True},
        {"tokenizer": 5},
        {"splits": []},
        {"splits": {"train": 5}},
        {"splits": {"train": {"tokens": 1, "labels": 1, "examples": 1}}},
        {"splits": {"train": {"tokens": -2, "labels": 1, "examples": 1, "shards": []}}},
    ],
)
def test_a_manifest_that_lies_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    manifest = write(tmp_path, [document([5, 6, 7])])
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(FileFormatError):
        TokenDataset(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"file": "../x.bin"}, {"file": 5}, {"sha256": "ab"}, {"sha256": 5}, {"rows": 2}, {"bytes": 1}],
)
def test_a_manifest_that_lies_about_a_shard_is_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    manifest = write(tmp_path, [document([5, 6, 7])])
    manifest["splits"]["train"]["shards"][0].update(change)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FileFormatError):
        TokenDataset(tmp_path)


def test_examples_come_back_as_text_even_with_odd_line_ends(tmp_path: Path) -> None:
    dataset = save_small_dataset(tmp_path / "d", rows=3)
    rows = [{"text": "a\u2028b\x85c\x0c\n"}, {"text": "é"}]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "d" / "valid.jsonl").write_bytes(lines.encode())
    assert dataset.examples() == rows
    assert dataset.examples(1) == rows[:1]
    (tmp_path / "d" / "valid.jsonl").write_text("{")
    with pytest.raises(FileFormatError, match=r"valid\.jsonl is damaged"):
        dataset.examples()
    assert TokenDataset(tmp_path / "d", "train").examples() == []
