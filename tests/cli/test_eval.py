import json
import math

import pytest
from typer.testing import CliRunner

from sharpen.cli.main import build_app
from sharpen.eval import windowed_loss
from sharpen.models import load_model, load_tokenizer
from small_models import save_small_model

TEXT = "The sea is deep and wide. " * 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("eval")
    save_small_model(root / "tiny")
    (root / "text.txt").write_text(TEXT)
    rows = [{"prompt": "x", "choices": ["a", "b"], "answer": 0}] * 3
    (root / "pick.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "say.jsonl").write_text(json.dumps({"prompt": "x", "answer": "y"}))
    return root


def invoke(*arguments):
    words = [str(a) for a in arguments]
    return CliRunner().invoke(build_app(words), words)


def test_one_json_document_with_texts_and_tasks(folder):
    done = invoke(
        "eval", folder / "tiny", "--text", folder / "text.txt", "--window", 64, "--stride", 32,
        "--max-tokens", 100, "--task", folder / "pick.jsonl", "--task", folder / "say.jsonl",
        "--max-new-tokens", 2, "--limit", 2, "--json",
    )  # fmt: skip
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    ids = load_tokenizer(folder / "tiny").encode(TEXT)[:100]
    loss, tokens = windowed_loss(load_model(folder / "tiny"), ids, window=64, stride=32)
    (text,) = document["texts"]
    assert text["tokens"] == tokens == 99
    assert text["perplexity"] == pytest.approx(math.exp(loss))
    assert [(t["name"], t["kind"], t["count"]) for t in document["tasks"]] == [
        ("pick", "choice", 2),
        ("say", "exact_match", 1),
    ]


def test_people_get_a_table(folder):
    done = invoke(
        "eval", folder / "tiny", "--text", folder / "text.txt", "--window", "64",
        "--task", folder / "pick.jsonl",
    )  # fmt: skip
    assert done.exit_code == 0
    assert "perplexity" in done.stdout
    assert "acc_norm" in done.stdout
    assert "3 questions" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "at least one --text FILE or --task FILE"),
        (["--text", "nothing.txt"], "no such text file"),
        (["--task", "nothing.jsonl"], "no such task file"),
        (["--text", "{}/text.txt", "--dtype", "int3"], "float32 or bfloat16, got 'int3'"),
        (["--text", "{}/text.txt", "--limit", "0"], "--limit must be at least 1"),
        (["--text", "{}/text.txt", "--window", "9999"], "context of 256"),
        (["--task", "{}/say.jsonl", "--extract", "some"], "extract"),
        (["--text", "{}/text.txt", "--adapter", "nothing"], "no such file"),
    ],
)
def test_wrong_usage_says_what_is_right(folder, options, message):
    done = invoke("eval", folder / "tiny", *(o.format(folder) for o in options), "--json")
    assert done.exit_code == 2
    assert message in json.loads(done.stdout)["error"]["message"]
