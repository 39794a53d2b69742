"""The server over a real socket, driven by the official client."""

import gc
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from serving import running
from sharpen.core.errors import BusyError, ConfigError, MissingFileError
from sharpen.serve import LLM, SamplingParams
from sharpen.serve.admission import QueueLimits
from sharpen.serve.api.server import ApiServer, ServerConfig
from small_models import save_small_model

KEY = "secret"
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def llm(folder):
    return LLM(folder, dtype="float32")


@pytest.fixture(scope="module")
def server(folder):
    with running(folder, api_keys=("other", KEY), max_body_bytes=100_000) as one:
        yield one


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as one:
        yield one


def test_chat_answers_as_the_model_does(client, llm):
    answer = client.chat.completions.create(model="tiny", messages=HI, temperature=0, max_tokens=9)
    expected = llm.chat(HI, SamplingParams(temperature=0, max_tokens=9))
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason == expected.outputs[0].finish_reason
    assert answer.usage.prompt_tokens == len(expected.prompt_ids)
    assert answer.usage.completion_tokens == len(expected.outputs[0].ids)
    assert answer.object == "chat.completion"


def test_streamed_chat_is_the_same_text_and_ends_with_its_usage(client):
    settings = {"model": "tiny", "messages": HI, "seed": 3, "max_tokens": 20}
    whole = client.chat.completions.create(**settings)
    chunks = list(
        client.chat.completions.create(
            **settings, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert {c.id for c in chunks} == {chunks[0].id}


def test_an_idle_stream_is_kept_open(folder, monkeypatch):
    monkeypatch.setattr("sharpen.serve.api.app._PING_S", 0.05)
    with running(folder) as server:
        model = server.state.llm.engine.model
        states = model.states

        def slow(*arguments):
            time.sleep(0.2)
            return states(*arguments)

        monkeypatch.setattr(model, "states", slow)
        body = {"model": "tiny", "prompt": "a", "max_tokens": 2, "ignore_eos": True, "stream": True}
        text = httpx.post(f"{server.url}/v1/completions", json=body).text
    assert ": ping\n\n" in text
    assert text.endswith("data: [DONE]\n\n")


def test_content_may_come_in_parts(client):
    settings = {"model": "tiny", "temperature": 0, "max_tokens": 5}
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    one = client.chat.completions.create(messages=HI, **settings)
    two = client.chat.completions.create(messages=[{"role": "user", "content": parts}], **settings)
    assert one.choices == two.choices


def test_several_choices_and_logprobs(client):
    answer = client.chat.completions.create(
        model="tiny", messages=HI, n=3, seed=1, max_tokens=4, logprobs=True, top_logprobs=2
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    firsts = {choice.logprobs.content[0].logprob for choice in answer.choices}
    assert len(firsts) == 3
    for choice in answer.choices:
        for token in choice.logprobs.content:
            assert len(token.top_logprobs) == 2
            assert token.logprob <= token.top_logprobs[0].logprob
    assert answer.usage.completion_tokens == sum(
        len(choice.logprobs.content) for choice in answer.choices
    )


def test_completions_take_text_tokens_and_lists(client, llm):
    params = SamplingParams(temperature=0, max_tokens=5)
    settings = {"model": "tiny", "temperature": 0, "max_tokens": 5}
    ids = llm.encode("ab")
    for prompt, count in (("ab", 1), (ids, 1), (["ab", "cd"], 2), ([ids, ids], 2)):
        answer = client.completions.create(prompt=prompt, **settings)
        assert [choice.index for choice in answer.choices] == list(range(count))
        assert answer.choices[0].text == llm.generate("ab", params).text
    echoed = client.completions.create(prompt="ab", echo=True, **settings)
    assert echoed.choices[0].text == "ab" + llm.generate("ab", params).text


def test_streamed_completions_with_logprobs_and_echo(client):
    settings = {"model": "tiny", "prompt": ["ab", "cd"], "seed": 1, "max_tokens": 6}
    whole = client.completions.create(**settings, logprobs=1)
    chunks = list(client.completions.create(**settings, logprobs=1, stream=True))
    for index, choice in enumerate(whole.choices):
        own = [c.choices[0] for c in chunks if c.choices[0].index == index]
        assert "".join(c.text for c in own) == choice.text
        offsets = [offset for c in own for offset in c.logprobs.text_offset]
        assert offsets == choice.logprobs.text_offset
    texts = {0: "", 1: ""}
    for chunk in client.completions.create(**settings, echo=True, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == {0: "ab" + whole.choices[0].text, 1: "cd" + whole.choices[1].text}


def test_concurrent_requests_get_their_own_answers(client, llm):
    prompts = [f"question {i}" for i in range(12)]

    def ask(prompt):
        answer = client.completions.create(
            model="tiny", prompt=prompt, temperature=0, max_tokens=12
        )
        return answer.choices[0].text

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, prompts))
    params = SamplingParams(temperature=0, max_tokens=12)
    assert answers == [output.text for output in llm.generate(prompts, params)]


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "sharpen"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("huge")


@pytest.mark.parametrize(
    ("change", "kind", "param"),
    [
        ({"model": "huge"}, openai.NotFoundError, "model"),
        ({"temperature": "hot"}, openai.BadRequestError, "temperature"),
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"max_tokens": 0}, openai.BadRequestError, "max_tokens"),
        ({"max_tokens": 100_000}, openai.BadRequestError, None),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"messages": [{"content": "x"}]}, openai.BadRequestError, None),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            openai.BadRequestError,
            "messages",
        ),
        ({"messages": [{"role": "user", "content": ["x"]}]}, openai.BadRequestError, "messages"),
        ({"top_logprobs": 2}, openai.BadRequestError, "top_logprobs"),
        ({"tools": [{"type": "function"}]}, openai.BadRequestError, "tools.0.function"),
        ({"response_format": {"type": "xml"}}, openai.BadRequestError, "response_format.type"),
        ({"extra_body": {"temprature": 1}}, openai.BadRequestError, "temprature"),
        ({"logit_bias": {"x": 1}}, openai.BadRequestError, None),
        ({"stop": [""]}, openai.BadRequestError, "stop"),
    ],
)
def test_bad_requests_are_refused_in_the_form_clients_know(client, change, kind, param):
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**{"model": "tiny", "messages": HI, **change})
    body = caught.value.body
    assert body["param"] == param
    assert body["message"]
    assert body["type"] in ("invalid_request_error", "not_found_error")


