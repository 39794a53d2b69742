from typing import Any

import pytest
from tokenizers import processors

from sharpen.align.rows import prompt_ids, tokenize_rows
from sharpen.align.rows.parse import parse_row
from sharpen.core.errors import ConfigError, DataError
from sharpen.models.tokenizer import Tokenizer
from small_models import SPECIALS, byte_tokenizer

EOS = 2


def tokens(row: dict[str, Any], tokenizer: Tokenizer | None = None, **options: Any) -> Any:
    tokenizer = tokenizer or byte_tokenizer(chat=False)
    return tokenize_rows([parse_row(row, "f:1")], tokenizer, **options)


def test_texts_are_taken_as_they_are_and_end() -> None:
    tokenizer = byte_tokenizer()
    row = tokens({"prompt": "ab", "completion": " c"}, tokenizer).rows[0]
    assert tokenizer.decode(row.prompt) == "ab"
    assert row.completions == [[*tokenizer.encode(" c"), EOS]]
    assert row.masks == [[True, True, True]]
    assert len(row) == 5


def test_a_first_bos_belongs_to_prompts_alone() -> None:
    tokenizer = byte_tokenizer(chat=False)
    tokenizer.backend.post_processor = processors.TemplateProcessing(
        single=f"{SPECIALS[0]} $A {SPECIALS[2]}",
        special_tokens=[(SPECIALS[0], 0), (SPECIALS[2], 2)],
    )
    row = tokens({"prompt": "a", "completion": "b"}, tokenizer).rows[0]
    assert row.prompt == [0, *tokenizer.encode("a")]
    assert row.completions == [[*tokenizer.encode("b"), EOS]]


def test_conversations_follow_the_template_and_end_once() -> None:
    tokenizer = byte_tokenizer()
    prompt = [{"role": "user", "content": "hi"}]
    answer = [{"role": "assistant", "content": "yo"}]
    row = tokens({"prompt": prompt, "completion": answer}, tokenizer).rows[0]
    text = tokenizer.decode(row.prompt, skip_special=False)
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(row.completions[0], skip_special=False) == "yo<|im_end|>"
    plain = tokens({"prompt": "hi", "completion": "yo"}, tokenizer, use_template=True).rows[0]
    assert (plain.prompt, plain.completions) == (row.prompt, row.completions)
    assert prompt_ids("hi", tokenizer, use_template=True) == row.prompt


def test_a_template_that_closes_no_turn_gets_the_end_token() -> None:
    open_ended = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    config = {"eos_token": "<|im_end|>", "chat_template": open_ended}
    config["chat_template"] += "{% if add_generation_prompt %}assistant: {% endif %}"
    tokenizer = Tokenizer(byte_tokenizer().backend, config)
    row = tokens({"prompt": "hi", "completion": "yo"}, tokenizer, use_template=True).rows[0]
    assert row.completions == [[*tokenizer.encode("yo"), EOS]]


def test_only_the_assistants_words_of_a_conversation_are_learned() -> None:
    tokenizer = byte_tokenizer()
    turns = [("user", "hi"), ("assistant", "yo"), ("user", "and?"), ("assistant", "no")]
    row = tokens({"messages": [{"role": r, "content": c} for r, c in turns]}, tokenizer).rows[0]
    learned = [i for i, on in zip(row.completions[0], row.masks[0], strict=True) if on]
    assert tokenizer.decode(learned, skip_special=False) == "yo<|im_end|>no<|im_end|>"


def test_what_is_too_long_is_refused_dropped_or_loses_its_end() -> None:
    row = {"prompt": "abc", "completion": "defg"}  # 3 + 5 tokens
    assert len(tokens(row, max_length=8).rows) == 1
    with pytest.raises(DataError, match=r"f:1: completion too long: 3 \+ 5 tokens, max_length=7"):
        tokens(row, max_length=7)
    assert tokens(row, max_length=7, on_long="drop").dropped == {"completion too long": 1}
    cut = tokens(row, max_length=5, on_long="cut")
    assert cut.cut == 1
    assert byte_tokenizer().decode(cut.rows[0].completions[0]) == "de"
    assert EOS not in cut.rows[0].completions[0]
    assert cut.rows[0].masks == [[True, True]]


@pytest.mark.parametrize("on_long", ["drop", "cut"])
def test_prompts_are_never_cut(on_long: str) -> None:
    row = {"prompt": "abc", "completion": "d"}
    found = tokens(row, max_length=3, on_long=on_long)
    assert (found.rows, found.dropped) == ([], {"prompt leaves no room": 1})
    found = tokens(row, max_prompt=2, on_long=on_long)
    assert found.dropped == {"prompt too long": 1}
    with pytest.raises(DataError, match="prompt too long: 3 tokens, max_prompt=2"):
        tokens(row, max_prompt=2)


def test_wrong_settings_and_missing_templates_are_named() -> None:
    with pytest.raises(ConfigError, match="max_length=1"):
        tokens({"prompt": "a"}, max_length=1)
    with pytest.raises(ConfigError, match="on_long='trim'"):
        tokens({"prompt": "a"}, on_long="trim")
    with pytest.raises(DataError, match=r"f:1: .*no chat template"):
        tokens({"prompt": [{"role": "user", "content": "a"}]})
