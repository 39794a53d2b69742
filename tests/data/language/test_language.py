"""Languages: by scripts, by a trained model, and by others' packages where they are there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import (
    ConfigError,
    DataError,
    DependencyNotInstalled,
    FileFormatError,
    MissingFileError,
)
from sharpen.data import Dataset, ops
from sharpen.data.language import LanguageModel, detector, script_shares, train
from sharpen.data.language.letters import count_letters, score_letters
from sharpen.data.statistics import Texts

COLUMN = st.lists(st.text(st.sampled_from("abcÉß ,1日Σİ\n"), max_size=20), max_size=4)

# Article 1 of the Universal Declaration of Human Rights, in parts.
SAID = {
    "en": [
        "All human beings are born free and equal in dignity and rights",
        "They are endowed with reason and conscience",
        "and should act towards one another in a spirit of brotherhood",
        "Everyone is entitled to all the rights and freedoms set forth in this declaration",
    ],
    "de": [
        "Alle Menschen sind frei und gleich an Würde und Rechten geboren",
        "Sie sind mit Vernunft und Gewissen begabt",
        "und sollen einander im Geist der Brüderlichkeit begegnen",
        "Jeder hat Anspruch auf die in dieser Erklärung verkündeten Rechte und Freiheiten",
    ],
    "fr": [
        "Tous les êtres humains naissent libres et égaux en dignité et en droits",
        "Ils sont doués de raison et de conscience",
        "et doivent agir les uns envers les autres dans un esprit de fraternité",
        "Chacun peut se prévaloir de tous les droits proclamés dans la présente déclaration",
    ],
}
UNSEEN = {
    "en": "the spirit of the declaration and the dignity of human beings",
    "de": "die Würde der Menschen und der Geist der Freiheiten",
    "fr": "la dignité des êtres humains et tous les droits de la déclaration",
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "languages.safetensors"
    train({code: texts * 6 for code, texts in SAID.items()}, bits=12).save(path)
    return path


@given(COLUMN, st.integers(1, 4))
def test_kernels_and_twins_agree(texts, order):
    column = Texts(texts)
    table = np.random.default_rng(0).normal(size=(256, 3)).astype(np.float32)
    counts, scores = count_letters(column, order, 8), score_letters(column, order, table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHARPEN_NATIVE", "0")
        assert np.array_equal(count_letters(column, order, 8), counts)
        assert np.allclose(score_letters(column, order, table), scores)
    assert np.allclose(scores.sum(0), counts @ table, atol=1e-4)


def test_ngrams_are_those_within_words():
    # " a", "a", "ab", "ab ", "b", "b " and so on: of "ab", with order 2: _a a ab b b_
    assert count_letters(Texts(["ab"]), 2, 20).sum() == 5
    assert count_letters(Texts(["1, ab! "]), 2, 20).sum() == 5
    assert np.array_equal(count_letters(Texts(["A b"]), 3, 8), count_letters(Texts(["a,B"]), 3, 8))
    assert count_letters(Texts(["12 ..."]), 3, 8).sum() == 0


def test_log_probabilities_are_smoothed_counts():
    found = train({"x": ["ab", "ab"], "y": ["b", "b"]}, order=1, bits=8)
    counts = np.stack([count_letters(Texts(["ab"]), 1, 8), count_letters(Texts(["b"]), 1, 8)], 1)
    wanted = np.log((counts + 0.5) / (counts + 0.5).sum(0))
    assert found.table == pytest.approx(wanted, abs=1e-6)
    assert found.about["held_out"] == 2


def test_a_trained_model_tells_languages_that_it_has_learned(model, tmp_path):
    found = LanguageModel.load(model)
    codes, scores = found.detect(Texts([*UNSEEN.values(), "", "123"]))
    assert codes == [*UNSEEN, "und", "und"]
    assert (scores[:3] > 0.8).all()
    assert scores[3:].tolist() == [0, 0]
    assert found.probabilities(Texts(list(UNSEEN.values()))).sum(1) == pytest.approx(np.ones(3))
    assert 0 < found.sharpness <= 1
    assert found.about["accuracy"] == 1
    again = train({code: texts * 6 for code, texts in SAID.items()}, bits=12)
    assert np.array_equal(again.table, found.table)


def test_scripts_are_told_by_letters():
    texts = Texts(["abc", "абвг a", "日本 ここ", "12", "한국 λ"])
    shares = script_shares(texts)
    assert shares["LATIN"].tolist() == [1, 0.2, 0, 0, 0]
    assert shares["CYRILLIC"].tolist() == [0, 0.8, 0, 0, 0]
    assert (shares["HAN"][2], shares["HIRAGANA"][2]) == (0.5, 0.5)
    assert shares["HANGUL"][4] == pytest.approx(2 / 3)
    assert shares["GREEK"][4] == pytest.approx(1 / 3)


def test_a_script_says_which_languages_can_be():
    found = detector("script", model=None, languages=["en", "ja", "zh", "el"])
    texts = ["Hello!", "ここは日本", "中文字", "Ελλάδα abc", "привет", "..."]
    codes, scores = found.detect(Texts(texts))
    assert codes == ["en", "ja", "zh", "el", "und", "und"]
    assert scores == pytest.approx([1, 1, 1, 2 / 3, 0, 0])


def test_the_filter_keeps_texts_of_the_languages(model, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": t}) + "\n" for t in [*UNSEEN.values(), ""]))
    op = ops.language(languages=["en", "fr"], model=str(model))
    result = Dataset.read(rows).apply(op).write(tmp_path / "out", trace=True)
    assert result.rows_out == 2
    assert result.why(1)[0]["reason"] == "its language is de"
    assert result.why(3)[0]["reason"] == "its language is und"
    strict = ops.language(languages=["en"], backend="script", min=0.9)
    rows.write_text('{"text": "abc"}\n{"text": "abc где"}\n')
    result = Dataset.read(rows).apply(strict).write(tmp_path / "latin", trace=True)
    assert result.rows_out == 1
    gone = result.why(1)[0]
    assert (gone["value"], gone["threshold"]) == (0.5, "min=0.9")
    assert op.describe()["model"].startswith("sha256:")


def test_what_cannot_be_asked_is_refused(model, tmp_path):
    for settings, message in [
        ({"languages": []}, "needs languages"),
        ({"backend": "cld9"}, "backend='cld9' must be one of script, ngram"),
        ({"backend": "ngram"}, "needs model: its file.*'script' needs none"),
        ({"backend": "script", "model": str(model)}, "takes no model"),
        ({"backend": "script", "languages": ["xx"]}, "does not know the language xx"),
        ({"model": str(model), "languages": ["en", "it"]}, "does not know the language it; it kno"),
    ]:
        with pytest.raises(ConfigError, match=message):
            ops.language(**settings)
    with pytest.raises(MissingFileError):
        ops.language(model=str(tmp_path / "none"))
    with pytest.raises(MissingFileError):
        ops.language(backend="fasttext", model=str(tmp_path / "none"))
    model.write_bytes(model.read_bytes()[:-4])
    with pytest.raises(FileFormatError):
        ops.language(model=str(model))


def test_what_cannot_be_learned_is_refused():
    with pytest.raises(ConfigError, match="1 languages cannot"):
        train({"en": ["a", "b"]})
    with pytest.raises(ConfigError, match="bits=3"):
        train(SAID, bits=3)
    with pytest.raises(ConfigError, match="order=0"):
        train(SAID, order=0)
    with pytest.raises(DataError, match="language en has 1 texts"):
        train({"en": ["a"], "de": ["b", "c"]})
    with pytest.raises(DataError, match="language de has 2 texts; it needs two with letters"):
        train({"en": ["a", "b"], "de": ["1", "2"]})


@pytest.mark.parametrize("backend", ["lingua", "pycld2"])
def test_a_package_that_is_missing_is_named(backend):
    try:
        __import__(backend)
    except ModuleNotFoundError:
        with pytest.raises(DependencyNotInstalled, match=f"'{backend}' needs .*pip install"):
            ops.language(backend=backend)
    else:
        pytest.skip(f"{backend} is installed")


@pytest.mark.peer
@pytest.mark.parametrize("backend", ["lingua", "pycld2", "fasttext"])
def test_packages_of_others_tell_languages(backend):
    module = pytest.importorskip(backend)
    model = None
    if backend == "fasttext":
        model = os.environ.get("FASTTEXT_LANGUAGES")  # lid.176.ftz, or another model of languages
        if model is None:
            pytest.skip("FASTTEXT_LANGUAGES names no file")
    assert module
    found = detector(backend, model=model, languages=["en"])
    codes, scores = found.detect(Texts([" ".join(SAID[c]) for c in ("en", "de", "fr")] + [""]))
    assert codes[:3] == ["en", "de", "fr"]
    assert (scores[:3] > 0.5).all()
    assert scores[3] < 0.5
