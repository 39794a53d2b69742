"""Language models of n-grams: trained ones against the formulas, scores against KenLM's."""

from __future__ import annotations

import gzip
import math
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError, DataError, FileFormatError, MissingFileError
from sharpen.data import Dataset, ops
from sharpen.data.ngram import NgramModel, load_model, read_arpa, train, write_arpa
from sharpen.data.ngram.estimate import discounts
from sharpen.data.statistics import Texts

WORDS = ["a", "b", "c", "é", "the"]
SENTENCE = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)
CORPUS = st.lists(SENTENCE, min_size=1, max_size=12)
ODD = st.text(st.sampled_from("ab \n\t\r\f\v\x1c\x1f\x85\xa0\u2028\u3000éΣ😀"), max_size=30)

ARPA = """\\data\\
ngram 1=6
ngram 2=6
ngram 3=4

\\1-grams:
-1.2\t</s>
-99\t<s>\t-0.31
-0.7\ta\t-0.25
-0.9\tb\t-0.5
-1.1\té\t-0.125
-1.5\tx\xa0y

\\2-grams:
-0.4\t<s> a\t-0.2
-0.55\ta b\t-0.33
-0.6\tb a\t-0.1
-0.65\ta a
-0.8\tb </s>
-0.35\té b\t-0.4

\\3-grams:
-0.2\t<s> a b
-0.3\ta b a
-0.15\tb a a
-0.45\té b </s>

\\end\\
"""
OPEN = ARPA.replace("-0.65\ta a\n", "").replace("ngram 2=6", "ngram 2=5")
# kenlm 0.3.0: [s for s, _, _ in kenlm.Model(file).full_scores(text)]
KENLM = [
    (ARPA, "", [-1.51]),
    (ARPA, "a b a a", [-0.4, -0.2, -0.3, -0.15, -1.45]),
    (ARPA, "zzz a b", [-100.309998, -0.7, -0.55, -1.13]),
    (ARPA, "é b", [-1.41, -0.35, -0.45]),
    (ARPA, "x\xa0y b a b", [-1.81, -0.9, -0.6, -0.65, -1.13]),
    (ARPA, "b b zzz zzz a", [-1.21, -1.4, -100.5, -100.0, -0.7, -1.45]),
    (ARPA, "a b </s> a", [-0.4, -0.2, -1.13, -0.7, -1.45]),
    (OPEN, "a b a a", [-0.4, -0.2, -0.3, -0.15, -1.45]),
    (OPEN, "b a a b", [-1.21, -0.6, -0.15, -0.55, -1.13]),
    (OPEN, "a a a b a a a", [-0.4, -1.15, -0.95, -0.55, -0.3, -0.15, -0.95, -1.45]),
]


# lmplz of KenLM 0.3.0: lmplz -o 3 --discount_fallback [--prune 0 0 1], then the scores of words.
LEARNED = [
    "the cat sat on the mat",
    "the dog sat on the rug",
    "a cat and a dog ran",
    "the cat ran to the dog",
    "a dog sat on a mat and a cat sat on a rug",
    "the rug and the mat",
    "on the mat the dog ran to a cat",
    "the cat is the cat",
]
LMPLZ = {
    (0,): {
        "the cat sat on a rug": [
            *(-0.456158, -1.215604, -0.99143, -0.527181, -0.494632, -0.669687, -0.470009)
        ],
        "a bird sat on the cat": [
            *(-1.087756, -1.508558, -1.286231, -0.891105, -0.635558, -1.273681, -0.853137)
        ],
        "": [-1.093439],
    },
    (0, 0, 1): {
        "the cat sat on a rug": [
            *(-0.456158, -1.174375, -1.231556, -0.527181, -0.494632, -0.885294, -0.837655)
        ],
        "a bird sat on the cat": [
            *(-1.087756, -1.397066, -1.286231, -0.891105, -0.635558, -1.234322, -0.966128)
        ],
    },
}


@pytest.fixture(params=["native", "twin"])
def way(request, monkeypatch):
    if request.param == "twin":
        monkeypatch.setenv("SHARPEN_NATIVE", "0")
    return request.param