def test_fields_without_effect_are_accepted(client):
    client.chat.completions.create(
        model="tiny",
        messages=HI,
        max_completion_tokens=1,
        user="me",
        store=False,
        tools=[],
        response_format={"type": "text"},
        extra_body={"top_k": -1, "min_p": 0.1},
    )


def test_completion_mistakes_are_refused(client):
    for change in ({"suffix": "x"}, {"prompt": []}, {"echo": True, "logprobs": 21}):
        with pytest.raises(openai.BadRequestError):
            client.completions.create(**{"model": "tiny", "prompt": "a", **change})


def test_a_prompt_beyond_the_context_has_its_own_code(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", prompt="x" * 300)
    assert caught.value.code == "context_length_exceeded"


def test_a_missing_or_wrong_key_is_refused(server):
    for key in ("wrong", KEY + "x"):
        with (
            openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.models.list()
    answer = httpx.get(f"{server.url}/metrics")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}


def post(server, path="/v1/completions", **settings):
    return httpx.post(
        server.url + path, headers={"Authorization": f"Bearer {KEY}"}, timeout=10, **settings
    )


def test_wire_mistakes_have_the_common_form(server):
    cases = [
        (post(server, content="{"), 400),
        (post(server, content=b"x" * 200_000), 413),
        (post(server, content=iter([b"x" * 60_000] * 3)), 413),
        (post(server, "/v1/nothing", json={}), 404),
        (post(server, "/v1/models", json={}), 405),
    ]
    for answer, status in cases:
        assert answer.status_code == status
        assert answer.json()["error"]["message"]
        assert len(answer.headers["x-request-id"]) == 32


def test_request_ids_are_echoed_and_the_version_told(server):
    headers = {"Authorization": f"Bearer {KEY}", "X-Request-Id": "mine"}
    answer = httpx.get(f"{server.url}/version", headers=headers)
    assert answer.headers["x-request-id"] == "mine"
    assert answer.json()["version"]


def test_metrics_count_requests_and_tokens(server, client):
    def value(name):
        headers = {"Authorization": f"Bearer {KEY}"}
        lines = httpx.get(f"{server.url}/metrics", headers=headers).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    before = value("sharpen:generation_tokens_total"), value("sharpen:request_success_total")
    client.completions.create(
        model="tiny", prompt="a", max_tokens=7, extra_body={"ignore_eos": True}
    )
    assert value("sharpen:generation_tokens_total") == before[0] + 7
    assert value("sharpen:request_success_total") == before[1] + 1
    assert value("sharpen:time_to_first_token_seconds_count") >= 1


METRICS = {
    "num_requests_running": "gauge",
    "num_requests_waiting": "gauge",
    "kv_cache_usage_perc": "gauge",
    "prompt_tokens_total": "counter",
    "generation_tokens_total": "counter",
    "prefix_cache_queries": "counter",
    "prefix_cache_hits": "counter",
    "num_preemptions_total": "counter",
    "request_success_total": "counter",
    "requests_rejected_total": "counter",
    "time_to_first_token_seconds": "histogram",
    "inter_token_latency_seconds": "histogram",
    "e2e_request_latency_seconds": "histogram",
    "request_queue_time_seconds": "histogram",
    "request_prefill_time_seconds": "histogram",
    "request_decode_time_seconds": "histogram",
    "iteration_tokens_total": "histogram",
}


def test_metrics_have_the_names_of_dashboards_also_under_an_alias(folder):
    with running(folder, metrics_alias=("vllm",)) as server:
        body = {"model": "tiny", "prompt": "a" * 60, "max_tokens": 5, "ignore_eos": True}
        for _ in range(2):
            httpx.post(f"{server.url}/v1/completions", json={**body, "priority": 3}, timeout=30)
        httpx.post(f"{server.url}/v1/completions", json={**body, "cache_salt": "x"}, timeout=30)
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    types = {tuple(line.split()[2:]) for line in lines if line.startswith("# TYPE")}
    for prefix in ("sharpen:", "vllm:"):
        assert types >= {(prefix + name, kind) for name, kind in METRICS.items()}
        values = dict(line.rsplit(" ", 1) for line in lines if line.startswith(prefix))
        assert int(values[f"{prefix}prefix_cache_queries"]) == 3 * 60 + 1  # and the warm-up's
        assert int(values[f"{prefix}prefix_cache_hits"]) == 48  # another salt shares nothing
        assert float(values[f"{prefix}kv_cache_usage_perc"]) == 0
        assert int(values[f"{prefix}request_decode_time_seconds_count"]) == 3
        assert float(values[f"{prefix}iteration_tokens_total_sum"]) == 60 + 12 + 60 + 3 * 4
        assert values[f'{prefix}request_success_total{{finished_reason="length"}}'] == "3"


def test_a_client_that_goes_away_frees_its_row(folder):
    with running(folder, engine={"max_batch": 1}) as server:
        body = {"model": "tiny", "prompt": "a", "max_tokens": 250, "ignore_eos": True, "n": 64}
        engine = server.state.llm.engine
        for stream in (True, False):
            with pytest.raises(httpx.TimeoutException) if not stream else httpx.Client() as client:
                if not stream:
                    httpx.post(f"{server.url}/v1/completions", json=body, timeout=0.3)
                else:
                    with client.stream(
                        "POST", f"{server.url}/v1/completions", json={**body, "stream": True}
                    ) as answer:
                        assert next(answer.iter_lines()).startswith("data: ")
            deadline = time.monotonic() + 30
            while engine.num_running or engine.num_waiting:
                assert time.monotonic() < deadline
                time.sleep(0.02)


def test_a_client_that_goes_away_while_texts_are_embedded_is_no_error(folder, caplog):
    with running(folder, engine={"max_batch": 1}) as server:
        body = {"model": "tiny", "input": ["word " * 50] * 2048}
        with pytest.raises(httpx.TimeoutException):
            httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=0.2)
        time.sleep(1)  # the server looks after its clients now and then
        gc.collect()  # what was never asked for is told of when it is collected
    assert [one for one in caplog.records if one.name == "asyncio"] == []


