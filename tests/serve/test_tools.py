import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError
from sharpen.serve.grammar import Grammars
from sharpen.serve.tools import FORMATS, ToolReader, guess_format
from small_models import byte_tokenizer

ADD = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
MUL = '<tool_call>{"name": "mul"}</tool_call>'


def read(kind, text, cuts=()):
    reader = ToolReader(kind, ["add", "mul"])
    texts, calls = "", []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        more, found = reader.push(text[start:end])
        texts += more
        calls += found
    more, found = reader.finish()
    assert reader.num_calls == len(calls + found)
    assert all(call.arguments.encode() for call in calls + found)
    return texts + more, [(call.name, json.loads(call.arguments)) for call in calls + found]


HERMES = [
    ("no call", "no call", []),
    (ADD, "", [("add", {"a": 1})]),
    (f"Well. {ADD}\n{MUL}\n", "Well. ", [("add", {"a": 1}), ("mul", {})]),
    (f"{MUL} So it is.  Now", " So it is.  Now", [("mul", {})]),
    (f" \n{ADD} Then \n{MUL} .\n", " Then \n .\n", [("add", {"a": 1}), ("mul", {})]),
    ("  \n", "  \n", []),
    ("a < b <tool", "a < b <tool", []),
    ("<tool_call>{broken</tool_call>!", "<tool_call>{broken</tool_call>!", []),
    ('<tool_call>{"name": "other"}</tool_call>', '<tool_call>{"name": "other"}</tool_call>', []),
    ('<tool_call>\n{"name": "add"', '<tool_call>\n{"name": "add"', []),
    (
        '<tool_call>{"name": "add", "arguments": {"a": "\\ud800"}}</tool_call>',
        "",
        [("add", {"a": "\ud800"})],
    ),
    ("<tool_call>[1]</tool_call>", "<tool_call>[1]</tool_call>", []),
]
LLAMA = [
    ("no call", "no call", []),
    ('{"name": "add", "parameters": {"a": 1}}', "", [("add", {"a": 1})]),
    (
        ' {"name": "add", "parameters": {}}; {"name": "mul", "parameters": {"b": [";"]}}',
        "",
        [("add", {}), ("mul", {"b": [";"]})],
    ),
    ('{"name": "other", "parameters": {}}', '{"name": "other", "parameters": {}}', []),
    ('{"name": "add", "parameters": 3}', '{"name": "add", "parameters": 3}', []),
    ('{"name": "add"', '{"name": "add"', []),
    ("{" * 3000, "{" * 3000, []),
    ("  ", "  ", []),
]
CASES = [("hermes", *case) for case in HERMES] + [("llama3_json", *case) for case in LLAMA]


@pytest.mark.parametrize(("kind", "text", "rest", "calls"), CASES)
@given(data=st.data())
def test_calls_are_found_wherever_the_text_is_cut(kind, text, rest, calls, data):
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=12).map(sorted))
    assert read(kind, text, cuts) == (rest, calls)


def test_text_is_given_as_soon_as_it_is_no_call():
    reader = ToolReader("hermes", ["add"])
    assert reader.push("It is <") == ("It is ", [])
    assert reader.push("b> x") == ("<b> x", [])
    reader = ToolReader("llama3_json", ["add"])
    assert reader.push("It") == ("It", [])


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_the_grammar_of_calls_takes_what_the_reader_finds(kind):
    grammars = Grammars(byte_tokenizer(), 304, {2})
    parameters = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/n"}},
        "required": ["a"],
        "additionalProperties": False,
        "$defs": {"n": {"type": "integer"}},
    }
    tools = [{"name": "add", "parameters": parameters}, {"name": "mul", "parameters": None}]
    form = FORMATS[kind]
    one = f'{form.opening}{{"name": "add", "{form.arguments}": {{"a": 12}}}}{form.closing}'
    two = f'{form.opening}{{"name": "mul", "{form.arguments}": {{}}}}{form.closing}'
    wrong = one.replace("12", '"12"')
    both = one + form.between + two

    def fits(text, several=True):
        guide = grammars.guide(form.grammar(tools, several=several))
        ids = byte_tokenizer().encode(text)
        return guide.fitting([*ids, 2]) == len(ids) + 1

    assert fits(one)
    assert fits(both)
    assert not fits(both, several=False)
    assert not fits(wrong)
    assert read(kind, both) == ("", [("add", {"a": 12}), ("mul", {})])
    grammars.close()


def test_a_template_tells_its_format():
    assert guess_format("{{ tools }} <tool_call>") == "hermes"
    assert guess_format('{% if tools %}{"name": x, "parameters": y}') == "llama3_json"
    assert guess_format("{{ tools }}") is None
    assert guess_format("<tool_call>") is None
    assert guess_format(None) is None


def test_an_unknown_format_is_refused():
    with pytest.raises(ConfigError, match="hermes or llama3_json"):
        ToolReader("xml", [])
