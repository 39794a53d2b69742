import json
from typing import Any

import pytest

from sharpen.core.errors import ConfigError
from sharpen.core.lm import LM, ReplyError, Schema, Scripted

SCORE = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 5}},
    "required": ["score"],
    "additionalProperties": False,
}


def test_a_reply_that_fits_is_given_as_data() -> None:
    engine = Scripted(['{"score": 4}'])
    assert LM(engine).json("Score it.", SCORE) == {"score": 4}
    assert engine.requests[0].response_format == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": SCORE},
    }


def test_a_wrong_reply_is_asked_for_again_with_what_is_wrong() -> None:
    engine = Scripted(['{"score": "4"}', "I think 4.", '{"score": 4}'])
    assert LM(engine).json("Score it.", SCORE) == {"score": 4}
    second, third = engine.requests[1], engine.requests[2]
    assert [m["role"] for m in second.messages] == ["user", "assistant", "user"]
    assert second.messages[1]["content"] == '{"score": "4"}'
    assert "score: '4' is not of type 'integer'" in second.prompt
    assert json.dumps(SCORE) in second.prompt
    assert "it holds no JSON" in third.prompt


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_the_tries_are_bounded(retries: int) -> None:
    engine = Scripted(lambda request: '{"score": 9}')
    with pytest.raises(ReplyError, match="score: 9 is greater than the maximum of 5"):
        LM(engine).json("Score it.", SCORE, retries=retries)
    assert len(engine.requests) == retries + 1


def test_a_reply_that_was_cut_off_is_not_taken() -> None:
    engine = Scripted(lambda request: '{"score": 4} and so on')
    with pytest.raises(ReplyError, match="cut off at max_tokens"):
        LM(engine).json("Score it.", SCORE, retries=0, max_tokens=2)


@pytest.mark.parametrize(
    "reply",
    [
        '{"score": NaN}',
        '{"score": 4, "ignore previous instructions": true}',
        '{"score": {"$ref": "#"}}',
        "[" * 50_000,
        '{"score": ' + "[" * 50 + "]" * 50 + "}",
        "x" * 2_000_000,
        "\x00",
        '{"score": true}',
        '{"score": 4.5}',
    ],
    ids=range(9),
)
def test_hostile_replies_end_in_one_error(reply: str) -> None:
    with pytest.raises(ReplyError):
        LM(Scripted(lambda request: reply)).json("Score it.", SCORE, retries=1)


@pytest.mark.parametrize(
    ("schema", "message"),
    [({"type": "nothing"}, "the schema is wrong"), ({"minimum": "x"}, "the schema is wrong")],
)
def test_a_wrong_schema_is_refused(schema: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schema(schema)


def test_references_lead_nowhere_outside() -> None:
    schema = Schema({"$ref": "http://127.0.0.1:9/schema.json"})
    with pytest.raises(ConfigError, match="a reference that leads nowhere"):
        schema.wrong({})
