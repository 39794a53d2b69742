"""Whatever comes in, the answer is a refusal in the form clients know, never a failure of ours."""

import json

import httpx
import pytest

from serving import running
from small_models import save_small_model

TEXT, CHAT, VECTOR = "/v1/completions", "/v1/chat/completions", "/v1/embeddings"
HI = [{"role": "user", "content": "hi"}]
BASE = {
    TEXT: {"model": "tiny", "prompt": "a", "max_tokens": 2},
    CHAT: {"model": "tiny", "messages": HI, "max_tokens": 2},
    VECTOR: {"model": "tiny", "input": "a"},
}
NESTED = json.dumps({**BASE[TEXT], "metadata": None}).replace("null", "[" * 9000 + "]" * 9000)
HUGE = 10**400
HANGS = {"allOf": [{"type": "string", "pattern": f".*a.{{{i}}}"} for i in range(1, 60)]}

BODIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"3",
    b'"text"',
    b"\xff\xfe",
    b'{"model": "tiny", "prompt": "\xff"}',
    b'{"model": "tiny", "prompt": "\\ud800"}',
    b'{"model": "tiny", "prompt": NaN}',
    b'{"model": "tiny", "prompt": "a", "temperature": NaN}',
    b'{"model": "tiny", "prompt": "a", "temperature": Infinity}',
    b'{"model": "tiny", "prompt": "a", "priority": -Infinity}',
    b'{"model": "tiny", "prompt": "a", "presence_penalty": 1e999}',
    b'{"model": "tiny", "prompt": "a", "seed": ' + b"9" * 5000 + b"}",
    b'{"model": "tiny"}',
    b'{"prompt": "a", "\\ud800": 1}',
    NESTED.encode(),
    b"model=tiny&prompt=a",
]

