"""BM25 and embeddings: the formula, a peer's record, files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.embedding import open_embedder
from sharpen.core.errors import ConfigError, DataError, FileFormatError, MissingFileError
from sharpen.text.rag import BM25Index, Chunk, EmbeddingIndex, HybridIndex, load_index

TEXTS = ["The cat sat.", "a dog and a cat", "nothing here", "", "dog dog dog"]


def test_scores_follow_the_formula() -> None:
    index = BM25Index(TEXTS, k1=1.2, b=0.6)
    lengths = [3, 5, 2, 0, 3]
    mean = sum(lengths) / 5

    def part(f: int, n: int, length: int) -> float:
        idf = math.log(1 + (5 - n + 0.5) / (n + 0.5))
        return idf * f / (f + 1.2 * (1 - 0.6 + 0.6 * length / mean))

    want = [part(1, 2, 3), part(1, 2, 5) + part(1, 2, 5), 0, 0, part(3, 2, 3)]
    np.testing.assert_allclose(index.scores("cat dog unknown"), want, rtol=1e-12)
    np.testing.assert_allclose(index.scores("cat cat"), 2 * index.scores("cat"), rtol=1e-12)


@pytest.mark.peer
def test_scores_are_those_recorded_of_bm25s(repository: Path) -> None:
    record = json.loads((repository / "benchmarks/text/bm25_record.json").read_text())
    index = BM25Index([" ".join(words) for words in record["documents"]])
    for query, want in zip(record["queries"], record["scores"], strict=True):
        np.testing.assert_allclose(index.scores(" ".join(query)), want, rtol=1e-6, atol=1e-9)


@given(st.lists(st.sampled_from(["a", "a b", "b c d", "d", ""]), max_size=8), st.integers(0, 9))
def test_search_gives_the_first_of_all_sorted(texts: list[str], k: int) -> None:
    index = BM25Index(texts)
    scores = index.scores("a d")
    order = [i for i in sorted(range(len(texts)), key=lambda i: -scores[i]) if scores[i] > 0]
    assert (
        [chunk.id for chunk, _ in index.search("a d", k)] == [str(i) for i in order[:k]]
        if k
        else True
    )


@given(st.lists(st.text(max_size=20), max_size=6))
def test_a_saved_index_is_the_same(tmp_path_factory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("index") / "one.npz"
    chunks = [Chunk(f"f#{i}", text, len(text), "ä.txt") for i, text in enumerate(texts)]
    index = BM25Index(chunks, k1=0.9, b=0.4)
    index.save(path)
    again = BM25Index.load(path)
    assert again.chunks == chunks
    assert (again.k1, again.b, again.vocabulary) == (0.9, 0.4, index.vocabulary)
    for query in (*texts, "x"):
        assert again.scores(query).tolist() == index.scores(query).tolist()


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="rag index"):
        BM25Index.load(tmp_path / "none.npz")
    path = tmp_path / "index.npz"
    BM25Index(TEXTS).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(FileFormatError, match="no index"):
        BM25Index.load(path)
    np.savez(path, x=np.zeros(3))
    with pytest.raises(FileFormatError, match="no index"):
        BM25Index.load(path)
    path.write_bytes(data)
    with np.load(path) as file:
        held = dict(file)
    held["rows"][0] = 99
    np.savez(path, **held)
    with pytest.raises(FileFormatError, match="do not fit"):
        BM25Index.load(path)


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(ConfigError, match="b=2"):
        BM25Index(TEXTS, b=2)
    with pytest.raises(ConfigError, match="two chunks have the id 'x'"):
        BM25Index([Chunk("x", "a", 1), Chunk("x", "b", 1)])


class Letters:
    def encode(self, texts):  # type: ignore[no-untyped-def]
        return [[text.count("a"), text.count("b"), 0.0] for text in texts]


def test_embeddings_are_searched_by_cosine() -> None:
    index = EmbeddingIndex(["aaaa", "ab", "c", "b"], Letters())
    found = index.search("abb", 3)
    assert [chunk.id for chunk, _ in found] == ["1", "3", "0"]
    assert [score for _, score in found] == pytest.approx(
        [3 / math.sqrt(10), 2 / math.sqrt(5), 1 / math.sqrt(5)], rel=1e-6
    )
    assert EmbeddingIndex([], Letters()).search("a") == []


def test_wrong_vectors_are_refused() -> None:
    class Wrong:
        def encode(self, texts):  # type: ignore[no-untyped-def]
            return np.full((len(texts), 2), np.nan)

    with pytest.raises(DataError, match="finite"):
        EmbeddingIndex(["a"], Wrong())


def test_vectors_of_another_embedder_are_refused() -> None:
    class Wide:
        def encode(self, texts):  # type: ignore[no-untyped-def]
            return np.ones((len(texts), 5))

    with pytest.raises(DataError, match="use the embedder that the index was made with"):
        EmbeddingIndex(["a"], Wide(), vectors=np.ones((1, 3), np.float32)).search("a")
    with pytest.raises(DataError, match="2 vectors do not fit 1 chunks"):
        EmbeddingIndex(["a"], Wide(), vectors=np.ones((2, 3), np.float32))


def test_ranks_of_both_lists_are_fused() -> None:
    texts = ["aaaa", "ab b", "c", "b", "abb"]
    index = HybridIndex(BM25Index(texts), EmbeddingIndex(texts, Letters()))
    ranks: dict[str, float] = {}
    for one in (index.words, index.meaning):
        for rank, (chunk, _) in enumerate(one.search("b abb", 3), start=1):
            ranks[chunk.id] = ranks.get(chunk.id, 0) + 1 / (60 + rank)
    found = index.search("b abb", 3)
    assert {c.id: s for c, s in found} == {
        name: pytest.approx(score) for name, score in sorted(ranks.items(), key=lambda x: -x[1])[:3]
    }
    assert [s for _, s in found] == sorted((s for _, s in found), reverse=True)
    with pytest.raises(DataError, match="the same chunks"):
        HybridIndex(BM25Index(texts), EmbeddingIndex(texts[1:], Letters()))


@pytest.mark.asset("wordllama")
def test_an_index_of_both_is_the_same_when_loaded(tmp_path: Path) -> None:
    embedder = open_embedder("wordllama")
    texts = ["The mill burned.", "A ship sank in the storm.", "Fire destroyed the old factory."]
    index = HybridIndex(BM25Index(texts), EmbeddingIndex(texts, embedder))
    path = tmp_path / "both.npz"
    index.save(path, "wordllama")
    again = load_index(path)
    assert isinstance(again, HybridIndex)
    for query in ("Which building burned down?", "vessel"):
        assert again.search(query, 2) == index.search(query, 2)
    assert again.meaning.search("a vessel went under", 1)[0][0].id == "1"
    assert BM25Index.load(path).search("mill") == index.words.search("mill")
    index.words.save(path)
    assert isinstance(load_index(path), BM25Index)


@pytest.mark.asset("wordllama")
def test_damaged_vectors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "both.npz"
    name = np.frombuffer(b"wordllama", np.uint8)
    for vectors in (np.ones((1, 256), np.float32), np.full((2, 256), np.nan, np.float32)):
        BM25Index(["a", "b"]).save(path, vectors=vectors, embedder=name)
        with pytest.raises(FileFormatError, match="no index of chunks"):
            load_index(path)
    BM25Index(["a"]).save(path, vectors=np.ones((1, 256), np.float32))
    with pytest.raises(FileFormatError, match="embedder"):
        load_index(path)
