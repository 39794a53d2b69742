"""Near duplicates: signatures against their mathematics, copies against exact similarities."""

from __future__ import annotations

import json
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError
from sharpen.data import Dataset, ops
from sharpen.data.batch import ID, TEXT, Batch
from sharpen.data.statistics import Texts
from sharpen.data.statistics.minhash import choose_bands, minhash


def signatures(texts: list[str], **options) -> np.ndarray:
    column = Texts(texts)
    return minhash(column.offsets, column.data, **{"window": 5, "lanes": 64, **options})


def shingles(text: str, size: int = 5) -> set[tuple[str, ...]]:
    words = text.lower().split()
    size = min(size, len(words))
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)} if words else set()


def jaccard(one: str, other: str) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b) if a | b else 0.0


@given(
    st.lists(st.text("ab \n\tΣé日", max_size=40), max_size=5),
    st.integers(1, 4),
    st.sampled_from(["words", "space", "characters"]),
    st.booleans(),
)
@settings(max_examples=60)
def test_kernel_and_twin_agree(texts, window, tokens, lowercase):
    options = {"window": window, "lanes": 16, "tokens": tokens, "lowercase": lowercase}
    found = signatures(texts, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHARPEN_NATIVE", "0")
        assert np.array_equal(found, signatures(texts, **options))


def test_the_share_of_equal_lanes_is_the_similarity():
    rng = random.Random(0)
    lanes, errors, wanted = 256, [], []
    for _ in range(400):
        size = rng.randrange(20, 200)
        words = [f"w{rng.randrange(10**9)}" for _ in range(size)]
        other = list(words)
        for place in rng.sample(range(size), rng.randrange(0, size // 8 + 1)):
            other[place] = f"w{rng.randrange(10**9)}"
        one, two = " ".join(words), " ".join(other)
        s = jaccard(one, two)
        a, b = signatures([one, two], lanes=lanes)
        errors.append((a == b).mean() - s)
        wanted.append((s * (1 - s) / lanes) ** 0.5)
    deviation = np.sqrt(np.mean(np.square(wanted)))
    assert abs(np.mean(errors)) < 3 * deviation / len(errors) ** 0.5
    assert np.sqrt(np.mean(np.square(errors))) <= 1.15 * deviation


def test_bands_are_the_published_ones():
    assert choose_bands(256, 0.7) == (25, 10)
    assert choose_bands(128, 0.8) == (9, 13)


def batch_of(texts: list[str]) -> Batch:
    ids = pa.array([str(i) for i in range(len(texts))], pa.string())
    return Batch(pa.RecordBatch.from_pydict({ID: ids, TEXT: pa.array(texts, pa.large_string())}))


def copies(texts: list[str], **options) -> list[int]:
    op = ops.minhash_dedup(**options)
    keys = op.keys(batch_of(texts))
    data = np.frombuffer(keys.buffers()[1], np.uint8).reshape(len(texts), -1)
    return op.copies(data).tolist()


def test_short_texts_are_compared_whole_and_empty_ones_never():
    texts = [
        "red apples",
        "blue sky today",
        "completely different words",
        "Red apples",
        "",
        " ",
        "",
    ]
    assert copies(texts) == [0, 1, 2, 0, 4, 5, 6]


def test_planted_copies_are_found_and_nothing_else():
    rng = random.Random(1)
    vocabulary = [f"word{i}" for i in range(3000)]
    texts, origin = [], []
    for i in range(200):
        words = rng.choices(vocabulary, k=200)
        texts.append(" ".join(words))
        origin.append(len(texts) - 1)
        if i % 2:
            changed = list(words)
            changed[rng.randrange(200)] = "changed"
            texts.append(" ".join(changed))  # similarity about 191/201
            origin.append(origin[-1])
        if i % 5 == 0:
            half = words[:100] + rng.choices(vocabulary, k=100)
            texts.append(" ".join(half))  # about 96/296
            origin.append(len(texts) - 1)
    assert copies(texts) == origin
    assert copies(texts, bands=64, rows=1) == origin
    loose = copies(texts, bands=64, rows=1, verify="none")
    assert sum(a != b for a, b in zip(loose, origin, strict=True)) > 10


def test_the_recipe_of_the_front_page_runs(tmp_path):
    text = "The ship lay still for a week and nobody aboard knew when the wind would come back. "
    rows = [text, text.replace("still", "quiet"), "Something else was written here. " * 3, "short"]
    rows[1] = text * 3 + "end"
    rows.append(text * 3 + "End.")
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in rows))
    result = (
        Dataset.read(path)
        .apply(ops.fix_unicode(), ops.text_length(min=50), ops.minhash_dedup(threshold=0.7))
        .write(tmp_path / "out", trace=True)
    )
    assert (result.rows_in, result.rows_out) == (5, 2)
    assert result.why(4)[0]["kept_id"] == "0"
    assert result.why(1)[0]["kept_id"] == "0"


def test_options_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="threshold=1 must lie between"):
        ops.minhash_dedup(threshold=1)
    with pytest.raises(ConfigError, match="tokens='bytes' must be one of words, space, characters"):
        ops.minhash_dedup(tokens="bytes")
    with pytest.raises(ConfigError, match="both bands and rows"):
        ops.minhash_dedup(bands=4)
    with pytest.raises(ConfigError, match="must fit lanes=16"):
        ops.minhash_dedup(bands=4, rows=8, lanes=16)