class Reference:
    """Chen and Goodman's equations, word by word, in dictionaries."""

    def __init__(self, corpus: list[str], order: int, prune: list[int]) -> None:
        self.order, self.prune = order, prune
        sentences = [["<s>", *text.split(), "</s>"] for text in corpus]
        self.words = {word for s in sentences for word in s} - {"<s>"} | {"<unk>"}
        self.raw = [
            Counter(tuple(s[i : i + n]) for s in sentences for i in range(len(s) - n + 1))
            for n in range(1, order + 1)
        ]
        del self.raw[0]["<s>",]
        self.adjusted = []
        for n in range(1, order + 1):
            if n == order:
                self.adjusted.append(dict(self.raw[n - 1]))
                continue
            before = Counter(longer[1:] for longer in self.raw[n])
            self.adjusted.append(
                {g: c if g[0] == "<s>" else before[g] for g, c in self.raw[n - 1].items()}
            )
        self.discounts = [self._discounts(list(a.values())) for a in self.adjusted]

    @staticmethod
    def _discounts(adjusted: list[int]) -> list[float]:
        t = [adjusted.count(k) for k in range(5)]
        if 0 in t[1:4]:
            return [0, 0.5, 1, 1.5]
        y = t[1] / (t[1] + 2 * t[2])
        found = [0, *(k - (k + 1) * y * t[k + 1] / t[k] for k in (1, 2, 3))]
        fits = all(0 <= d <= k for k, d in enumerate(found))
        return found if fits else [0, 0.5, 1, 1.5]

    def p(self, word: str, context: tuple[str, ...]) -> float:
        n = len(context) + 1
        d = self.discounts[n - 1]
        following = {g: a for g, a in self.adjusted[n - 1].items() if g[:-1] == context}
        total = sum(following.values())
        if n == 1:
            gamma = sum(d[min(a, 3)] for a in following.values()) / total
            lower = 1 / len(self.words)
        else:
            lower = self.p(word, context[1:])
            if not total or self.raw[n - 2].get(context, 0) <= self.prune[n - 2] > 0:
                return lower
            kept = {g: self.raw[n - 1][g] > self.prune[n - 1] for g in following}
            gamma = sum(d[min(a, 3)] if kept[g] else a for g, a in following.items()) / total
            if not kept.get((*context, word), False):
                return gamma * lower
        own = following.get((*context, word), 0)
        return (own - d[min(own, 3)]) / total + gamma * lower


@given(CORPUS, st.integers(1, 4), st.sampled_from([[0], [0, 0, 1], [0, 1], [0, 1, 1, 2]]))
@settings(max_examples=40)
def test_probabilities_are_those_of_the_formulas_and_sum_to_one(corpus, order, prune):
    model = train(corpus, order, prune=prune)
    limits = (prune + [prune[-1]] * order)[:order]
    reference = Reference(corpus, order, limits)
    for sentence in [*corpus[:2], "a unheard the", "b b b"]:
        tokens = ["<s>", *sentence.split(), "</s>"]
        found = model.scores(tokens[1:-1])
        for i in range(1, len(tokens)):
            known = tokens[i] if tokens[i] in reference.words else "<unk>"
            context = tuple(tokens[max(0, i - order + 1) : i])
            assert found[i - 1] == pytest.approx(math.log10(reference.p(known, context)), abs=2e-6)
    for context in ["", "a", "b the", "a b c", "é é"]:
        words = context.split()
        mass = [model.scores([*words, word], end=False)[-1] for word in reference.words]
        assert sum(10.0**s for s in mass) == pytest.approx(1, abs=2e-6)


