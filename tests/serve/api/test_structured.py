"""Structured output over HTTP, by the official client."""

import json

import jsonschema
import openai
import pytest

from serving import running
from small_models import save_small_model

HI = [{"role": "user", "content": "hi"}]
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "tags": {"enum": ["a", "b"]}},
    "required": ["ok", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = save_small_model(tmp_path_factory.mktemp("models") / "tiny", max_positions=1024)
    with (
        running(folder, engine={"speculate": "ngram"}) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as one,
    ):
        yield one


def json_schema(schema):
    return {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": schema}}


def ask(client, **settings):
    settings = {"model": "tiny", "messages": HI, "seed": 1, "max_tokens": 800, **settings}
    return client.chat.completions.create(**settings)


def test_an_answer_satisfies_its_schema_streamed_or_not(client):
    answer = ask(client, response_format=json_schema(SCHEMA), n=3)
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content), SCHEMA)
    chunks = ask(client, response_format=json_schema(SCHEMA), n=3, stream=True)
    texts = ["", "", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in answer.choices]


def test_a_json_object_is_one_or_cut(client):
    answer = ask(client, response_format={"type": "json_object"}, temperature=0).choices[0]
    assert answer.message.content.startswith("{")
    if answer.finish_reason == "stop":
        assert isinstance(json.loads(answer.message.content), dict)
    else:
        assert answer.finish_reason == "length"


@pytest.mark.parametrize(
    ("extra", "texts"),
    [
        ({"guided_choice": ["yes", "no"]}, {"yes", "no"}),
        ({"guided_regex": "[0-9]{3}"}, {f"{i:03}" for i in range(1000)}),
        (
            {"guided_grammar": 'start: "(" start ")" | "x"'},
            {"(" * i + "x" + ")" * i for i in range(9)},
        ),
        ({"guided_json": {"enum": [1, 2]}}, {"1", "2"}),
        ({"guided_json": '{"const": null}'}, {"null"}),
    ],
)
def test_other_servers_fields_work_for_chat_and_completions(client, extra, texts):
    assert ask(client, extra_body=extra).choices[0].message.content in texts
    answer = client.completions.create(model="tiny", prompt=["a", "b"], seed=2, extra_body=extra)
    assert {choice.text for choice in answer.choices} <= texts


def test_parsed_answers_of_the_client(client):
    from pydantic import BaseModel

    class Point(BaseModel, extra="forbid"):
        ok: bool

    answer = client.chat.completions.parse(
        model="tiny", messages=HI, response_format=Point, max_tokens=200
    )
    assert isinstance(answer.choices[0].message.parsed, Point)


DEEP = {}
for _ in range(500):
    DEEP = {"type": "array", "items": DEEP}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"response_format": {"type": "json_schema"}}, "lacks"),
        ({"response_format": json_schema({"type": "strin"})}, "strin"),
        ({"response_format": json_schema({"not": {}})}, "not"),
        ({"response_format": json_schema(DEEP)}, "recursion"),
        ({"response_format": json_schema({"$ref": "#"})}, "no text"),
        ({"response_format": json_schema({"$ref": "file:///etc/passwd"})}, "not fetch"),
        ({"extra_body": {"guided_regex": "("}}, "unclosed"),
        ({"extra_body": {"guided_regex": ""}}, "empty"),
        ({"extra_body": {"guided_choice": []}}, "option"),
        ({"extra_body": {"guided_choice": [1]}}, "string"),
        ({"extra_body": {"guided_json": "{"}}, "JSON"),
        ({"extra_body": {"guided_json": 5}}, "guided_json"),
        ({"extra_body": {"guided_grammar": "x"}}, "grammar"),
        ({"extra_body": {"guided_regex": "a", "guided_choice": ["a"]}}, "exclude"),
    ],
)
def test_mistakes_are_refused(client, settings, message):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **settings)
    assert message in caught.value.body["message"]


def test_recursive_schemas_work(client):
    tree = {
        "type": "object",
        "properties": {"left": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["left"],
        "additionalProperties": False,
    }
    answer = ask(client, response_format=json_schema(tree)).choices[0]
    if answer.finish_reason == "stop":
        jsonschema.validate(json.loads(answer.message.content), tree)
    else:
        assert answer.finish_reason == "length"
