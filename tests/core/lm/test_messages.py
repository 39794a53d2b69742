import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError, DataError
from sharpen.core.lm import ChatRequest, ChatResponse, Scripted, Usage

MESSAGE = [{"role": "user", "content": "Hi"}]


def test_a_text_is_the_users_message() -> None:
    assert ChatRequest("Hi").messages == ChatRequest(MESSAGE).messages
    assert ChatRequest("Hi").prompt == "Hi"
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]
    assert ChatRequest(parts).prompt == "a"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, "temperature=-0.1 must be from 0 to 2"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_p": 0.0}, "top_p=0.0 must be above 0"),
        ({"max_tokens": 0}, "max_tokens=0 must be at least 1"),
        ({"n": 0}, "n=0 must be at least 1"),
        ({"repeat": -1}, "repeat=-1 must be at least 0"),
    ],
)
def test_parameters_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ChatRequest("Hi", **values)


@pytest.mark.parametrize("messages", [[], [{"content": "x"}], ["x"], [{"role": 1}], 7])
def test_messages_that_are_none_are_refused(messages: Any) -> None:
    with pytest.raises(DataError, match="messages"):
        ChatRequest(messages)


CHANGES = {
    "messages": "Ho",
    "temperature": 0.5,
    "top_p": 0.9,
    "max_tokens": 5,
    "stop": ("x",),
    "seed": 1,
    "n": 2,
    "response_format": {"type": "json_object"},
    "logprobs": 1,
    "extra": {"top_k": 3},
    "repeat": 0,
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_parameter_is_part_of_the_digest(name: str) -> None:
    changed = ChatRequest(**{"messages": "Hi", name: CHANGES[name]})  # type: ignore[arg-type]
    assert changed.digest("m") != ChatRequest("Hi").digest("m")
    assert changed.digest("m") == ChatRequest(**changed.to_json()).digest("m")


def test_the_digest_knows_the_model_and_not_the_order_of_keys() -> None:
    request = ChatRequest([{"role": "user", "content": "Hi"}])
    assert request.digest("a") != request.digest("b")
    assert request.digest("a") == ChatRequest([{"content": "Hi", "role": "user"}]).digest("a")


@given(st.text())
def test_any_text_has_a_digest_of_its_own(text: str) -> None:
    assert (ChatRequest(text).digest() == ChatRequest("Hi").digest()) == (text == "Hi")


def test_a_response_comes_back_from_its_plain_data() -> None:
    response = ChatResponse(["a", "b"], Usage(prompt=1, completion=2), ["stop", "length"], "m", 0.5)
    assert ChatResponse.from_json(response.to_json()) == response
    for broken in ({}, {"texts": []}, {"texts": [1]}, {"texts": ["a"], "usage": {"x": 1}}):
        with pytest.raises((ValueError, TypeError, KeyError)):
            ChatResponse.from_json(broken)


def test_engines_answer_programs_of_asyncio() -> None:
    engine = Scripted({str(i): str(-i) for i in range(20)})

    async def several() -> list[str]:
        found = await asyncio.gather(*(engine.acomplete(ChatRequest(str(i))) for i in range(20)))
        return [one.text for one in found]

    assert asyncio.run(several()) == [str(-i) for i in range(20)]
