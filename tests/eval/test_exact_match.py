"""Exact match: normalization, and answers as the decoding loop gives them."""

import json

import pytest

from sharpen.core.errors import ConfigError, DataError
from sharpen.eval import ExactMatchConfig, load_task, normalize_answer, score_exact_match
from sharpen.models import generate
from small_models import byte_tokenizer, small_model


@pytest.mark.parametrize(
    ("text", "options", "wanted"),
    [
        ("\n  The Sea. \nmore", {}, "the sea"),
        ("\n  The Sea. \nmore", {"ignore_articles": True}, "sea"),
        ("\n  The Sea. \nmore", {"ignore_case": False}, "The Sea"),
        ("\n  The Sea. \nmore", {"ignore_punctuation": False}, "the sea."),
        ("\n  The Sea. \nmore", {"extract": "all"}, "the sea more"),
        ("I get 12, then 1,024.5!", {"extract": "last_number"}, "1024.5"),
        ("minus -3", {"extract": "last_number"}, "-3"),
        ("none", {"extract": "last_number"}, ""),
        ("", {}, ""),
        ("another thesis", {"ignore_articles": True}, "another thesis"),
    ],
)
def test_normalization(text, options, wanted):
    assert normalize_answer(text, ExactMatchConfig(**options)) == wanted


def test_normalization_is_idempotent():
    config = ExactMatchConfig(ignore_articles=True)
    for text in ("The cat, a hat", "  x\ny ", "U.S.A."):
        once = normalize_answer(text, config)
        assert normalize_answer(once, config) == once


def task_of(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_task(path)


def test_what_the_model_says_is_right_and_anything_else_is_wrong(tmp_path):
    model, tokenizer = small_model(seed=5, std=0.4), byte_tokenizer()
    prompts = ["one", "two words", "three", "f", "five"]
    config = ExactMatchConfig(max_new_tokens=6, batch_size=2, extract="all")
    said = [
        tokenizer.decode(
            generate(model, [tokenizer.encode(p)], max_new_tokens=6, stop_ids={2})[0].ids
        )
        for p in prompts
    ]
    rows = [
        {"prompt": p, "answer": ["?", s] if n != 1 and s.strip() else "something else"}
        for n, (p, s) in enumerate(zip(prompts, said, strict=True))
    ]
    task = task_of(tmp_path / "t.jsonl", rows)
    seen = []
    result = score_exact_match(model, tokenizer, task, config, on_progress=seen.append)
    assert result.outputs == tuple(said)
    assert result.exact_match == sum(len(r["answer"]) == 2 for r in rows) / 5
    assert sum(seen) == 5
    assert score_exact_match(model, tokenizer, task, config, limit=1).count == 1


def test_what_cannot_be_asked_is_refused(tmp_path):
    long = task_of(tmp_path / "long.jsonl", [{"prompt": "x" * 250, "answer": "y"}])
    with pytest.raises(DataError, match=r"long\.jsonl:1: the prompt has 250 tokens"):
        score_exact_match(small_model(), byte_tokenizer(), long)
    choice = task_of(tmp_path / "c.jsonl", [{"prompt": "x", "choices": ["a", "b"], "answer": 0}])
    with pytest.raises(DataError, match="it has choices"):
        score_exact_match(small_model(), byte_tokenizer(), choice)
    with pytest.raises(ConfigError, match="max_new_tokens=0"):
        ExactMatchConfig(max_new_tokens=0)
    with pytest.raises(ConfigError, match="batch_size=0"):
        ExactMatchConfig(batch_size=0)
