"""Routers and workers over real sockets, in threads of this process."""

import contextlib
import dataclasses
import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from itertools import chain
from pathlib import Path

import openai
import pytest

from sharpen.core.errors import ConfigError, DataError, ExecutionError
from sharpen.serve import LLM, SamplingParams
from sharpen.serve.api.server import ApiServer, ServerConfig
from sharpen.serve.grammar import Grammar
from sharpen.serve.split.engine import SplitLLM
from sharpen.serve.split.router import RouterLLM
from sharpen.serve.split.routes import WorkerConfig, pack_params, unpack_params
from sharpen.serve.split.server import WorkerServer
from small_models import save_small_adapter, save_small_model

PROMPTS = ["hello there", "a" * 90, "one, two, three, four", "x"]
GREEDY = SamplingParams(temperature=0, max_tokens=12)


@contextlib.contextmanager
def up(server):
    ready = threading.Event()
    thread = threading.Thread(target=server.run, args=(ready.set,))
    thread.start()
    try:
        assert ready.wait(60)
        yield server
    finally:
        server.stop()
        thread.join(30)
    assert not thread.is_alive()


def worker(folder, role, *, threshold=20, connector="auto", **engine):
    settings = {"dtype": "float32", "max_context": 200, "max_batch": 4, **engine}
    return WorkerServer(
        ServerConfig(name="tiny", port=0, max_body_bytes=1 << 40, drain_s=1),
        lambda: SplitLLM(folder, **settings),
        WorkerConfig(role=role, threshold=threshold, checksum=True, connector=connector),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def alone(folder):
    return LLM(folder, dtype="float32", max_context=200)


@pytest.fixture(scope="module")
def pair(folder):
    with (
        up(worker(folder, "prefill", max_batched_tokens=32)) as prompt,
        up(worker(folder, "decode", block_size=32)) as token,
    ):
        yield prompt, token


@pytest.fixture(scope="module")
def router(folder, pair):
    return RouterLLM(folder, [one.url for one in pair])


def held(server):
    pool = server.state.llm.engine.scheduler.pool
    return pool.num_used, server.state.llm.engine.scheduler.num_reserved


def settle(*servers):
    deadline = time.monotonic() + 10
    while any(held(one) != (0, 0) for one in servers) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [held(one) for one in servers] == [(0, 0)] * len(servers)


def texts(outputs):
    return [[(out.text, out.finish_reason, out.ids) for out in one.outputs] for one in outputs]


@pytest.mark.parametrize(
    "params",
    [
        GREEDY,
        SamplingParams(seed=5, max_tokens=9, n=2, repetition_penalty=1.3, top_p=0.9),
        SamplingParams(temperature=0, max_tokens=1),
        SamplingParams(temperature=0, max_tokens=20, stop=("e", "a")),
        SamplingParams(temperature=0, max_tokens=12, grammar=Grammar.regex("[ab]{3,6}")),
    ],
)
def test_a_split_gives_what_one_process_gives(router, alone, pair, params):
    assert texts(router.generate(PROMPTS, params)) == texts(alone.generate(PROMPTS, params))
    settle(*pair)


@pytest.mark.parametrize("connector", ["http", "shm"])
def test_answers_do_not_depend_on_how_keys_and_values_go(connector, folder, alone, pair):
    with up(worker(folder, "prefill", connector=connector)) as prompt:
        router = RouterLLM(folder, [prompt.url, pair[1].url])
        assert texts(router.generate(PROMPTS, GREEDY)) == texts(alone.generate(PROMPTS, GREEDY))
        settle(prompt, pair[1])
        # The transfers of a few prompts take turns with a few rings, or none.
        assert (len(prompt._rings._idle) > 0) == (connector == "shm")


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0, max_tokens=8, logprobs=3),
        SamplingParams(temperature=0, max_tokens=8, prompt_logprobs=2),
        SamplingParams(seed=2, max_tokens=6, n=2, logprobs=0, prompt_logprobs=1),
        SamplingParams(temperature=0, max_tokens=1, logprobs=1, prompt_logprobs=0),
    ],
)
def test_log_probabilities_are_those_of_one_process(router, alone, pair, params):
    def scores(outputs):
        prompts = [one.prompt_logprobs or [] for one in outputs]
        return prompts + [out.logprobs or [] for one in outputs for out in one.outputs]

    found = scores(router.generate(PROMPTS, params))
    expected = scores(alone.generate(PROMPTS, params))
    assert [len(one) for one in found] == [len(one) for one in expected]
    for mine, theirs in zip(chain(*found), chain(*expected), strict=True):
        assert (mine.id, mine.text) == (theirs.id, theirs.text)
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-4, nan_ok=True)
        assert [one[:2] for one in mine.top] == [one[:2] for one in theirs.top]
    settle(*pair)


