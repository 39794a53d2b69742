"""Copies by meaning: vectors against their definition, clusters against all pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from data_rows import stays
from sharpen.core.embedding import open_embedder
from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError
from sharpen.data import Dataset, ops

WORDS = [f"w{i}" for i in range(300)]


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A table of 300 words, 16 wide."""
    folder = tmp_path / "model"
    folder.mkdir()
    rng = np.random.default_rng(0)
    save_file(
        {"embedding": rng.normal(size=(301, 16)).astype(np.float16)}, folder / "model.safetensors"
    )
    vocabulary = {word: i for i, word in enumerate(["[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(folder)


def drawn(count: int, seed: int = 0) -> list[str]:
    """Texts of which many are others with a word exchanged or moved."""
    rng = np.random.default_rng(seed)
    found: list[str] = []
    for _ in range(count):
        words = rng.choice(WORDS, 25).tolist()
        if found and rng.random() < 0.5:
            words = found[rng.integers(len(found))].split()
            words[rng.integers(25)] = WORDS[rng.integers(300)]
        found.append(" ".join(words))
    return found


def test_a_text_is_the_mean_of_its_tokens(model: str) -> None:
    embedding = open_embedder(model)
    found = embedding.encode(["w3 w7 w7", "", "unknown"])
    mean = (embedding.table[4] + 2 * embedding.table[8]) / 3
    assert np.allclose(found[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert not found[1].any()
    unknown = embedding.table[0] / np.linalg.norm(embedding.table[0])
    assert np.allclose(found[2], unknown, atol=1e-6)


@pytest.mark.parametrize("cluster", ["components", "star"])
def test_all_pairs_of_few_rows_are_compared(tmp_path: Path, model: str, cluster: str) -> None:
    texts = [*drawn(200), "", ""]
    op = ops.semantic_dedup(model=model, threshold=0.9, cluster=cluster)
    of = stays(tmp_path / "rows", op, texts)
    vectors = open_embedder(model).encode(texts).astype(np.float64)
    near = vectors @ vectors.T >= 0.9
    if cluster == "star":
        wanted: list[int] = []
        for i in range(len(texts)):
            kept = [j for j in range(i) if near[i, j] and wanted[j] == j]
            wanted.append(min(kept, default=i))
    else:
        wanted = list(range(len(texts)))
        for _ in range(30):
            wanted = [
                min([wanted[i], *(wanted[j] for j in np.nonzero(near[i])[0])])
                for i in range(len(texts))
            ]
    assert of == wanted
    assert of[-2:] == [200, 201]  # nothing means nothing
    assert sum(a != b for a, b in enumerate(of)) > 50


def test_clusters_miss_few_pairs_of_many_rows(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = drawn(1500, seed=1)
    op = ops.semantic_dedup(model=model, threshold=0.93, cluster="star")
    whole = stays(tmp_path / "whole", op, texts)
    monkeypatch.setattr("sharpen.data.ops.dedup.semantic._WHOLE", 100)
    monkeypatch.setattr("sharpen.data.ops.dedup.semantic._CLUSTER", 150)
    parted = stays(tmp_path / "parted", op, texts)
    dropped = [{i for i, j in enumerate(of) if i != j} for of in (whole, parted)]
    assert len(dropped[0]) > 200
    assert len(dropped[0] & dropped[1]) > 0.9 * len(dropped[0])
    assert len(dropped[1] - dropped[0]) < 0.05 * len(dropped[0])


def test_copies_are_traced_with_their_cosine(tmp_path: Path, model: str) -> None:
    texts = ["w1 w2 w3 w4", "w4 w3 w2 w1", "w200 w201"]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    op = ops.semantic_dedup(model=model)
    result = Dataset.read(path).apply(op).write(tmp_path / "out", trace=True)
    (told,) = result.why(1)
    assert (told["kept_id"], told["statistic"], told["threshold"]) == (
        "0",
        "similarity",
        "min=0.95",
    )
    assert abs(told["value"] - 1) < 1e-6


def test_tables_that_do_not_fit_are_refused(tmp_path: Path, model: str) -> None:
    with pytest.raises(ConfigError, match="threshold=2"):
        ops.semantic_dedup(model=model, threshold=2)
    with pytest.raises(MissingFileError, match="no embedding nowhere"):
        ops.semantic_dedup(model="nowhere")
    (Path(model) / "tokenizer.json").rename(tmp_path / "t.json")
    with pytest.raises(MissingFileError, match=r"no tokenizer.json"):
        ops.semantic_dedup(model=model)
    (tmp_path / "t.json").rename(Path(model) / "tokenizer.json")
    save_file({"a": np.zeros((5, 16), np.float32)}, Path(model) / "model.safetensors")
    with pytest.raises(FileFormatError, match="5 rows for 301 tokens"):
        open_embedder(model)


@pytest.mark.asset("wordllama")
def test_sentences_that_mean_the_same_are_close() -> None:
    embedding = open_embedder("wordllama")
    one, two, other = embedding.encode(
        [
            "A man is eating food.",
            "A man is eating a piece of bread.",
            "The stock market fell sharply on Tuesday.",
        ]
    )
    assert abs(float(one @ two) - 0.707) < 0.01  # what the package itself says
    assert float(one @ other) < 0.3