@given(CORPUS, st.integers(1, 5), st.booleans())
@settings(max_examples=30)
def test_kernels_and_twins_make_the_same_model(corpus, order, lines):
    text = ["\n".join(corpus)] if lines else corpus
    one = train(text, order, lines=lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHARPEN_NATIVE", "0")
        other = train(text, order, lines=lines)
        scores = other.scores(["a", "é", "nothing", "b"])
        lines = written(other)
    assert np.array_equal(one.data, other.data)
    assert np.array_equal(one.places, other.places)
    assert np.array_equal(one.unigrams, other.unigrams)
    assert all(np.array_equal(a, b) for a, b in zip(one.tables, other.tables, strict=True))
    assert one.scores(["a", "é", "nothing", "b"]) == pytest.approx(scores, abs=1e-12)
    assert one.about == other.about
    assert written(one) == lines


def written(model: NgramModel) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_arpa(model, Path(folder) / "m.arpa")
        return (Path(folder) / "m.arpa").read_bytes()


def test_discounts_are_those_of_the_paper():
    adjusted = np.array([1] * 10 + [2] * 5 + [3] * 3 + [4] * 2 + [9] * 7)
    y = 10 / 20
    wanted = (1 - 2 * y * 5 / 10, 2 - 3 * y * 3 / 5, 3 - 4 * y * 2 / 3)
    assert discounts(adjusted) == pytest.approx(wanted)
    assert discounts(np.array([1, 1, 2])) == (0.5, 1.0, 1.5)


@pytest.mark.parametrize("prune", LMPLZ)
def test_training_gives_what_lmplz_gives(prune, way):
    model = train(LEARNED, 3, prune=prune)
    assert model.ngrams == [15, 34, 7 if prune[-1] else 48]
    for text, wanted in LMPLZ[prune].items():
        assert model.scores(text.split()) == pytest.approx(wanted, abs=2e-6)


@pytest.mark.parametrize(("arpa", "text", "wanted"), KENLM)
def test_scores_are_those_of_kenlm(arpa, text, wanted, way, tmp_path):
    path = tmp_path / "model.arpa"
    path.write_text(arpa)
    assert read_arpa(path).scores(text.encode().decode().split(" ") if text else []) == (
        pytest.approx(wanted, abs=1e-5)
    )


@pytest.mark.peer
def test_scores_are_those_of_kenlm_beside_it(tmp_path):
    kenlm = pytest.importorskip("kenlm")
    pages = sorted((Path(__file__).parents[3] / "docs").rglob("*.md"))
    texts = [page.read_text() for page in pages]
    path = tmp_path / "docs.arpa"
    write_arpa(train(texts[:-5], 5, prune=[0, 0, 1]), path)
    ours, peer = read_arpa(path), kenlm.Model(str(path))
    for text in texts[-8:]:
        words = text.split()
        wanted = [score for score, _, _ in peer.full_scores(" ".join(words))]
        assert ours.scores(words) == pytest.approx(wanted, abs=1e-4)


def told(model: NgramModel, text: str) -> float:
    """The rule, by Python's own strings: words joined by spaces, lines by ``splitlines``."""
    joined = " ".join(w for w in text.replace("\n", " ").replace("\t", " ").split(" ") if w)
    score, length = 0.0, 0
    for line in joined.splitlines():
        score += model.score([word.decode() for word in line.encode().split()])
        length += len(line.split()) + 1
    return round(10 ** (-score / length), 1) if length else 0.0


MODEL = train(["a b ab", "b a aa é", "Σ a\rb"], 3)


@given(st.lists(ODD, max_size=5))
def test_perplexity_follows_the_rule(texts):
    column = Texts(texts)
    found = MODEL.perplexities(column)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHARPEN_NATIVE", "0")
        assert MODEL.perplexities(column) == pytest.approx(found, abs=1e-9)
    assert found == pytest.approx([told(MODEL, text) for text in texts], abs=0.1001)
    assert [f == 0 for f in found] == [told(MODEL, text) == 0 for text in texts]


def test_files_come_back_as_they_were(tmp_path, way):
    model = train(["a b c a b", "b c é", "c a the b c"], 4)
    model.save(tmp_path / "m.bin")
    write_arpa(model, tmp_path / "m.arpa.gz")
    assert gzip.decompress((tmp_path / "m.arpa.gz").read_bytes()).startswith(b"\\data\\\nngram 1=")
    for found in (load_model(tmp_path / "m.bin"), load_model(tmp_path / "m.arpa.gz")):
        assert found.ngrams == model.ngrams
        for text in (["a", "b", "c", "é"], ["c", "a", "new"]):
            assert np.array_equal(found.scores(text), model.scores(text))
    again = load_model(tmp_path / "m.bin")
    again.save(tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "m.bin").read_bytes()
    assert again.about == model.about
    assert "order=4" in repr(again)


def test_reserved_words_and_line_ends_part_sentences(way):
    model = train(["a <s> b </s>\na\fc"], 2)
    assert model.about["sentences"] == 2
    assert model.about["tokens"] == 6  # a b a </s>, c </s>
    assert train(["a <s> b </s>\na\fc"], 2, lines=True).about["sentences"] == 3


def test_a_damaged_file_is_refused(tmp_path, way):
    path = tmp_path / "m.bin"
    MODEL.save(path)
    whole = path.read_bytes()
    for data, message in [
        (whole[:-10], "cut short|damaged"),
        (whole + b"x", "not as long"),
        (b"something else" * 9, "no language model"),
        (whole[:16] + (10).to_bytes(8, "little") + whole[24:], "header"),
        (whole.replace(b'"format_version": 1', b'"format_version": 7'), "format 7"),
    ]:
        path.write_bytes(data)
        with pytest.raises(FileFormatError, match=message):
            NgramModel.load(path)
    begin = whole.index(MODEL.places.tobytes())
    path.write_bytes(
        whole[:begin] + b"\x77" * MODEL.places.nbytes + whole[begin + MODEL.places.nbytes :]
    )
    with pytest.raises(FileFormatError, match="do not fit"):
        NgramModel.load(path)
    table = MODEL.tables[0]
    full = table.copy()
    full["key"][full["key"] == (1 << 64) - 1] = (99 << 32) + 7  # no slot is empty
    path.write_bytes(whole.replace(table.tobytes(), full.tobytes()))
    odd = NgramModel.load(path)
    assert len(odd.scores(["a", "b", "unknown"])) == 4  # it comes to an end
    with pytest.raises(FileFormatError, match="n-grams of 2 words are damaged"):
        write_arpa(odd, tmp_path / "m.arpa")
    with pytest.raises(MissingFileError):
        load_model(tmp_path / "nothing.bin")
    with pytest.raises(MissingFileError):
        load_model(tmp_path / "nothing.arpa")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("\\data\\", "data"), "begins with"),
        (("ngram 2=6", "ngram 2=7"), "a count is wrong"),
        (("ngram 2=6", "ngram 4=6"), "ngram 2=... is missing"),
        (("\\end\\", ""), "cut short"),
        (("-0.55\ta b", "-0.55\ta q"), "none of the 1-grams"),
        (("-0.55\ta b", "x\ta b"), "no number"),
        (("-1.2\t</s>\n", "-1.2\tw\n"), "</s> is missing"),
        (("-0.65\ta a", "-0.65\ta b"), "twice"),
        (("-0.3\ta b a", "-0.3\té a a"), "no n-gram of its first 2"),
        (("\\3-grams:", "\\4-grams:"), "3-grams: is missing"),
    ],
)
def test_a_wrong_arpa_file_is_refused_with_the_line(change, message, tmp_path):
    path = tmp_path / "m.arpa"
    path.write_text(ARPA.replace(*change))
    with pytest.raises(FileFormatError, match=rf"m.arpa:\d+: .*{message}"):
        read_arpa(path)