CHANGES = [
    (TEXT, {"model": None}),
    (TEXT, {"model": ["tiny"]}),
    (TEXT, {"prompt": None}),
    (TEXT, {"prompt": ""}),
    (TEXT, {"prompt": [""]}),
    (TEXT, {"prompt": []}),
    (TEXT, {"prompt": [[]]}),
    (TEXT, {"prompt": [1, "a"]}),
    (TEXT, {"prompt": [1.5]}),
    (TEXT, {"prompt": [True]}),
    (TEXT, {"prompt": [-1]}),
    (TEXT, {"prompt": [304]}),
    (TEXT, {"prompt": [1 << 80]}),
    (TEXT, {"prompt": {"text": "a"}}),
    (TEXT, {"prompt": "x" * 400}),
    (TEXT, {"max_tokens": -1}),
    (TEXT, {"max_tokens": 1.5}),
    (TEXT, {"max_tokens": "2"}),
    (TEXT, {"max_tokens": HUGE}),
    (TEXT, {"min_tokens": 3}),
    (TEXT, {"n": 0}),
    (TEXT, {"n": 129}),
    (TEXT, {"n": HUGE}),
    (TEXT, {"n": True}),
    (TEXT, {"temperature": -0.1}),
    (TEXT, {"temperature": "0"}),
    (TEXT, {"top_p": 0}),
    (TEXT, {"top_p": 1.1}),
    (TEXT, {"top_k": -2}),
    (TEXT, {"min_p": 2}),
    (TEXT, {"repetition_penalty": 0}),
    (TEXT, {"frequency_penalty": 3}),
    (TEXT, {"logit_bias": {"999": 1}}),
    (TEXT, {"logit_bias": {"5": 101}}),
    (TEXT, {"logit_bias": {"a": 1}}),
    (TEXT, {"logit_bias": {str(HUGE): 1}}),
    (TEXT, {"logit_bias": [1]}),
    (TEXT, {"stop": ""}),
    (TEXT, {"stop": 3}),
    (TEXT, {"stop_token_ids": [999]}),
    (TEXT, {"stop_token_ids": ["a"]}),
    (TEXT, {"logprobs": 21}),
    (TEXT, {"logprobs": True}),
    (TEXT, {"stream": "yes"}),
    (TEXT, {"stream_options": {"include_usage": "yes"}}),
    (TEXT, {"best_of": 2}),
    (TEXT, {"suffix": "x"}),
    (TEXT, {"cache_salt": 3}),
    (TEXT, {"guided_regex": "(" * 5000}),
    (TEXT, {"guided_regex": "a(?=b)"}),
    (TEXT, {"guided_json": HANGS}),
    (TEXT, {"guided_json": {"type": "object", "properties": 3}}),
    (TEXT, {"guided_json": {"$ref": "#/nowhere"}}),
    (TEXT, {"guided_grammar": "start: " + "(" * 5000}),
    (TEXT, {"__class__": "x"}),
    (CHAT, {"messages": None}),
    (CHAT, {"messages": []}),
    (CHAT, {"messages": ["hi"]}),
    (CHAT, {"messages": [{}]}),
    (CHAT, {"messages": [{"role": "user"}]}),
    (CHAT, {"messages": [{"role": 3, "content": "a"}]}),
    (CHAT, {"messages": [{"role": "user", "content": 3}]}),
    (CHAT, {"messages": [{"role": "user", "content": [3]}]}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
    (CHAT, {"messages": HI * 100}),
    (CHAT, {"logprobs": 3}),
    (CHAT, {"top_logprobs": 2}),
    (CHAT, {"logprobs": True, "top_logprobs": 30}),
    (CHAT, {"max_completion_tokens": 0}),
    (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
    (CHAT, {"response_format": "json"}),
    (CHAT, {"tools": "x"}),
    (CHAT, {"tool_choice": {"type": "function"}}),
    (CHAT, {"functions": [{"name": "f"}]}),
    (TEXT, {"model": "\ud800"}),
    (TEXT, {"\ud800": 1}),
    (TEXT, {"guided_regex": "\ud800"}),
    (CHAT, {"messages": [{"role": "\ud800", "content": "\udfff"}]}),
    (CHAT, {"tools": [{"type": "function", "function": {"name": "\ud800"}}]}),
    (VECTOR, {"input": "\ud800"}),
    (VECTOR, {"input": None}),
    (VECTOR, {"input": [[1], "a"]}),
    (VECTOR, {"dimensions": HUGE}),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = save_small_model(tmp_path_factory.mktemp("models") / "tiny")
    with running(folder, max_body_bytes=1_000_000) as one:
        one.state.llm.engine.grammars._timeout_s = 0.5
        yield one
        assert one.state.worker.failure is None
        assert one.state.llm.engine.scheduler.pool.num_used == 0


def check(answer, statuses=range(400, 500)):
    assert answer.status_code in statuses, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert "Traceback" not in answer.text
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_bodies_that_are_no_requests(server, body):
    for path in (TEXT, CHAT, VECTOR, "/tokenize", "/detokenize"):
        headers = {"Content-Type": "application/json"}
        check(httpx.post(server.url + path, content=body, headers=headers, timeout=30))


@pytest.mark.parametrize(("path", "change"), CHANGES, ids=range(len(CHANGES)))
def test_fields_that_are_wrong(server, path, change):
    content = json.dumps({**BASE[path], **change})
    check(httpx.post(server.url + path, content=content, timeout=30), (400, 404))
    assert httpx.post(server.url + path, json=BASE[path], timeout=30).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", TEXT, 405),
        ("DELETE", "/v1/models/tiny", 405),
        ("GET", "/v1/models/other", 404),
        ("GET", "/v1/models/../../etc/passwd", 404),
        ("GET", "/v1/%00", 404),
        ("POST", "/nowhere", 404),
        ("GET", "/monitor", 404),
    ],
)
def test_routes_that_do_not_exist(server, method, path, status):
    check(httpx.request(method, server.url + path), (status,))


def test_headers_that_lie(server):
    for headers in ({"Content-Type": "text/plain"}, {"Content-Type": "application/xml"}):
        check(httpx.post(server.url + TEXT, content=b"{", headers=headers))
    check(httpx.post(server.url + TEXT, content=b"x" * 2_000_000), (413,))


def test_a_template_that_misbehaves_is_the_requests_fault(tmp_path):
    from sharpen.models.hf import save_model
    from small_models import byte_tokenizer, small_model

    templates = [
        "{{ ''.__class__.__mro__ }}",
        "{% for i in range(10 ** 9) %}x{% endfor %}",
        "{{ messages[9].content }}",
        "{{ raise_exception('no') }}",
        "{{ 'x' * 10 ** 9 }}",
        "{% for m in messages %}{{ m.content | nothing }}{% endfor %}",
        "{{ 1 / 0 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ]
    tokenizer = byte_tokenizer()
    folder = tmp_path / "tiny"
    save_model(small_model(), folder, tokenizer=tokenizer)
    with running(folder) as server:
        for template in templates:
            server.state.llm.tokenizer.chat_template = template
            check(httpx.post(server.url + CHAT, json=BASE[CHAT], timeout=60), (400,))
