"""Vectors, tokens and scores of prompts, in Python and over HTTP."""

import base64
import json
import math
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest
import torch

from serving import running
from sharpen.core.errors import ConfigError, DataError
from sharpen.models import load_model
from sharpen.serve import LLM, SamplingParams
from small_models import save_small_model

TEXTS = ["a", "some longer text of many tokens " * 3, "ab"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def llm(folder):
    return LLM(folder, dtype="float32", max_batched_tokens=20)


@pytest.fixture(scope="module")
def server(folder):
    with running(folder) as one:
        yield one


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as one:
        yield one


def states(folder, llm, text):
    with torch.no_grad():
        return load_model(folder).hidden(torch.tensor([llm.encode(text)]))[0]


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_vectors_are_the_states_of_the_model(folder, llm, pooling):
    for _ in range(2):  # the second time, prefixes are known
        outputs = llm.embed(TEXTS, pooling=pooling, normalize=False)
        for text, output in zip(TEXTS, outputs, strict=True):
            own = states(folder, llm, text)
            expected = own[-1] if pooling == "last" else own.mean(0)
            found = torch.tensor(output.embedding)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert llm.engine.scheduler.pool.num_used == 0


def test_vectors_are_cut_before_they_are_normed(folder, llm):
    whole = llm.embed("some text")
    assert math.isclose(np.linalg.norm(whole.embedding), 1, rel_tol=1e-5)
    cut = np.array(llm.embed("some text", dimensions=8).embedding)
    expected = np.array(whole.embedding[:8])
    np.testing.assert_allclose(cut, expected / np.linalg.norm(expected), rtol=1e-5)
    assert llm.embed([]) == []


def test_embeddings_run_beside_continuations_even_where_these_give_way(folder):
    size = 16 * 2 * 2 * 2 * 16 * 4  # a block of 16 tokens of the small model
    llm = LLM(folder, dtype="float32", kv_cache_memory=14 * size, max_batched_tokens=24)
    params = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    alone = [LLM(folder, dtype="float32").generate("x" * n, params).text for n in (20, 30, 40)]
    with ThreadPoolExecutor(2) as pool:
        texts = pool.submit(llm.generate, ["x" * n for n in (20, 30, 40)], params)
        vectors = pool.submit(llm.embed, ["y" * 90] * 8, pooling="mean")
        assert [output.text for output in texts.result()] == alone
        found = np.array([output.embedding for output in vectors.result()])
    assert np.abs(found - found[0]).max() < 1e-4


def test_the_folder_says_how_states_become_one(folder, tmp_path):
    copy = save_small_model(tmp_path / "mean")
    (copy / "1_Pooling").mkdir()
    (copy / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    assert LLM(copy, dtype="float32").pooling == "mean"
    assert LLM(folder, dtype="float32").pooling == "last"


def test_what_has_no_vector_is_refused(llm):
    for texts, error in ((["", "a"], DataError), (["x" * 300], DataError), ([[999]], DataError)):
        with pytest.raises(error):
            llm.embed(texts)
    for dimensions in (0, 65):
        with pytest.raises(ConfigError, match="dimensions"):
            llm.embed("a", dimensions=dimensions)
    assert not llm.engine.step()


def test_the_prompts_tokens_are_scored(folder, llm):
    params = SamplingParams(temperature=0, max_tokens=3, prompt_logprobs=2, logprobs=0)
    for _ in range(2):
        output = llm.generate("a prompt of more tokens than fit a round", params)
        ids = output.prompt_ids
        with torch.no_grad():
            logits = load_model(folder)(torch.tensor([ids]))[0]
        expected = torch.log_softmax(logits, -1)
        assert [one.id for one in output.prompt_logprobs] == ids
        assert math.isnan(output.prompt_logprobs[0].logprob)
        for i, one in enumerate(output.prompt_logprobs[1:]):
            assert math.isclose(one.logprob, float(expected[i, ids[i + 1]]), abs_tol=1e-3)
            assert one.top[0][0] == int(expected[i].argmax())
            assert len(one.top) == 2
    assert output.outputs[0].ids == llm.generate(ids_text(llm, ids), params).outputs[0].ids


def ids_text(llm, ids):
    return llm.tokenizer.decode(ids)


def test_prompts_are_scored_when_a_sequence_gave_way(folder):
    size = 16 * 2 * 2 * 2 * 16 * 4
    llm = LLM(folder, dtype="float32", kv_cache_memory=14 * size, max_batched_tokens=24)
    params = SamplingParams(temperature=0, max_tokens=80, ignore_eos=True, prompt_logprobs=0)
    outputs = llm.generate(["x" * 60] * 3, params)
    assert llm.engine.scheduler.num_preemptions > 0
    for output in outputs:
        assert [one.id for one in output.prompt_logprobs] == output.prompt_ids


def test_embeddings_over_http(client, folder, llm):
    expected = [output.embedding for output in llm.embed(TEXTS)]
    for texts in (TEXTS, [llm.encode(text) for text in TEXTS]):
        answer = client.embeddings.create(model="tiny", input=texts)  # base64, by its default
        assert [one.index for one in answer.data] == [0, 1, 2]
        np.testing.assert_allclose([one.embedding for one in answer.data], expected, atol=1e-4)
    for text in (TEXTS[1], llm.encode(TEXTS[1])):
        answer = client.embeddings.create(model="tiny", input=text, encoding_format="float")
        np.testing.assert_allclose(answer.data[0].embedding, expected[1], atol=1e-4)
    assert answer.usage.prompt_tokens == len(llm.encode(TEXTS[1]))
    cut = client.embeddings.create(model="tiny", input="a", dimensions=4)
    np.testing.assert_allclose(
        cut.data[0].embedding, llm.embed("a", dimensions=4).embedding, atol=1e-4
    )
    mean = client.embeddings.create(model="tiny", input=TEXTS, extra_body={"pooling": "mean"})
    np.testing.assert_allclose(
        mean.data[1].embedding, llm.embed(TEXTS[1], pooling="mean").embedding, atol=1e-4
    )


def test_base64_is_of_little_endian_float32(server):
    body = {"model": "tiny", "input": "a"}
    url = f"{server.url}/v1/embeddings"
    plain = httpx.post(url, json=body).json()["data"][0]["embedding"]
    coded = httpx.post(url, json={**body, "encoding_format": "base64"}).json()["data"][0]
    assert np.frombuffer(base64.b64decode(coded["embedding"]), "<f4").tolist() == pytest.approx(
        plain, abs=1e-7
    )


def test_more_texts_than_run_at_once_are_embedded(client):
    answer = client.embeddings.create(model="tiny", input=[f"text {i}" for i in range(300)])
    assert len(answer.data) == 300


@pytest.mark.parametrize(
    "change",
    [
        {"input": []},
        {"input": ""},
        {"input": [""]},
        {"input": [[]]},
        {"input": [999]},
        {"input": [-1]},
        {"input": "x" * 300},
        {"input": ["a"] * 3000},
        {"input": 3},
        {"input": {"a": 1}},
        {"dimensions": 0},
        {"dimensions": 10**9},
        {"encoding_format": "hex"},
        {"extra_body": {"pooling": "max"}},
        {"extra_body": {"priority": 1e300}},
        {"extra_body": {"colour": 1}},
    ],
)
def test_wrong_embedding_requests_are_refused(client, change):
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(**{"model": "tiny", "input": "a", **change})


def test_texts_become_tokens_and_back(server, llm):
    def post(path, **body):
        return httpx.post(f"{server.url}/{path}", json=body)

    answer = post("tokenize", model="tiny", prompt="hé<|im_end|>").json()
    assert answer["tokens"] == llm.encode("hé<|im_end|>")
    assert answer["count"] == len(answer["tokens"])
    assert answer["max_model_len"] == 256
    assert post("detokenize", tokens=answer["tokens"]).json() == {"prompt": "hé<|im_end|>"}
    messages = [{"role": "user", "content": "hi"}]
    assert post("tokenize", messages=messages).json()["tokens"] == llm.encode_chat(messages)
    for path, body in (
        ("tokenize", {}),
        ("tokenize", {"prompt": "a", "messages": messages}),
        ("tokenize", {"prompt": 3}),
        ("tokenize", {"messages": [3]}),
        ("detokenize", {"tokens": [-1]}),
        ("detokenize", {"tokens": [1 << 40]}),
        ("detokenize", {"tokens": "a"}),
    ):
        assert post(path, **body).status_code == 400
    assert post("tokenize", model="huge", prompt="a").status_code == 404


def test_echo_comes_with_scores(client, llm):
    settings = {"model": "tiny", "prompt": ["abc", "d"], "temperature": 0, "max_tokens": 4}
    whole = client.completions.create(**settings, echo=True, logprobs=2)
    plain = client.completions.create(**settings, logprobs=2)
    chunks = list(client.completions.create(**settings, echo=True, logprobs=2, stream=True))
    for index, (choice, prompt) in enumerate(zip(whole.choices, settings["prompt"], strict=True)):
        count = len(llm.encode(prompt))
        scores = choice.logprobs
        assert choice.text == prompt + plain.choices[index].text
        assert scores.token_logprobs[0] is None
        assert scores.top_logprobs[0] is None
        assert scores.tokens[:count] == list(prompt)
        assert scores.token_logprobs[count:] == pytest.approx(
            plain.choices[index].logprobs.token_logprobs, abs=1e-4
        )
        assert scores.text_offset[0] == 0
        own = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == index]
        assert "".join(one.text for one in own) == choice.text
        assert [t for one in own for t in one.logprobs.tokens] == scores.tokens
        assert [t for one in own for t in one.logprobs.text_offset] == scores.text_offset