def test_adapters_are_chosen_by_name_on_both_sides(folder, tmp_path):
    loras = {name: save_small_adapter(tmp_path / name, i) for i, name in enumerate("rb")}
    one = LLM(folder, dtype="float32", max_context=200, loras=loras)
    params = [dataclasses.replace(GREEDY, adapter=name) for name in ("r", "b", None, "r")]
    prompts = ["some prompt of two blocks and more"] * 4
    with (
        up(worker(folder, "prefill", loras=loras)) as prompt,
        up(worker(folder, "decode", loras=loras)) as token,
    ):
        router = RouterLLM(folder, [prompt.url, token.url])
        expected = texts(one.generate(prompts, params))
        assert len({str(text) for text in expected}) == 3
        for _ in range(2):  # the second time, prefixes are known
            assert texts(router.generate(prompts, params)) == expected
        assert router.embed("x", adapter="r").embedding == one.embed("x", adapter="r").embedding
        token.state.llm.engine.adapters.unload("r")
        token.state.llm.engine.adapters.load("r", loras["b"])
        with pytest.raises(ExecutionError, match="this worker's adapter 'r' is"):
            router.generate(prompts[:1], params[0])
        with pytest.raises(ConfigError, match="same adapter 'r'"):
            RouterLLM(folder, [prompt.url, token.url])
        token.state.llm.engine.adapters.unload("r")
        with pytest.raises(ConfigError, match="has none"):
            RouterLLM(folder, [prompt.url, token.url])
        settle(prompt, token)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_vectors_come_from_a_prompt_worker_alone(router, alone, pair, pooling):
    steps = []
    pair[1].state.llm.engine.on_step = steps.append
    found = router.embed(PROMPTS, pooling=pooling)
    expected = alone.embed(PROMPTS, pooling=pooling)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.embedding == pytest.approx(theirs.embedding, abs=1e-5)
    assert steps == []
    settle(*pair)


def test_a_vector_that_nobody_waits_for_is_given_up(router, pair):
    job = router.engine.embed([5] * 150, lambda job: None)
    router.engine.cancel([job])
    while router.engine.step():
        time.sleep(0.001)
    assert job.finish_reason in ("cancelled", "stop")
    settle(*pair)


def test_prompts_go_to_one_worker_and_tokens_to_the_other(router, pair):
    steps = [[], []]
    for server, seen in zip(pair, steps, strict=True):
        server.state.llm.engine.on_step = seen.append
    router.generate(["z" * 70], GREEDY)
    deadline = time.monotonic() + 10  # an answer is out before its round is counted
    while sum(steps[0]) < 70 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sum(steps[0]) == 70
    assert max(steps[0]) == 32  # in parts, each sent on as it is computed
    assert steps[1] == [1] * len(steps[1]) and len(steps[1]) in range(1, 12)


def test_prefixes_known_to_the_prompt_worker_are_sent_along(router, alone, pair):
    prompt = "w" * 64 + "first"
    router.generate([prompt], GREEDY)
    hits = pair[0].state.llm.engine.scheduler.prefix_hits
    again = [prompt[:66] + "second"]
    assert texts(router.generate(again, GREEDY)) == texts(alone.generate(again, GREEDY))
    assert pair[0].state.llm.engine.scheduler.prefix_hits - hits >= 64
    settle(*pair)


