"""Tools over HTTP, by the official client."""

import json

import openai
import pytest

from serving import running
from sharpen.models.hf import save_model
from small_models import byte_tokenizer, save_small_model, small_model

TEMPLATE = (
    "{% if tools %}Tools: {% for t in tools %}{{ t | tojson }}\n{% endfor %}"
    "Call as <tool_call>...</tool_call>\n{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }} {{ c.function.arguments.city }}"
    "{% endfor %}\n{% endfor %}"
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Rome", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TIME = {"type": "function", "function": {"name": "time"}}
ASK = [{"role": "user", "content": "Is it warm in Rome?"}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(small_model(max_positions=2048), folder, tokenizer=tokenizer)
    with running(folder) as one:
        yield one


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as one:
        yield one


def ask(client, **settings):
    settings = {"model": "tiny", "messages": ASK, "seed": 1, "max_tokens": 900, **settings}
    return client.chat.completions.create(**settings)


def streamed(client, **settings):
    text, calls, reason = "", [], None
    for chunk in ask(client, stream=True, **settings):
        (choice,) = chunk.choices
        text += choice.delta.content or ""
        reason = choice.finish_reason or reason
        for call in choice.delta.tool_calls or []:
            assert call.index == len(calls)
            assert call.id
            calls.append((call.function.name, call.function.arguments))
    return text, calls, reason


NAMED = {"type": "function", "function": {"name": "weather"}}


def test_a_named_function_is_called_with_fitting_arguments(client):
    answer = ask(client, tools=[TIME, WEATHER], tool_choice=NAMED).choices[0]
    (call,) = answer.message.tool_calls
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Rome", "Oslo")
    assert answer.message.content is None
    assert answer.finish_reason == "stop"  # as OpenAI has it: there was nothing to choose
    arguments = call.function.arguments
    assert streamed(client, tools=[TIME, WEATHER], tool_choice=NAMED) == (
        "",
        [("weather", arguments)],
        "stop",
    )


def test_a_required_call_is_one_of_them(client):
    settings = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
    answers = ask(client, n=3, **settings).choices
    for answer in answers:
        assert answer.finish_reason == "tool_calls"
        (call,) = answer.message.tool_calls
        assert call.function.name == "weather"
    assert len({answer.message.tool_calls[0].id for answer in answers}) == 3


def test_calls_are_found_in_free_text(client):
    settings = {"tools": [WEATHER], "extra_body": {"guided_choice": [f"Well. {CALL}\n{CALL}"]}}
    answer = ask(client, **settings).choices[0]
    assert answer.message.content == "Well. "
    assert [call.function.name for call in answer.message.tool_calls] == ["weather"] * 2
    assert json.loads(answer.message.tool_calls[0].function.arguments) == {"city": "Oslo"}
    text, calls, reason = streamed(client, **settings)
    assert (text, reason) == ("Well. ", "tool_calls")
    assert calls == [("weather", '{"city": "Oslo"}')] * 2


def test_text_without_calls_stays_text(client):
    settings = {"tools": [WEATHER], "extra_body": {"guided_choice": ["No <tool idea."]}}
    answer = ask(client, **settings).choices[0]
    assert (answer.message.content, answer.finish_reason) == ("No <tool idea.", "stop")
    assert answer.message.tool_calls is None
    assert streamed(client, **settings) == ("No <tool idea.", [], "stop")
    without = ask(client, **{**settings, "tool_choice": "none", "max_tokens": 3})
    assert without.usage.prompt_tokens < ask(client, **settings).usage.prompt_tokens


def test_the_answer_of_a_tool_goes_back_into_the_conversation(client, server):
    call = ask(client, tools=[WEATHER], tool_choice=NAMED).choices[0].message
    answer = {
        "role": "tool",
        "tool_call_id": call.tool_calls[0].id,
        "content": [{"type": "text", "text": "7 °C"}],
    }
    again = ask(client, messages=[*ASK, call, answer], tools=[WEATHER], max_tokens=1)
    city = json.loads(call.tool_calls[0].function.arguments)["city"]
    head = server.state.llm.encode_chat(ASK, [WEATHER])
    rest = byte_tokenizer().encode(f"assistant: weather {city}tool: 7 °C")
    assert again.usage.prompt_tokens == len(head) + len(rest)


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [{**TIME, "type": "retrieval"}]}, "tools.0.type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tools": [TIME] * 200}, "tools"),
        ({"tools": [TIME], "tool_choice": NAMED}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TIME], "tool_choice": "always"}, None),
        ({"tools": [TIME], "tool_choice": "required", "extra_body": {"guided_regex": "a"}}, None),
        ({"messages": [{"role": "assistant", "tool_calls": [1]}]}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": "x"}]}, "messages"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]},
            "messages",
        ),
        (
            {
                "tools": [
                    {"type": "function", "function": {"name": "f", "parameters": {"type": "x"}}}
                ],
                "tool_choice": "required",
            },
            None,
        ),
    ],
)
def test_mistakes_are_refused(client, settings, param):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **settings)
    assert param is None or caught.value.body["param"] == param


def test_a_model_that_sees_no_tools_is_told_of(tmp_path):
    with (
        running(save_small_model(tmp_path / "tiny", max_positions=1024)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client,
    ):
        with pytest.raises(openai.BadRequestError, match="shows it no tools"):
            ask(client, tools=[WEATHER])
        assert ask(client, tools=[WEATHER], tool_choice=NAMED).choices[0].message.tool_calls
