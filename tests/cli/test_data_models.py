"""``sharpen data lm``, ``quality`` and ``bitcipher``, as their commands are registered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sharpen.cli.common import new_app
from sharpen.cli.data_models import register

PROSE = ["the cat sat on the mat", "the dog sat on the mat", "a cat sat on a mat"]


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in PROSE))
    return path


def call(*words: Any, code: int = 0) -> str:
    app = new_app("data")
    register(app)
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return str(done.stdout if code == 0 else done.output)


def test_a_language_model_is_trained_and_scores(corpus: Path) -> None:
    found = json.loads(call("lm", "train", corpus, "-o", "m.bin", "--order", 3, "--json"))
    assert (found["tokens"], found["sentences"]) == (21, 3)
    assert found["ngrams"][0] == 3 + len({w for text in PROSE for w in text.split()})
    scored = json.loads(call("lm", "score", "m.bin", corpus, "--json"))
    assert scored["statistic"] == "perplexity"
    assert 1 < scored["quantiles"]["0.5"] < 10
    assert "3 texts" in call("lm", "score", "m.bin", corpus)
    assert "n-grams of 1 to 2" in call("lm", "train", corpus, "-o", "m.arpa.gz", "--order", 2)
    again = json.loads(call("lm", "score", "m.arpa.gz", corpus, "--json"))
    assert again["texts"] == 3


def test_a_classifier_is_trained_and_scores(corpus: Path) -> None:
    for name, word in (("good", "calm"), ("bad", "cheap")):
        texts = [f"{word} {word} number{i}" for i in range(40)]
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (corpus.parent / f"{name}.jsonl").write_text(rows)
    line = ["quality", "train", "--good", "good.jsonl", "--bad", "bad.jsonl", "-o", "m.safetensors"]
    found = json.loads(call(*line, "--held-out", 0.3, "--bits", 10, "--json"))
    assert found["metrics"]["auc"] == 1
    assert (found["good"], found["bad"]) == (40, 40)
    assert "held out" in call(*line, "--held-out", 0.3, "--force")
    scored = json.loads(call("quality", "score", "m.safetensors", "good.jsonl", "--json"))
    assert scored["quantiles"]["0.05"] > 0.5


def test_word_vectors_are_made_and_asked(corpus: Path) -> None:
    line = ["bitcipher", "fit", corpus, "-o", "v.safetensors", "--bits", 4, "--min-count", 2]
    found = json.loads(call(*line, "--mode", "concat", "--window", 1, "--json"))
    assert (found["words"], found["dimensions"]) == (6, 8)
    assert "6 words, 4 dimensions" in call(*line, "--force")
    similar = json.loads(call("bitcipher", "similar", "v.safetensors", "cat", "--n", 2, "--json"))
    assert len(similar["similar"]) == 2
    assert similar["similar"][0]["word"] in call("bitcipher", "similar", "v.safetensors", "cat")
    assert "one of sum, concat" in call(*line, "--force", "--mode", "mean", code=2)


def test_a_file_is_not_replaced_unasked(corpus: Path) -> None:
    call("lm", "train", corpus, "-o", "m.bin")
    assert "--force" in call("lm", "train", corpus, "-o", "m.bin", code=2)
    call("lm", "train", corpus, "-o", "m.bin", "--force")
    assert "numbers parted" in call("lm", "train", corpus, "-o", "n.bin", "--prune", "x", code=2)
    assert "no such language model" in call("lm", "score", "n.bin", corpus, code=2)