def test_a_router_serves_the_ordinary_api_and_cancels_on_both_sides(folder, alone, pair):
    server = ApiServer(
        ServerConfig(name="tiny", port=0, drain_s=1),
        lambda: RouterLLM(folder, [one.url for one in pair]),
    )
    with up(server), openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as api:
        settings = {"model": "tiny", "prompt": "hi", "temperature": 0, "max_tokens": 8}
        whole = api.completions.create(**settings)
        chunks = list(api.completions.create(**settings, stream=True))
        assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
        stream = api.completions.create(
            **{**settings, "max_tokens": 190}, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        stream.close()
        settle(*pair)
        several = api.completions.create(**settings, n=2, logprobs=1, echo=True).choices
        assert [choice.text for choice in several] == ["hi" + whole.choices[0].text] * 2
        assert [len(choice.logprobs.token_logprobs) for choice in several] == [10, 10]
        vector = api.embeddings.create(model="tiny", input="some text").data[0].embedding
        assert vector == alone.embed("some text").embedding
        settle(*pair)


def test_a_worker_that_dies_is_replaced_when_nothing_was_streamed(folder, alone, pair):
    dying = worker(folder, "decode")
    with up(dying):
        router = RouterLLM(folder, [dying.url, pair[0].url, pair[1].url])
        assert texts(router.generate(PROMPTS, GREEDY)) == texts(alone.generate(PROMPTS, GREEDY))
    # It is gone now; requests that would go there go elsewhere.
    assert texts(router.generate(PROMPTS, GREEDY)) == texts(alone.generate(PROMPTS, GREEDY))
    assert router.engine.workers[0].down_s is not None
    settle(*pair)


@contextlib.contextmanager
def process(folder, role):
    words = ["--role", role, "--port", "0", "--json", "--dtype", "float32", "--max-context", "200"]
    own = ["--kv-connector", "shm", "--layerwise-from", "1", "--max-batched-tokens", "32"]
    made = subprocess.Popen(
        [sys.executable, "-m", "sharpen.cli.main", "serve", str(folder), *words, *own],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield made, json.loads(made.stdout.readline())["url"]
    finally:
        made.kill()
        _, errors = made.communicate(timeout=30)
    assert not [line for line in errors.splitlines() if "resource_tracker" in line]


@pytest.mark.slow
@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_process_killed_in_a_transfer_leaves_no_memory_and_no_blocks(role, folder, alone, pair):
    prompts = ["n" * 150, "o" * 150]
    survivor = pair[1] if role == "prefill" else pair[0]
    engine, store = survivor.state.llm.engine, survivor.state.llm.engine.store
    with process(folder, role) as (child, url):

        def kill_first(*record):
            child.kill()
            child.wait()
            store(*record)

        if role == "prefill":
            engine.store = kill_first  # at the first of its records
        else:
            engine.on_step = lambda tokens: child.kill()  # after the first part of the prompt
        workers = [url, survivor.url] if role == "prefill" else [survivor.url, url]
        router = RouterLLM(folder, workers)
        with contextlib.suppress(ExecutionError):  # where a first token was out before the end
            assert texts(router.generate(prompts, GREEDY)) == texts(alone.generate(prompts, GREEDY))
        engine.store, engine.on_step = store, None
        answers = texts(router.generate(prompts, GREEDY))
    assert child.returncode == -signal.SIGKILL
    assert answers == texts(alone.generate(prompts, GREEDY))
    settle(survivor)
    left = [one.name for one in Path("/dev/shm").iterdir()]
    assert not [one for one in left if one.startswith(("psm_", "sharpen-kv"))]


def test_a_stream_whose_worker_dies_ends_with_an_error(folder, pair):
    dying = worker(folder, "decode")
    with up(dying):
        router = RouterLLM(folder, [dying.url, pair[0].url])
        endless = SamplingParams(temperature=0, max_tokens=190, ignore_eos=True)
        engine, steps = dying.state.llm.engine, []

        def lose_it_later(tokens):
            steps.append(tokens)
            if len(steps) == 20:
                engine.cancel(list(engine._running.values()))

        engine.on_step = lose_it_later
        pieces = router.stream("hello", endless)
        with pytest.raises(ExecutionError, match="failed"):
            list(pieces)
    settle(pair[0])


def test_with_one_kind_left_both_phases_go_there(folder, alone, pair):
    dying = worker(folder, "prefill")
    with up(dying):
        router = RouterLLM(folder, [dying.url, pair[1].url])
        router.generate(["warm"], GREEDY)
    assert texts(router.generate(PROMPTS, GREEDY)) == texts(alone.generate(PROMPTS, GREEDY))
    settle(pair[1])


def test_requests_wait_for_room(folder, alone, pair):
    # 12 blocks of 16 hold one long request at a time.
    small = 12 * 2 * 2 * 16 * 32 * 4
    with up(worker(folder, "decode", kv_cache_memory=small, max_context=190)) as token:
        router = RouterLLM(folder, [pair[0].url, token.url], policy="kv_round_robin")
        prompts = ["q" * 100, "r" * 100, "s" * 100]
        assert texts(router.generate(prompts, GREEDY)) == texts(alone.generate(prompts, GREEDY))
        settle(token, pair[0])


def test_other_weights_are_refused_with_both_fingerprints(folder, pair, tmp_path):
    other = save_small_model(tmp_path / "other", seed=1)
    with up(worker(other, "decode")) as stranger:
        mine, theirs = pair[0].state.llm.fingerprint, stranger.state.llm.fingerprint
        with pytest.raises(ConfigError, match=f"(?s){mine}.*{theirs}"):
            RouterLLM(folder, [pair[0].url, stranger.url])
        body = {"id": "ab" * 8, "prompt": [5], "params": pack_params(GREEDY), "fingerprint": mine}
        link = http.client.HTTPConnection(stranger.url.removeprefix("http://"), timeout=10)
        link.request(
            "POST", "/split/tokens", json.dumps(body), {"Content-Type": "application/json"}
        )
        answer = link.getresponse()
        assert answer.status == 409
        assert "fingerprint_mismatch" in answer.read().decode()
        link.close()


def test_what_a_router_cannot_do_is_refused(folder, pair, router):
    with pytest.raises(ConfigError, match="needs workers"):
        RouterLLM(folder, [])
    with pytest.raises(ConfigError, match="is no address"):
        RouterLLM(folder, ["127.0.0.1:1"])
    with pytest.raises(ExecutionError, match="does not answer"):
        RouterLLM(folder, ["http://127.0.0.1:9"])
    with pytest.raises(ConfigError, match="at least one prompt and one token"):
        RouterLLM(folder, [pair[0].url])
    with pytest.raises(ConfigError, match="there is no adapter 'red'"):
        router.generate(["x"], SamplingParams(max_tokens=4, adapter="red"))
    with pytest.raises(ConfigError, match="the adapters that its workers have"):
        router.engine.adapters.load("red", folder)
    with pytest.raises(DataError, match="outside 0"):
        router.engine.embed([9999], print)
    with pytest.raises(ConfigError, match="role='router'"):
        WorkerConfig(role="router")
    with pytest.raises(ConfigError, match="kv-policy"):
        SplitLLM(folder, dtype="float32", kv_policy="window", kv_budget=32)


def test_loads_are_as_before_when_all_is_done_and_lent_workers_go_home(folder, pair):
    router = RouterLLM(folder, [one.url for one in pair])
    for one in router.engine.workers:
        one.capacity = 20  # so that every request finds the token worker's memory full
    for params in (SamplingParams(temperature=0, max_tokens=1), GREEDY):
        router.generate(PROMPTS, params)
    deadline = time.monotonic() + 20

    def loads():
        return [
            (one.pending_tokens, one.reserved_tokens, one.foreign, one.num_jobs)
            for one in router.engine.workers
        ]

    while any(map(any, loads())) and time.monotonic() < deadline:
        time.sleep(0.01)  # the last token is out before its worker is let go
    assert loads() == [(0, 0, 0, 0)] * len(router.engine.workers)
    policy = router.engine._policy
    assert ([one.number for one in policy.prompt], policy.mixed) == ([0], [])
    settle(*pair)


def test_keys_and_values_for_nobody_are_refused(pair):
    link = http.client.HTTPConnection(pair[1].url.removeprefix("http://"), timeout=10)
    link.request("PUT", "/split/kv/" + "0" * 32, b"")
    assert link.getresponse().status == 404
    link.close()


def test_parameters_survive_the_way():
    params = SamplingParams(
        seed=3, logit_bias={7: 1.5}, stop_token_ids=(4,), grammar=Grammar.regex("a+"), stop=("x",)
    )
    again = unpack_params(json.loads(json.dumps(pack_params(params))))
    assert (again.seed, again.logit_bias, again.stop_token_ids) == (3, {7: 1.5}, (4,))
    assert again.grammar == params.grammar
    with pytest.raises(ConfigError, match="cannot be used"):
        unpack_params({"unknown": 1})
