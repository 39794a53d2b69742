"""A served model that is watched: answers stay, drift shows at /monitor and /metrics."""

import threading
import time
from contextlib import contextmanager

import httpx
import openai
import pytest

from sharpen.core.errors import ConfigError
from sharpen.serve import LLM, MonitorConfig, Reference, SamplingParams, make_reference
from sharpen.serve.api.server import ApiServer, ServerConfig
from small_models import save_small_model

TEXTS = [f"What is {i} + {i}?" for i in range(60)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def llm(folder):
    return LLM(folder, dtype="float32")


@contextmanager
def running(folder, **settings):
    server = ApiServer(
        ServerConfig(name="tiny", port=0, **settings), lambda: LLM(folder, dtype="float32")
    )
    ready = threading.Event()
    failures = []

    def run():
        try:
            server.run(ready.set)
        except ConfigError as error:
            failures.append(error)
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(30)
        yield server, failures
    finally:
        server.stop()
        thread.join(30)
    assert not thread.is_alive()


def watched(server, requests):
    """The monitor's document once it has seen so many requests; it looks after the answer."""
    deadline = time.monotonic() + 20
    while True:
        document = httpx.get(f"{server.url}/monitor").json()
        seen = document["windows"] * document["window"] + document["in_window"]
        if seen >= requests or time.monotonic() > deadline:
            return document
        time.sleep(0.01)


def test_a_change_of_the_prompts_shows_and_answers_stay(folder, llm):
    reference = make_reference(llm, [[{"role": "user", "content": t}] for t in TEXTS])
    config = MonitorConfig(window=20, score_every=1)
    with (
        running(folder, reference=reference, monitor=config) as (server, _),
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client,
    ):

        def ask(text):
            messages = [{"role": "user", "content": text}]
            answer = client.chat.completions.create(
                model="tiny", messages=messages, temperature=0, max_tokens=3
            )
            expected = llm.chat(messages, SamplingParams(temperature=0, max_tokens=3))
            assert answer.choices[0].message.content == expected.text

        for text in TEXTS[:20]:
            ask(text)
        document = watched(server, 20)
        assert (document["requests"], document["windows"], document["drifted"]) == (20, 1, False)
        assert [s["name"] for s in document["last"]["signals"]] == [
            "length",
            "tokens",
            "perplexity",
        ]
        for i in range(20):
            ask(f"def f{i}(a, b):\n    return a * {i} - b\n" * 2)
        document = watched(server, 40)
        assert (document["windows"], document["alarms"], document["drifted"]) == (2, 1, True)
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        assert "sharpen:monitor_alarms_total 1" in lines
        assert 'sharpen:drift_drifted{signal="tokens"} 1' in lines


def test_a_prompt_with_several_answers_counts_once_and_a_cancelled_one_not(folder, llm):
    reference = make_reference(llm, TEXTS)
    with running(folder, reference=reference) as (server, _):
        body = {"model": "tiny", "prompt": "hi", "n": 3, "max_tokens": 2}
        assert httpx.post(f"{server.url}/v1/completions", json=body).status_code == 200
        assert watched(server, 1)["requests"] == 1


def test_a_server_without_a_reference_says_how_to_watch(folder):
    with running(folder) as (server, _):
        answer = httpx.get(f"{server.url}/monitor")
        assert answer.status_code == 404
        assert "--monitor" in answer.json()["error"]["message"]
        assert "monitor" not in httpx.get(f"{server.url}/metrics").text


def test_a_reference_of_another_tokenizer_stops_the_server(folder, llm):
    made = make_reference(llm, TEXTS)
    with running(folder, reference=Reference("other", made.common, made.prompts)) as (_, failures):
        assert "another tokenizer" in str(failures[0])
