"""Word vectors of codes against the definitions, word by word."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError, DataError, DependencyNotInstalled, FileFormatError
from sharpen.data.bitcipher import BitCipher, WordVectors, make_codes, probe
from sharpen.data.bitcipher.codes import least_bits, noise

DOCUMENTS = st.lists(st.lists(st.sampled_from("abcde"), max_size=12), min_size=1, max_size=4)
ORDERS = ["colex", "lex", "balanced"]
PROSE = [
    "the cat sat on the mat and the dog sat on the rug",
    "a cat and a dog ran to the mat",
    "the dog ran and the cat ran",
]


@given(st.integers(1, 6), st.data(), st.sampled_from(ORDERS))
def test_codes_are_distinct_and_have_more_bits_by_rank(bits, data, order):
    words = data.draw(st.integers(1, 2**bits - 1))
    frequencies = np.sort(data.draw(st.lists(st.integers(1, 99), min_size=words, max_size=words)))
    codes = make_codes(frequencies[::-1], bits, order)
    dense = codes.dense()
    assert len({tuple(row) for row in dense.tolist()}) == words
    weights = dense.sum(1)
    assert (weights == codes.weights).all()
    assert weights[0] == 1
    assert (np.diff(weights) >= 0).all()
    assert (weights[:bits] == 1).all()
    assert all((np.diff(codes.active[a:b]) > 0).all() for a, b in itertools.pairwise(codes.first))


def test_orders_of_equally_many_bits():
    frequencies = np.array([9, 8, 7, 6, 5, 4, 3, 2])
    colex, lex = (make_codes(frequencies, 4, order).dense() for order in ("colex", "lex"))
    pairs = [tuple(np.nonzero(row)[0]) for row in colex[4:]]
    assert pairs == [(0, 1), (0, 2), (1, 2), (0, 3)]
    assert [tuple(np.nonzero(row)[0]) for row in lex[4:]] == [(0, 1), (0, 2), (0, 3), (1, 2)]
    balanced = make_codes(frequencies, 4, "balanced").dense()
    # Loads of the single bits are 9, 8, 7, 6: the pair that bears least is (2, 3).
    assert [tuple(np.nonzero(row)[0]) for row in balanced[4:6]] == [(2, 3), (0, 1)]


def test_too_few_bits_are_refused_with_the_least():
    assert [least_bits(n) for n in (1, 3, 4, 7, 8)] == [1, 2, 3, 3, 4]
    with pytest.raises(ConfigError, match=r"8 words; the least is bits=4"):
        make_codes(np.ones(8), 3)
    assert make_codes(np.ones(7), 3).dense()[-1].tolist() == [1, 1, 1]
    with pytest.raises(ConfigError, match="order='best'"):
        make_codes(np.ones(2), 3, "best")
    with pytest.raises(ConfigError, match="least is bits=4"):
        BitCipher(bits=3, min_count=1).fit([list("abcdefghi")])


@given(st.sampled_from(["none", "uniform", "frequency"]), st.floats(0, 0.9))
def test_vectors_of_codes_are_distributions(kind, q):
    frequencies = np.array([50, 20, 10, 5, 2, 1, 1])
    codes = make_codes(frequencies, 3)
    base, scale = noise(frequencies, codes, kind, q)
    vectors = base[:, None] + scale[:, None] * codes.dense()
    assert vectors.sum(1) == pytest.approx(np.ones(7))
    assert (vectors >= -1e-12).all()
    outside = 1 - (vectors * codes.dense()).sum(1)
    wanted = {
        "none": np.zeros(7),
        "uniform": np.full(7, q),
        "frequency": q * (1 - np.log(frequencies) / math.log(50)),
    }[kind]
    assert outside[:-1] == pytest.approx(wanted[:-1])
    assert outside[-1] == pytest.approx(0)  # it has all bits


def defined(documents: list[list[str]], cipher: BitCipher) -> tuple[list[str], np.ndarray]:
    """Words and vectors, by the definitions."""
    counts = Counter(word for document in documents for word in document)
    words = sorted(counts, key=lambda w: (-counts[w], w))
    codes = make_codes(np.array([counts[w] for w in words]), cipher.bits, cipher.order)
    base, scale = noise(np.array([counts[w] for w in words]), codes, cipher.noise, cipher.q)
    vectors = {w: base[i] + scale[i] * codes.dense()[i] for i, w in enumerate(words)}
    offsets = [o for o in range(-cipher.window, cipher.window + 1) if o]
    blocks = [[o] for o in offsets] if cipher.mode == "concat" else [offsets]
    found = np.zeros((len(words), len(blocks), cipher.bits))
    for k, block in enumerate(blocks):
        pairs = Counter(
            (document[i], document[i + o])
            for document in documents
            for i in range(len(document))
            for o in block
            if 0 <= i + o < len(document)
        )
        total = sum(pairs.values())
        rows, columns = Counter(), Counter()
        for (w, t), c in pairs.items():
            rows[w] += c
            columns[t] += c
        for (w, t), c in pairs.items():
            g = {
                "count": c,
                "log": math.log(1 + c),
                "ppmi": max(0.0, math.log(c * total / (rows[w] * columns[t]))),
            }[cipher.weight]
            found[words.index(w), k] += g * vectors[t]
    return words, found.reshape(len(words), -1)


@given(
    DOCUMENTS,
    st.sampled_from(["sum", "concat"]),
    st.sampled_from(["count", "log", "ppmi"]),
    st.integers(1, 3),
    st.sampled_from(["none", "frequency"]),
)
@settings(max_examples=60)
def test_vectors_are_the_weighted_sums(documents, mode, weight, window, kind):
    cipher = BitCipher(
        bits=4, mode=mode, weight=weight, window=window, noise=kind, min_count=1, normalize=False
    )
    if not any(documents):
        with pytest.raises(DataError, match="none of 0 words"):
            cipher.fit(documents)
        return
    words, wanted = defined(documents, cipher)
    found = cipher.fit(documents)
    assert found.words == words
    assert found.vectors == pytest.approx(wanted, rel=1e-6, abs=1e-6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHARPEN_NATIVE", "0")
        assert cipher.fit(documents).vectors == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_blocks_of_counts_add_up_to_the_sum():
    settings = {"bits": 5, "weight": "count", "min_count": 1, "window": 3, "normalize": False}
    documents = [text.split() for text in PROSE]
    apart = BitCipher(mode="concat", **settings).fit(documents)
    whole = BitCipher(mode="sum", **settings).fit(documents)
    blocks = apart.vectors.reshape(len(apart), 6, 5)
    assert blocks.sum(1) == pytest.approx(whole.vectors, abs=1e-6)


def test_texts_lists_and_ids_give_the_same(tmp_path):
    cipher = BitCipher(bits=6, min_count=2)
    lists = cipher.fit([text.split() for text in PROSE])
    texts = cipher.fit(PROSE)
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in PROSE))
    files = cipher.fit(tmp_path / "rows.jsonl")
    ids = {w: i * 3 for i, w in enumerate(sorted({w for text in PROSE for w in text.split()}))}
    arrays = cipher.fit([np.array([ids[w] for w in text.split()]) for text in PROSE])
    assert lists.words == texts.words == files.words
    assert np.array_equal(lists.vectors, texts.vectors)
    assert np.array_equal(lists.vectors, files.vectors)
    by_id = {v: k for k, v in ids.items()}
    assert {by_id[int(w)] for w in arrays.words} == set(lists.words)
    upper = BitCipher(bits=6, min_count=2, lowercase=True).fit([t.upper() for t in PROSE])
    assert np.array_equal(upper.vectors, lists.vectors)
    upper = BitCipher(bits=6, min_count=2, lowercase=True).fit([t.upper().split() for t in PROSE])
    assert np.array_equal(upper.vectors, lists.vectors)


def test_rare_words_keep_their_places_and_max_vocab_cuts():
    documents = [["a", "b", "rare", "a", "b"]]
    cipher = BitCipher(bits=2, window=1, weight="count", min_count=2, normalize=False)
    found = cipher.fit(documents)
    assert found.words == ["a", "b"]
    # a is [1, 0], b is [0, 1]: a has b at its right twice, and rare, which is nothing.
    assert found.vectors.tolist() == [[0, 2], [2, 0]]
    assert BitCipher(bits=2, min_count=1, max_vocab=1).fit(documents).words == ["a"]


def test_own_codes_centering_and_length():
    documents = [text.split() for text in PROSE]
    plain = BitCipher(bits=5, min_count=1, normalize=False).fit(documents)
    centered = BitCipher(bits=5, min_count=1, normalize=False, center=True).fit(documents)
    share = plain.frequencies / plain.frequencies.sum()
    assert share @ centered.vectors == pytest.approx(np.zeros(5), abs=1e-6)
    own = BitCipher(bits=5, min_count=1, own_code=True, normalize=False).fit(documents)
    codes = make_codes(plain.frequencies, 5)
    assert own.vectors[:, :5] == pytest.approx(codes.dense() / codes.weights[:, None])
    assert np.array_equal(own.vectors[:, 5:], plain.vectors)
    unit = BitCipher(bits=5, min_count=1).fit(documents)
    assert np.linalg.norm(unit.vectors, axis=1) == pytest.approx(np.ones(len(unit)), abs=1e-6)


def test_threads_do_not_change_a_bit(tmp_path):
    program = (
        "import sys, numpy as np; from sharpen.data.bitcipher import BitCipher; "
        "rng = np.random.default_rng(0); ids = (rng.zipf(1.3, 20000) % 900).astype(np.int64); "
        "np.save(sys.argv[1], BitCipher(bits=20, window=2).fit(ids).vectors)"
    )
    made = []
    for threads in ("1", "3"):
        out = tmp_path / f"{threads}.npy"
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-c", program, str(out)], env=environment, check=True)
        made.append(out.read_bytes())
    assert made[0] == made[1]


def test_similar_words_and_means():
    found = BitCipher(bits=6, min_count=2, window=1).fit(PROSE)
    cosine = found.vectors @ found["cat"]
    best, value = found.most_similar("cat", 1)[0]
    order = [w for w in np.argsort(-cosine, kind="stable") if found.words[w] != "cat"]
    assert best == found.words[order[0]]
    assert value == pytest.approx(cosine[order[0]], abs=1e-6)
    assert len(found.most_similar("cat", 99)) == len(found) - 1
    means = found.transform([["cat", "unknown", "dog"], ["unknown"]])
    assert means[0] == pytest.approx((found["cat"] + found["dog"]) / 2)
    assert not means[1].any()
    assert found.transform([]).shape == (0, 6)
    assert "cat" in found and "unknown" not in found
    with pytest.raises(DataError, match="'unknown' has no vector"):
        found.most_similar("unknown")


def test_files_come_back_as_they_were(tmp_path):
    cipher = BitCipher(bits=6, min_count=2, mode="concat", window=1)
    found = cipher.fit(PROSE)
    path = tmp_path / "v.safetensors"
    found.save(path)
    read = WordVectors.load(path)
    assert (read.words, read.made_by) == (found.words, cipher)
    assert np.array_equal(read.vectors, found.vectors)
    assert np.array_equal(read.frequencies, found.frequencies)
    path.write_bytes(path.read_bytes().replace(b"word_ends", b"word_odds"))
    with pytest.raises(FileFormatError, match="damaged"):
        WordVectors.load(path)


def test_vectors_become_gensims(monkeypatch):
    found = BitCipher(bits=6, min_count=2).fit(PROSE)
    try:
        import gensim  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(DependencyNotInstalled, match="pip install gensim"):
            found.to_gensim()
        return
    keyed = found.to_gensim()
    assert keyed.most_similar("cat", topn=1)[0][0] == found.most_similar("cat", 1)[0][0]


@pytest.mark.parametrize("width", [4, 6, 16])
def test_an_embedding_gets_the_vectors(width):
    import torch

    torch.manual_seed(0)
    ids = np.array([0, 2, 4, 2, 0, 6, 2, 4, 0, 2, 6, 6, 4, 9])
    found = BitCipher(bits=6, min_count=2, window=2).fit(ids)
    embedding = torch.nn.Embedding(8, width)
    torch.nn.init.normal_(embedding.weight, std=0.02)
    before = embedding.weight.detach().clone()
    std = float(before.std())
    assert found.init_embedding(embedding, scale=2.0) == 4
    rows = embedding.weight.detach()[[0, 2, 4, 6]]
    assert torch.equal(embedding.weight.detach()[[1, 3, 5, 7]], before[[1, 3, 5, 7]])
    assert float(rows.std(unbiased=False)) == pytest.approx(2 * std, rel=1e-4)
    assert float(rows.mean(0).abs().max()) < 1e-6
    order = [found.vocab[str(i)] for i in (0, 2, 4, 6)]
    centered = found.vectors[order] - found.vectors[order].mean(0)
    if width >= 6:  # angles stay
        ours, theirs = rows.double().numpy(), centered.astype(np.float64)
        scale = np.trace(ours @ ours.T) / np.trace(theirs @ theirs.T)
        assert ours @ ours.T == pytest.approx(scale * theirs @ theirs.T, abs=1e-6)
    words = BitCipher(bits=6, min_count=2).fit(PROSE)
    assert words.init_embedding(embedding, {"cat": 1, "mat": 3, "unused": 5}) == 2
    with pytest.raises(DataError, match="no word"):
        words.init_embedding(embedding, {"unused": 5})
    assert embedding.weight.requires_grad


def tagged(n: int) -> list[list[list[tuple[str, str]]]]:
    rng = np.random.default_rng(n)
    documents = []
    for _ in range(20):
        sentences = []
        for _ in range(10):
            noun, verb = f"n{rng.integers(30)}", f"v{rng.integers(30)}"
            sentences.append([("the", "DET"), (noun, "NOUN"), (verb, "VERB"), (".", ".")])
        documents.append(sentences)
    return documents


def test_a_probe_finds_what_contexts_tell():
    train, test = tagged(0), tagged(1)
    unseen = [[[("the", "DET"), ("n99", "NOUN"), ("v99", "VERB"), (".", ".")]] * 6]
    words = [[w for s in d for w, _ in s] for d in [*train, *test, *unseen]]
    found = BitCipher(bits=12, mode="concat", window=1, min_count=5).fit(words)
    result = probe(found.vectors, found.vocab, train, [*test, *unseen])
    assert result.accuracy == 1
    assert result.accuracy_unseen == 1
    assert result.majority == pytest.approx(0.25)
    assert result.word_majority < 1  # n99 and v99 have no tag in training
    assert result.known == 1
    assert result.tokens == 20 * 40 + 24
    around = probe(found.vectors, {}, train, test, context=1)
    assert around.accuracy == pytest.approx(0.25)  # no word has a vector
    assert around.known == 0
    some = probe(found.vectors, found.vocab, train, test, context=1, most=100)
    assert some.accuracy > 0.95
    with pytest.raises(ConfigError, match="context=-1"):
        probe(found.vectors, found.vocab, train, test, context=-1)
    with pytest.raises(DataError, match="no tagged words"):
        probe(found.vectors, found.vocab, [], test)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 0}, "bits=0"),
        ({"window": 0}, "window=0"),
        ({"min_count": 0}, "min_count=0"),
        ({"max_vocab": 0}, "max_vocab=0"),
        ({"mode": "mean"}, "mode='mean' must be one of sum, concat"),
        ({"weight": "tf"}, "weight='tf'"),
        ({"noise": "white"}, "noise='white'"),
        ({"q": 1.0}, "q=1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        BitCipher(**settings)


def test_what_is_no_document_is_refused():
    with pytest.raises(DataError, match="must be a list of words"):
        BitCipher().fit([[["a"]]])
    with pytest.raises(DataError, match="integers in one row"):
        BitCipher().fit(np.zeros((2, 2)))
    with pytest.raises(DataError, match="ids must lie between"):
        BitCipher().fit(np.array([-1, 3]))
    with pytest.raises(DataError, match="none of 3 words occurs 5 times"):
        BitCipher().fit(["a b c"])
