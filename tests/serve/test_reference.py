"""What a reference keeps, its file, and the prompts it is made of."""

import json
import math

import pytest
import torch
import torch.nn.functional as F

from sharpen.core.errors import ConfigError, DataError, FileFormatError, MissingFileError
from sharpen.serve import LLM, Reference, make_reference, read_prompts
from sharpen.serve.reference import COMMON, bucket_counts, held_out_prompts, prompt_nats
from small_models import byte_tokenizer, save_small_model, small_model

PROMPTS = [[1 + i % 3, 2, 2, 200 + i % 80] for i in range(50)]
NATS = [None if i % 2 else 1.0 + i for i in range(50)]


def made():
    return Reference.of(PROMPTS, NATS, tokenizer="t")


def test_common_tokens_have_buckets_of_their_own_and_others_share():
    reference = made()
    assert reference.common[0] == 2
    assert len(reference.common) == min(COMMON, len({t for p in PROMPTS for t in p}))
    seen = reference.observe([2, 2, 1, 5000, 5000 + 64], 3.5)
    one = reference.common.index(1)
    assert seen.buckets == {0: 2, one: 1, COMMON + 5000 % 64: 2}
    assert (seen.length, seen.nats) == (5, 3.5)
    counts = bucket_counts([seen])
    assert counts.shape == (1, 128)
    assert counts.sum() == 5


def test_a_file_gives_the_reference_back(tmp_path):
    reference = made()
    reference.save(tmp_path / "r.json")
    assert Reference.load(tmp_path / "r.json") == reference
    assert "PROMPTS" not in repr(reference)


def test_too_few_or_empty_prompts_are_refused():
    with pytest.raises(DataError, match="at least 40 prompts"):
        Reference.of(PROMPTS[:39], NATS[:39], tokenizer="t")
    with pytest.raises(DataError, match="none of them empty"):
        Reference.of([*PROMPTS, []], [*NATS, None], tokenizer="t")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: {"format_version": 2},
        lambda d: {"prompts": d["prompts"][:10]},
        lambda d: {"prompts": [[4, None, [[500, 4]]], *d["prompts"]]},
        lambda d: {"prompts": [[4, None, [[1, 5]]], *d["prompts"]]},
        lambda d: {"prompts": [[0, None, []], *d["prompts"]]},
        lambda d: {"prompts": [[1, 2], *d["prompts"]]},
        lambda d: {"prompts": 3},
        lambda d: {"common": ["x"]},
    ],
)
def test_a_file_that_lies_is_refused(tmp_path, change):
    file = tmp_path / "r.json"
    made().save(file)
    file.write_text(json.dumps({**(document := json.loads(file.read_text())), **change(document)}))
    with pytest.raises(FileFormatError, match="is not a monitoring reference"):
        Reference.load(file)


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="monitoring reference"):
        Reference.load(tmp_path / "no.json")
    (tmp_path / "r.json").write_text("[]")
    with pytest.raises(FileFormatError, match="is not a monitoring reference"):
        Reference.load(tmp_path / "r.json")


def test_another_tokenizer_is_refused():
    made().check("t")
    with pytest.raises(ConfigError, match="another tokenizer"):
        made().check("u")


def test_nats_are_the_mean_cross_entropy_of_the_first_tokens():
    model = small_model()
    ids = torch.randint(3, 300, (150,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(ids[None, :127])[0]
        expected = float(F.cross_entropy(logits, ids[1:128]))
    assert prompt_nats(model, ids.tolist()) == pytest.approx(expected, rel=1e-5)
    assert prompt_nats(model, [5]) is None


def test_prompts_are_read_and_wrong_rows_named(tmp_path):
    file = tmp_path / "p.jsonl"
    messages = [{"role": "user", "content": "hi"}]
    file.write_text(f'{{"prompt": "a\\u2028b"}}\n\n{{"messages": {json.dumps(messages)}}}\n')
    assert read_prompts(file) == ["a\u2028b", messages]
    for bad, message in (("{", ":4: not JSON"), ('{"text": "x"}', ":4: a row needs"), ("3", ":4:")):
        file.write_text("\n\n\n" + bad)
        with pytest.raises(DataError, match=message):
            read_prompts(file)
    with pytest.raises(MissingFileError, match="no such file of prompts"):
        read_prompts(tmp_path / "none")


def test_prompts_are_encoded_and_scored_as_the_server_sees_them(tmp_path):
    llm = LLM(save_small_model(tmp_path / "m"), dtype="float32")
    texts = [f"number {i}" for i in range(40)]
    chats = [[{"role": "user", "content": text}] for text in texts]
    plain, chat = make_reference(llm, texts), make_reference(llm, chats)
    assert plain.tokenizer == byte_tokenizer().fingerprint
    assert [p.length for p in plain.prompts] == [len(llm.encode(t)) for t in texts]
    assert [p.length for p in chat.prompts] == [len(llm.encode_chat(c)) for c in chats]
    assert all(p.nats is not None and math.isfinite(p.nats) for p in plain.prompts)


def test_held_out_examples_become_what_clients_send(tmp_path):
    file = tmp_path / "valid.jsonl"
    turns = [{"role": r, "content": r} for r in ("user", "assistant", "user", "assistant")]
    rows = [{"prompt": "p", "completion": "c"}, {"messages": turns}, {"text": "t"}, {"text": "u"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    user = {"role": "user", "content": "p"}
    assert held_out_prompts(file, 3, chat=True) == [[user], turns[:3], "t"]
    assert held_out_prompts(file, 1, chat=False) == ["p"]
