from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.align.rows import BadRow
from sharpen.align.rows.parse import parse_row

USER = {"role": "user", "content": "2 + 2?"}
GOOD = {"role": "assistant", "content": "4"}
POOR = {"role": "assistant", "content": "5"}


@pytest.mark.parametrize(
    ("row", "kind", "prompt", "completions"),
    [
        ({"prompt": "a", "completion": " b"}, "completion", "a", (" b",)),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference", "a", ("b", "c")),
        ({"prompt": "a", "completion": "b", "label": False}, "label", "a", ("b",)),
        ({"prompt": "a"}, "prompt", "a", ()),
        ({"query": "a", "responses": ["b", "c"], "scores": [1, 0.5]}, "ranked", "a", ("b", "c")),
        ({"prompt": [USER], "completion": [GOOD]}, "completion", (USER,), ((GOOD,),)),
        (
            {"prompt": [USER], "chosen": [GOOD], "rejected": [POOR]},
            "preference",
            (USER,),
            ((GOOD,), (POOR,)),
        ),
        ({"messages": [USER, GOOD]}, "messages", "", ((USER, GOOD),)),
    ],
)
def test_every_format_is_recognized(
    row: dict[str, Any], kind: str, prompt: object, completions: object
) -> None:
    parsed = parse_row(row, "f:1")
    assert (parsed.kind, parsed.prompt, parsed.completions) == (kind, prompt, completions)


def test_a_missing_prompt_is_what_both_begin_with_up_to_a_space() -> None:
    row = parse_row({"chosen": "The sky is blue.", "rejected": "The sky is green."}, "f:1")
    assert (row.prompt, row.completions) == ("The sky is", (" blue.", " green."))
    row = parse_row({"chosen": [USER, GOOD], "rejected": [USER, POOR]}, "f:1")
    assert (row.prompt, row.completions) == ((USER,), ((GOOD,), (POOR,)))


def test_other_keys_are_kept() -> None:
    row = parse_row({"prompt": "a", "answer": 4, "tests": ["x"]}, "f:1")
    assert row.meta == {"answer": 4, "tests": ["x"]}


@pytest.mark.parametrize(
    ("row", "key", "reason"),
    [
        ({}, "keys", "no known format"),
        ({"completion": "b"}, "'prompt'", "no 'prompt'"),
        ({"prompt": "", "completion": "b"}, "'prompt'", "'prompt': empty"),
        ({"prompt": "a", "completion": "  "}, "'completion'", "'completion': empty"),
        ({"prompt": 3, "completion": "b"}, "'prompt'", "'prompt': no text"),
        ({"prompt": "a", "completion": "\ud800"}, "'completion'", "'completion': not Unicode"),
        ({"prompt": "a", "completion": [GOOD]}, "prompt, completion", "prompt, completion': mixed"),
        ({"prompt": [USER], "completion": [USER]}, "'completion'", "'completion': role"),
        ({"prompt": [{"content": "x"}]}, "prompt", "'prompt' is no conversation"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen, rejected", "same"),
        ({"chosen": "b", "rejected": "c"}, "'prompt'", "'prompt': missing"),
        ({"chosen": "ab", "rejected": "a"}, "'rejected'", "'rejected': empty"),
        ({"prompt": "a", "completion": "b", "label": "yes"}, "'label'", "'label': no label"),
        ({"prompt": "a", "completion": "b", "label": 2}, "'label'", "'label': no label"),
        ({"messages": [USER]}, "'messages'", "'messages': role"),
        ({"messages": "hello"}, "'messages'", "'messages': no conversation"),
        ({"query": "a", "responses": ["b", "c"]}, "'scores'", "no 'scores'"),
        ({"query": "a", "responses": ["b"], "scores": [1]}, "responses, scores", "lengths"),
        ({"query": "a", "responses": ["b", "c"], "scores": [1]}, "responses, scores", "lengths"),
        (
            {"query": "a", "responses": ["b", "c"], "scores": [1, float("nan")]},
            "scores[1]",
            "no number",
        ),
        (
            {"query": "a", "responses": ["b", ""], "scores": [1, 2]},
            "responses[1]",
            "responses[1]': empty",
        ),
    ],
)
def test_bad_rows_name_place_key_and_reason(row: dict[str, Any], key: str, reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        parse_row(row, "data.jsonl:7")
    assert str(caught.value).startswith("data.jsonl:7")
    assert key in str(caught.value)
    assert reason in caught.value.reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
NAMES = ["prompt", "completion", "chosen", "rejected", "label", "messages", "query", "responses"]
KEYS = st.sampled_from([*NAMES, "scores", "x"])


@given(st.dictionaries(KEYS, JSON | st.just([USER, GOOD]), max_size=6))
def test_any_object_is_a_row_or_a_named_fault(row: dict[str, Any]) -> None:
    try:
        parsed = parse_row(row, "f:1")
    except BadRow as fault:
        told = fault
    else:
        assert all(parsed.completions)
        return
    assert str(told).startswith("f:1")
