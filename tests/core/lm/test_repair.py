import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.lm import ReplyError, Schema, find_json

S = {"suggestion": "x"}
PROPERTIES = {"suggestion": {"type": "string"}, "score": {"type": "integer"}}

GOOD: list[tuple[str, Any]] = [
    ('{"suggestion": "x"}', S),
    ('  \n{"suggestion": "x"}\n\n', S),
    ('\ufeff{"suggestion": "x"}', S),
    ("[1, 2]", [1, 2]),
    ('"text"', "text"),
    ("3", 3),
    ("null", None),
    # fences
    ('```json\n{"suggestion": "x"}\n```', S),
    ('```\n{"suggestion": "x"}\n```', S),
    ('```JSON\n{"suggestion": "x"}```', S),
    ('Here it is:\n```json\n{"suggestion": "x"}\n```\nHope it helps {really}!', S),
    ('```{"suggestion": "x"}```', S),
    ('```python\nprint(1)\n```\n```json\n{"suggestion": "x"}\n```', S),
    ('```json\n{"suggestion": "x"}', S),
    # around
    ('Sure! {"suggestion": "x"}', S),
    ('{"suggestion": "x"} is my answer.', S),
    ('<think>maybe {"suggestion": "y"}?</think>{"suggestion": "x"}', S),
    ('First {"a": 1}, then {"suggestion": "x"}', S),
    ('I use {curly} braces. {"suggestion": "x"}', S),
    ('A set {1, 2 is open. {"suggestion": "x"}', S),
    ("Reasoning: it's fine, isn't it? {'suggestion': 'x'}", S),
    ('{"suggestion": "x"}{"suggestion": "y"}', {"suggestion": "y"}),
    ('{"suggestion": "x"}\n{"suggestion": "y"}', {"suggestion": "y"}),
    # braces and quotes inside of strings
    ('Code: {"suggestion": "if (a) { b[0] } else {"}', {"suggestion": "if (a) { b[0] } else {"}),
    ('{"suggestion": "say \\"hi\\" }"} ok', {"suggestion": 'say "hi" }'}),
    ('ok {"suggestion": "it\'s"}', {"suggestion": "it's"}),
    ('ok {"suggestion": "a \\\\"} ok', {"suggestion": "a \\"}),
    (
        '{"suggestion": "def f():\\n    \\"\\"\\"Doc {x}.\\"\\"\\"\\n    return {}"}',
        {"suggestion": 'def f():\n    """Doc {x}."""\n    return {}'},
    ),
    ('x {"suggestion": "```py\\n{}\\n```"}', {"suggestion": "```py\n{}\n```"}),
    ('{"suggestion": "https://a.b/c"} // done', {"suggestion": "https://a.b/c"}),
    # commas and comments
    ('{"suggestion": "x",}', S),
    ('{"suggestion": "x", "l": [1, 2,],}', {"suggestion": "x", "l": [1, 2]}),
    ('{"suggestion": "x", // why\n}', S),
    ('{/* why */ "suggestion": "x"}', S),
    ('{\n# why\n"suggestion": "x"}', S),
    ('{"suggestion": "a, } // # b",}', {"suggestion": "a, } // # b"}),
    ('```json\n{"suggestion": "x",}\n```', S),
    # Python
    ("{'suggestion': 'x'}", S),
    ("{'suggestion': \"it's\"}", {"suggestion": "it's"}),
    ("{'suggestion': 'x', 'a': None, 'b': True}", {"suggestion": "x", "a": None, "b": True}),
    ('{"suggestion": "x", "a": None}', {"suggestion": "x", "a": None}),
    ("{'suggestion': 'x', 'a': null, 'b': true}", {"suggestion": "x", "a": None, "b": True}),
    ("{'suggestion': '''x'''}", S),
    ("{'suggestion': 'line\\nend'}", {"suggestion": "line\nend"}),
    ("Answer: {'suggestion': 'x',}", S),
    ("{'suggestion': 'a { b'}", {"suggestion": "a { b"}),
    # raw line ends
    ('{"suggestion": "a\nb"}', {"suggestion": "a\nb"}),
    ('{"suggestion": "a\tb"}', {"suggestion": "a\tb"}),
    ('{"suggestion": "a\r\nb",}', {"suggestion": "a\r\nb"}),
    ('```json\n{"suggestion": "a\nb"}\n```', {"suggestion": "a\nb"}),
    # typographic quotes
    ("{“suggestion”: “x”}", S),
    ("{“suggestion”: “x”,}", S),
    # tags
    ("<suggestion>x</suggestion>", S),
    ("<suggestion>\nx\n</suggestion> <score>4</score>", {"suggestion": "x", "score": 4}),
    ("<suggestion>y</suggestion> no: <suggestion>x</suggestion>", S),
    ("<suggestion>a { b</suggestion>", {"suggestion": "a { b"}),
]