def test_what_cannot_be_trained_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="order=9"):
        train(["a"], 9)
    with pytest.raises(ConfigError, match="begin with 0"):
        train(["a"], 3, prune=[1])
    with pytest.raises(ConfigError, match="not decrease"):
        train(["a"], 3, prune=[0, 2, 1])
    with pytest.raises(DataError, match="no words"):
        train(["", " \n"], 2)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a b"}\n{"text": 3}\n')
    with pytest.raises(DataError, match="must be text"):
        train(path, 2)
    with pytest.raises(ConfigError, match="has operators"):
        train(Dataset.read(path).apply(ops.text_length()), 2)


def test_texts_come_from_files_and_data_sets(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a b"}\n{"text": "b a c"}\n')
    models = [
        train(path, 2),
        train(Dataset.read(path), 2),
        train([path], 2),
        train(["a b", "b a c"], 2),
    ]
    for one, other in pairwise(models):
        assert np.array_equal(one.tables[0], other.tables[0])


def test_the_filter_drops_what_the_model_did_not_expect(tmp_path):
    prose = ["the cat sat on the mat", "the dog sat on the mat", "a cat sat on a mat"]
    model = train(prose, 3)
    model.save(tmp_path / "m.bin")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "the cat sat on a mat"}\n{"text": "zxq wvu rts"}\n{"text": ""}\n')
    keeps = ops.perplexity(model=str(tmp_path / "m.bin"), max=10)
    result = Dataset.read(rows).apply(keeps).write(tmp_path / "out", trace=True)
    assert result.rows_out == 2
    gone = result.why(1)[0]
    assert (gone["statistic"], gone["threshold"]) == ("perplexity", "max=10")
    assert gone["value"] == model.perplexity("zxq wvu rts")
    assert keeps.describe()["model"].startswith("sha256:")
    with pytest.raises(ConfigError, match="needs model"):
        ops.perplexity()
    with pytest.raises(MissingFileError, match="no model"):
        ops.perplexity(model="nothing.bin")
