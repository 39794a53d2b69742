import json

import pytest
import torch

from kv_reading import random_ids
from sharpen.compress.kv import AnsweredText, EvictionConfig, KnormPolicy
from sharpen.compress.kv.answered import answer_nats, answered_texts, compare_policies
from sharpen.core.errors import DataError, MissingFileError
from sharpen.models.decode import prepare_for_inference
from small_models import byte_tokenizer, small_model


def test_the_last_turn_of_the_assistant_is_the_answer(tmp_path):
    rows = [
        {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": "c"},
                {"role": "assistant", "content": "d"},
            ]
        },
        {"prompt": "say e", "completion": "e"},
        {"instruction": "say f", "output": "f"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = byte_tokenizer()
    texts = answered_texts(tmp_path / "a.jsonl", tokenizer)
    answers = [tokenizer.decode(text.answer) for text in texts]
    assert [answer.strip() for answer in answers] == ["d", "e", "f"]
    assert "b" in tokenizer.decode(texts[0].prompt)
    assert len(answered_texts(tmp_path / "a.jsonl", tokenizer, limit=2)) == 2


def test_bad_files_are_told(tmp_path):
    with pytest.raises(MissingFileError):
        answered_texts(tmp_path / "no.jsonl", byte_tokenizer())
    (tmp_path / "a.jsonl").write_text('{"prompt": 3, "completion": "x"}\n')
    with pytest.raises(DataError, match="must be text"):
        answered_texts(tmp_path / "a.jsonl", byte_tokenizer())
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(DataError, match="no prompt with an answer"):
        answered_texts(tmp_path / "a.jsonl", byte_tokenizer())


def test_nats_are_those_of_a_plain_forward_pass():
    text = AnsweredText(random_ids(20), random_ids(5, 1))
    ids = torch.tensor([[*text.prompt, *text.answer]])
    with torch.no_grad():
        chances = torch.log_softmax(small_model()(ids)[0].double(), -1)
    expected = -sum(float(chances[19 + i, token]) for i, token in enumerate(text.answer))
    model = prepare_for_inference(small_model())
    assert answer_nats(model, None, text) == pytest.approx(expected, rel=1e-5)
    policy = KnormPolicy(EvictionConfig(budget=6, chunk=4, stabilizers=2, local=2))
    scores = compare_policies(model, {"full": None, "knorm": policy}, [text])
    assert scores["full"].nats == pytest.approx(expected / 5, rel=1e-5)
    assert (scores["full"].kept, scores["knorm"].kept) == (1.0, pytest.approx(8 / 20))
    assert scores["knorm"].nats != scores["full"].nats