def test_too_many_requests_are_told_to_come_back(folder):
    with running(folder, engine={"max_batch": 1}, limits=QueueLimits(requests=1)) as server:
        body = {"model": "tiny", "prompt": "a", "max_tokens": 1, "n": 5}
        answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=30)
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error"]["code"] == "overloaded"
        assert 'rejected_total{reason="queue_full"} 1' in httpx.get(f"{server.url}/metrics").text


def test_requests_that_would_wait_too_long_are_refused_at_once(folder):
    limits = QueueLimits(tokens=50, seconds=0.001)
    with running(folder, engine={"max_batch": 1}, limits=limits) as server:
        body = {"model": "tiny", "prompt": "a" * 40, "max_tokens": 200, "ignore_eos": True}
        url = f"{server.url}/v1/completions"
        with httpx.stream("POST", url, json={**body, "n": 8, "stream": True}) as stream:
            lines = stream.iter_lines()
            next(lines)
            answer = httpx.post(url, json={**body, "prompt": "a"})
            embedding = httpx.post(
                f"{server.url}/v1/embeddings", json={"model": "tiny", "input": "a" * 90}
            )
            lines.close()
        assert [answer.status_code, embedding.status_code] == [429, 429]
        assert int(answer.headers["retry-after"]) >= 1
        metrics = httpx.get(f"{server.url}/metrics").text
    assert 'rejected_total{reason="queue_tokens"}' in metrics


