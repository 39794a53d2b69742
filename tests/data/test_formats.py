from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import DataError
from sharpen.data.formats import Document, encode_rows, normalize
from sharpen.models.tokenizer import Tokenizer
from small_models import byte_tokenizer

CHAT, PLAIN = byte_tokenizer(), byte_tokenizer(chat=False)
PAIR = {"prompt": "2 + 2 =", "completion": "4"}


def encode(row: dict[str, Any], tokenizer: Tokenizer, **options: bool) -> tuple[str, str]:
    """The text of a document, and of what is learned of it."""
    (document,) = encode_rows([row], tokenizer, **options)
    assert len(document.ids) == len(document.learned)
    learned = [i for i, keep in zip(document.ids, document.learned, strict=True) if keep]
    return (
        tokenizer.decode(document.ids, skip_special=False),
        tokenizer.decode(learned, skip_special=False),
    )


def test_text_is_learned_whole_with_its_end() -> None:
    assert encode({"text": "ab"}, PLAIN) == ("ab<|im_end|>", "ab<|im_end|>")


def test_only_the_completion_and_its_end_are_learned() -> None:
    assert encode(PAIR, PLAIN) == ("2 + 2 =4<|im_end|>", "4<|im_end|>")


def test_a_chat_model_gets_the_pair_as_turns() -> None:
    turns = "<|im_start|>user\n2 + 2 =<|im_end|>\n<|im_start|>assistant\n4<|im_end|>"
    assert encode(PAIR, CHAT) == (turns, "4<|im_end|>")
    assert encode(PAIR, CHAT, use_template=False) == ("2 + 2 =4<|im_end|>", "4<|im_end|>")


def test_all_is_learned_when_prompts_are_not_masked() -> None:
    for row in (PAIR, {"messages": [{"role": "user", "content": "a"}]}):
        whole, learned = encode(row, CHAT, mask_prompt=False)
        assert learned == whole != ""


def test_every_turn_of_the_assistant_is_learned() -> None:
    talk = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    assert encode({"messages": talk}, CHAT)[1] == "b<|im_end|>d<|im_end|>"


@given(st.text(min_size=1), st.text(min_size=1))
def test_the_prompts_tokens_are_those_seen_when_the_model_is_used(p: str, c: str) -> None:
    (document,) = encode_rows([{"prompt": p, "completion": c}], PLAIN)
    prompt = PLAIN.encode(p)
    assert document.ids[: len(prompt)] == prompt
    assert document.learned == [False] * len(prompt) + [True] * (len(document.ids) - len(prompt))
    assert document.ids[-1] == PLAIN.eos_id


def test_alpaca_becomes_prompt_and_completion() -> None:
    row = {"instruction": "Add.", "input": "1, 2", "output": "3", "more": 1}
    assert normalize(row, "alpaca", "x:1") == {"prompt": "Add.\n\n1, 2", "completion": "3"}
    row["input"] = ""
    assert normalize(row, "alpaca", "x:1")["prompt"] == "Add."


def test_other_formats_keep_their_keys_alone() -> None:
    assert normalize({"text": "a", "id": 4}, "text", "x:1") == {"text": "a"}
    assert normalize({**PAIR, "id": 4}, "prompt_completion", "x:1") == PAIR
    talk = [{"role": "assistant", "content": "b"}]
    assert normalize({"messages": talk, "id": 4}, "chat", "x:1") == {"messages": talk}


@pytest.mark.parametrize(
    ("row", "form", "message"),
    [
        ({"prompt": "a"}, "prompt_completion", "the key 'completion' is missing; found: prompt"),
        ({}, "text", "the key 'text' is missing; found: none"),
        ({"text": 5}, "text", "'text' must be text, got 5"),
        ({"text": None}, "text", "'text' must be text, got None"),
        ({"text": " \n"}, "text", "'text' is empty"),
        ({"text": "\ud800"}, "text", "half a surrogate pair"),
        ({"instruction": "a", "input": 5, "output": "b"}, "alpaca", "'input' must be text"),
        ({"messages": []}, "chat", "non-empty list"),
        ({}, "chat", "non-empty list"),
        ({"messages": [{"role": "user", "content": "a"}]}, "chat", "nothing is learned"),
        ({"messages": [{"role": "assistant", "content": "\udc00"}]}, "chat", "as JSON"),
        ({"messages": [{"role": "assistant", "content": "a", "b": b"x"}]}, "chat", "as JSON"),
    ],
)
def test_rows_without_what_their_format_needs_are_refused(
    row: dict[str, Any], form: Any, message: str
) -> None:
    with pytest.raises(DataError, match=f"^f.jsonl:7: ?.*{message}"):
        normalize(row, form, "f.jsonl:7")


def test_a_template_that_does_not_continue_its_prompt_is_refused() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{{ messages|length }}{% if add_generation_prompt %}?{% endif %}"
    with pytest.raises(DataError, match="template: none"):
        list(encode_rows([PAIR], tokenizer))


def test_progress_counts_every_row() -> None:
    done: list[int] = []
    texts = [{"text": str(i)} for i in range(1500)]
    documents = list(encode_rows(texts, PLAIN, on_progress=done.append))
    assert done == [1024, 476]
    assert documents[1499] == Document([*PLAIN.encode("1499"), 2], [True] * 5)


def test_a_tokenizer_without_an_end_token_adds_none() -> None:
    tokenizer = Tokenizer(byte_tokenizer().backend, {})
    assert encode({"text": "ab"}, tokenizer) == ("ab", "ab")
    assert encode(PAIR, tokenizer)[1] == "4"
