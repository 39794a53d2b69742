"""Near duplicates: signatures against their mathematics, copies against exact similarities."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_rows import stays
from sharpen.core.errors import ConfigError
from sharpen.data import Dataset, ops
from sharpen.data.statistics import Texts
from sharpen.data.statistics.minhash import choose_bands, minhash
from sharpen.data.statistics.shingles import Shingling


def signatures(texts: list[str], lanes: int = 64, seed: int = 0, **options) -> np.ndarray:
    return minhash(Texts(texts), Shingling(**{"window": 5, **options}), lanes, seed)


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


def copies(folder: Path, texts: list[str], **options) -> list[int]:
    """Of which row each is a copy, in parts of 100 rows."""
    return stays(folder, ops.minhash_dedup(**options), texts)


def test_short_texts_are_compared_whole_and_empty_ones_never(tmp_path):
    texts = [
        "red apples",
        "blue sky today",
        "completely different words",
        "Red apples",
        "",
        " ",
        "",
    ]
    assert copies(tmp_path, texts) == [0, 1, 2, 0, 4, 5, 6]


def test_planted_copies_are_found_and_nothing_else(tmp_path):
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
    assert copies(tmp_path / "a", texts) == origin
    assert copies(tmp_path / "b", texts, bands=64, rows=1) == origin
    assert copies(tmp_path / "c", texts, bands=64, rows=1, verify="exact") == origin
    loose = copies(tmp_path / "d", texts, bands=64, rows=1, verify="none")
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


def near_copies(seed: int, groups: int = 60) -> list[str]:
    """Texts of which many are copies of copies, a few words changed each time."""
    rng = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(2000)]
    texts = []
    for _ in range(groups):
        words = rng.choices(vocabulary, k=rng.randrange(20, 120))
        for _ in range(rng.randrange(1, 5)):
            texts.append(" ".join(words))
            for _ in range(rng.randrange(0, 6)):
                words[rng.randrange(len(words))] = rng.choice(vocabulary)
    rng.shuffle(texts)
    return texts


def test_exact_verification_drops_only_copies_and_finds_as_many_as_the_bands_promise(tmp_path):
    threshold, lanes = 0.7, 128
    wanted, chance = 0, 0.0
    missed = false = 0
    bands, rows = choose_bands(lanes, threshold)
    for seed in range(6):
        texts = near_copies(seed)
        options = {"threshold": threshold, "lanes": lanes, "verify": "exact", "seed": seed}
        of = copies(tmp_path / f"star{seed}", texts, cluster="star", **options)
        groups = copies(tmp_path / f"all{seed}", texts, **options)
        for one in range(len(texts)):
            false += of[one] != one and jaccard(texts[one], texts[of[one]]) < threshold
            assert of[of[one]] == of[one]
            for other in range(one):
                s = jaccard(texts[one], texts[other])
                if s >= threshold:
                    wanted += 1
                    chance += 1 - (1 - s**rows) ** bands
                    missed += groups[one] != groups[other]
    assert wanted > 300
    assert false == 0
    assert wanted - missed >= chance - 3 * wanted**0.5 / 2
    assert missed < 0.2 * wanted


def test_a_chain_of_copies_is_one_group_or_stars(tmp_path):
    words = [f"w{i}" for i in range(60)]
    texts = []
    for step in range(4):  # neighbours share 50 of 62 shingles of one word, others less
        texts.append(" ".join([*words[step * 6 :], *(f"new{i}" for i in range(step * 6))]))
    options = {"threshold": 0.75, "window": 1, "bands": 128, "rows": 2, "verify": "exact"}
    assert copies(tmp_path / "a", texts, **options) == [0, 0, 0, 0]
    assert copies(tmp_path / "b", texts, cluster="star", **options) == [0, 0, 2, 2]


def test_the_longest_or_the_best_of_copies_stays(tmp_path):
    text = "The ship lay still for a week and nobody aboard knew when the wind would come back. "
    path = tmp_path / "in.jsonl"
    given = [(text * 3, 1.0), (text * 4, 2.0), (text * 3 + "end", None), ("else", 0.5)]
    path.write_text("".join(json.dumps({"text": t, "score": s}) + "\n" for t, s in given))
    for keep, stayed in (("longest", 1), ("max:score", 1), ("min:score", 0), ("first", 0)):
        out = tmp_path / keep.replace(":", "")
        result = Dataset.read(path).apply(ops.minhash_dedup(keep=keep)).write(out, trace=True)
        assert result.rows_out == 2
        told = result.why(2)[0]
        assert (told["kept_id"], told["statistic"]) == (str(stayed), "similarity")
        assert told["threshold"] == "min=0.7"
        assert 0.7 <= told["value"] < 1
    with pytest.raises(ConfigError, match="keep='last' must be first"):
        ops.minhash_dedup(keep="last")