def test_while_the_model_loads_the_server_says_so(folder):
    go, loaded = threading.Event(), threading.Event()

    def load():
        go.wait(30)
        return LLM(folder, dtype="float32")

    server = ApiServer(ServerConfig(name="tiny", port=0), load)
    thread = threading.Thread(target=server.run, args=(loaded.set,))
    thread.start()
    try:
        answer = httpx.get(f"{server.url}/health")
        assert answer.status_code == 503
        assert "loading" in answer.json()["error"]["message"]
        assert httpx.get(f"{server.url}/metrics").status_code == 200
        go.set()
        assert loaded.wait(30)
        assert httpx.get(f"{server.url}/health").status_code == 200
    finally:
        go.set()
        server.stop()
        thread.join(30)


def test_a_failure_while_generating_is_an_error_not_a_hang(folder):
    with running(folder) as server:
        engine = server.state.llm.engine
        engine.model = type("Broken", (), {"spec": engine.model.spec})()
        body = {"model": "tiny", "prompt": "a"}
        answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=30)
        assert (answer.status_code, answer.json()["error"]["type"]) == (
            500,
            "internal_server_error",
        )
        with httpx.stream(
            "POST", f"{server.url}/v1/completions", json={**body, "stream": True}
        ) as stream:
            frames = [line for line in stream.iter_lines() if line]
        assert "error" in json.loads(frames[-1].removeprefix("data: "))


def test_a_dead_engine_is_an_error_not_a_hang(folder):
    with running(folder) as server:
        engine = server.state.llm.engine
        body = {"model": "tiny", "prompt": "a", "max_tokens": 200, "ignore_eos": True}
        url = f"{server.url}/v1/completions"
        with httpx.stream("POST", url, json={**body, "stream": True}, timeout=30) as stream:
            lines = stream.iter_lines()
            next(lines)
            engine.scheduler.schedule = None  # a fault of the engine itself, not of one round
            frames = [line for line in lines if line]
        assert "TypeError" in json.loads(frames[-1].removeprefix("data: "))["error"]["message"]
        for path in ("/health", "/v1/completions"):
            answer = httpx.request(
                "GET" if path == "/health" else "POST", server.url + path, json=body
            )
            assert answer.status_code == 500
            assert "the engine died" in answer.json()["error"]["message"]


def test_a_model_that_cannot_be_loaded_ends_the_server():
    server = ApiServer(ServerConfig(name="x", port=0), lambda: LLM("nowhere"))
    with pytest.raises(MissingFileError):
        server.run()


def test_a_busy_port_is_named():
    server = ApiServer(ServerConfig(name="x", port=0), lambda: LLM("nowhere"))
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(BusyError, match=str(port)):
        ApiServer(ServerConfig(name="x", port=port), lambda: LLM("nowhere"))
    with pytest.raises(MissingFileError):
        server.run()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.1"])
def test_an_address_that_is_not_ours_is_refused(host):
    with pytest.raises(ConfigError):
        ApiServer(ServerConfig(name="x", host=host, port=0), lambda: LLM("nowhere"))


@pytest.mark.parametrize(
    "settings",
    [{"port": 70_000}, {"api_keys": (" ",)}, {"metrics_alias": ("a:",)}],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError):
        ServerConfig(name="x", **settings)
