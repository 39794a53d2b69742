"""Task files: what is accepted, and what a bad row's error says."""

import json

import pytest

from sharpen.core.errors import DataError, MissingFileError
from sharpen.eval import load_task
from small_models import byte_tokenizer

GOOD_CHOICE = {"prompt": "2 + 2 =", "choices": [" 3", " 4"], "answer": 1}
GOOD_MATCH = {"prompt": "Capital?", "answer": ["Paris", "paris"], "id": 7}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_are_read_with_their_place(tmp_path):
    path = tmp_path / "sums.jsonl"
    path.write_text(json.dumps(GOOD_CHOICE) + "\n\n" + json.dumps(GOOD_CHOICE) + "\n")
    task = load_task(path)
    assert (task.name, task.kind, len(task.questions)) == ("sums", "choice", 2)
    assert task.questions[1].where == f"{path}:3"
    assert task.questions[0].choices == (" 3", " 4")
    assert task.questions[0].answer == 1
    match = load_task(write(tmp_path / "m.jsonl", [GOOD_MATCH]))
    assert match.kind == "exact_match"
    assert match.questions[0].answers == ("Paris", "paris")


def test_messages_become_a_chat_prompt(tmp_path):
    row = {"messages": [{"role": "user", "content": "Hi"}], "answer": "Hello"}
    question = load_task(write(tmp_path / "chat.jsonl", [row])).questions[0]
    wanted = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert question.text(byte_tokenizer()) == wanted
    with pytest.raises(DataError, match=r"chat\.jsonl:1: this tokenizer has no chat template"):
        question.text(byte_tokenizer(chat=False))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["no object"], "must be a JSON object"),
        ({"promt": "x", "answer": "y"}, "unknown key 'promt'. Did you mean 'prompt'?"),
        ({"answer": "y"}, "exactly one of 'prompt' and 'messages'"),
        ({"prompt": "x", "messages": [], "answer": "y"}, "exactly one of"),
        ({"prompt": "x"}, "'answer' is missing"),
        ({"prompt": "", "answer": "y"}, "'prompt' must be a text"),
        ({"prompt": 3, "answer": "y"}, "got 3"),
        ({"prompt": "x", "answer": []}, "'answer' must be a text"),
        ({"prompt": "x", "answer": 4}, "'answer' must be a text"),
        ({"prompt": "x", "choices": ["a"], "answer": 0}, "at least 2 texts"),
        ({"prompt": "x", "choices": "ab", "answer": 0}, "at least 2 texts"),
        ({"prompt": "x", "choices": ["a", "b"], "answer": 2}, "0 to 1, got 2"),
        ({"prompt": "x", "choices": ["a", "b"], "answer": True}, "got True"),
        ({"prompt": "x", "choices": ["a", ""], "answer": 0}, "'choices' must be a text"),
        ({"messages": [{"role": "user"}], "answer": "y"}, "must have 'content'"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, row, message):
    path = write(tmp_path / "bad.jsonl", [GOOD_MATCH, row])
    with pytest.raises(DataError) as error:
        load_task(path)
    assert f"{path}:2" in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "is empty"), (b"\n\n", "is empty"), (b"{", ":1: not valid JSON"), (b"\xff", "UTF-8")],
)
def test_files_that_hold_no_rows_are_refused(tmp_path, data, message):
    path = tmp_path / "x.jsonl"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        load_task(path)


def test_kinds_do_not_mix_in_a_file(tmp_path):
    path = write(tmp_path / "mixed.jsonl", [GOOD_CHOICE, GOOD_MATCH])
    with pytest.raises(DataError, match=r"mixed\.jsonl:2: a row without in a file .* is with"):
        load_task(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"no such task file: .*nothing\.jsonl"):
        load_task(tmp_path / "nothing.jsonl")