BAD = [
    "",
    "no idea",
    '{"suggestion": "x"',
    '{"suggestion": "x',
    '{"suggestion": {"suggestion": "y"}, "why": "because',
    'Sure: {"suggestion": [1, 2',
    '```json\n{"suggestion": "x", "why": "bec',
    '{"suggestion": NaN}',
    '{"suggestion": Infinity}',
    '{"suggestion": -Infinity}',
    '{"suggestion": 1e999}',
    '{"suggestion": x}',
    "{suggestion: x}",
    "{'suggestion': {1, 2}}",
    "{'suggestion': b'x'}",
    "{'suggestion': 1j}",
    "{1: 'suggestion'}",
    "{'suggestion': open('x')}",
    "<suggestion>x",
    '{"suggestion": "x", /* open }',
    '{"a":' * 100 + "1" + "}" * 100,
    "[" * 100_000,
    '{"a":' * 100_000,
    '{"suggestion": ' + "9" * 5000 + "}",
]


def _wanted(value: Any) -> str | None:
    ok = not isinstance(value, dict) or "suggestion" in value
    return None if ok else "'suggestion' is a required property"


@pytest.mark.parametrize(("reply", "value"), GOOD)
def test_the_value_is_found(reply: str, value: Any) -> None:
    assert find_json(reply, _wanted, properties=PROPERTIES) == value


@pytest.mark.parametrize("reply", BAD, ids=range(len(BAD)))
def test_what_is_no_value_is_refused_and_never_half_taken(reply: str) -> None:
    with pytest.raises(ReplyError) as error:
        find_json(reply, _wanted, properties=PROPERTIES)
    assert len(str(error.value)) < 1000
    assert error.value.reply in (reply, reply.strip(), "")


@pytest.mark.parametrize(
    "reply",
    [
        "{a " * 330_000,
        "{" * 900_000,
        "/*" * 450_000,
        '"' * 900_001,
        "\n" * 450_000 + "{x" + "\n" * 450_000 + "#",
        "```" * 300_000,
        "," * 900_000,
        "<suggestion>" * 70_000,
        '{"a": "' + "\\" * 900_000,
        "x" * 1_000_001,
    ],
    ids=["open", "braces", "comments", "quotes", "lines", "fences", "commas", "tags", "\\", "long"],
)
def test_megabytes_of_nothing_end(reply: str) -> None:
    with pytest.raises(ReplyError):
        find_json(reply, _wanted, properties=PROPERTIES)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_whatever_json_writes_is_read_back(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert find_json(text) == value
    assert find_json(json.dumps(value, indent=1)) == value
    assert find_json(f"Well:\n```json\n{json.dumps(value)}\n```\nDone.") == value


@given(st.text(alphabet="{}[]\"',:\\/*#` \n\tax1<>"))
def test_no_text_is_too_odd(text: str) -> None:
    try:
        json.dumps(find_json(text, properties=PROPERTIES), allow_nan=False)
    except ReplyError:
        return


def test_a_schema_chooses_among_values() -> None:
    schema = Schema({"type": "object", "properties": {"score": {"type": "integer"}}})
    text = 'They wrote {"score": 5}. Mine: {"score": 2}. Not {"score": "high"}.'
    assert find_json(text, schema.wrong) == {"score": 2}
