import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from serving import running
from sharpen.core.errors import ConfigError, DataError, MissingFileError, SharpenError
from sharpen.core.lm import LM, Budget, ReplyError, RequestError
from sharpen.serve import LLM, SamplingParams
from sharpen.serve.lm_backend import LocalEngine
from small_models import save_small_model

SCORE = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 5}},
    "required": ["score"],
    "additionalProperties": False,
}
PROMPTS = ["Hi", "What is 2 + 2?", "def add(a, b):", "Once upon a time", "x" * 50]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def llm(folder: Path) -> LLM:
    return LLM(folder, dtype="float32")


@pytest.fixture
def lm(llm: LLM) -> LM:
    return LM(LocalEngine(llm), max_tokens=12)


def test_it_says_what_the_model_says(lm: LM, llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=12)
    for prompt in PROMPTS:
        output = llm.chat([{"role": "user", "content": prompt}], params)
        response = lm.chat(prompt)
        assert response.text == output.text
        assert response.finish_reasons == [output.outputs[0].finish_reason]
        assert response.usage is not None
        assert response.usage.prompt == len(output.prompt_ids)
        assert response.usage.completion == len(output.outputs[0].ids)
        assert "".join(lm.stream(prompt)) == output.text


def test_many_prompts_run_as_one_batch_and_say_the_same(lm: LM) -> None:
    one_by_one = [lm(prompt) for prompt in PROMPTS]
    assert lm.map(PROMPTS, concurrency=5) == one_by_one
    assert asyncio.run(lm.amap(PROMPTS)) == one_by_one


def test_every_parameter_reaches_the_model(lm: LM, llm: LLM) -> None:
    asked: dict[str, Any] = {
        "temperature": 0.9,
        "top_p": 0.8,
        "seed": 5,
        "n": 2,
        "max_tokens": 8,
        "extra": {
            "top_k": 20,
            "min_p": 0.01,
            "repetition_penalty": 1.2,
            "presence_penalty": 0.1,
            "frequency_penalty": 0.2,
            "logit_bias": {"65": 2.0},
            "min_tokens": 3,
        },
    }
    response = lm.chat("Hi", **asked)
    params = SamplingParams(
        temperature=0.9,
        top_p=0.8,
        seed=5,
        n=2,
        max_tokens=8,
        top_k=20,
        min_p=0.01,
        repetition_penalty=1.2,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logit_bias={65: 2.0},
        min_tokens=3,
    )
    output = llm.chat([{"role": "user", "content": "Hi"}], params)
    assert response.texts == [one.text for one in output.outputs]
    text = lm("Hi")
    assert lm("Hi", stop=[text[2:4]]) == text.partition(text[2:4])[0]
    assert lm("Hi", extra={"guided_choice": ["yes", "no"]}) in ("yes", "no")


def test_log_probabilities_stand_in_the_raw_answer(lm: LM) -> None:
    response = lm.chat("Hi", logprobs=3)
    (choice,) = response.raw["choices"]
    tokens = choice["logprobs"]["content"]
    assert response.usage is not None
    assert len(tokens) == response.usage.completion
    assert all(len(token["top_logprobs"]) == 3 for token in tokens)
    assert lm.chat("Hi").raw is None


def test_a_schema_holds_even_a_model_that_knows_nothing() -> None:
    lm = LM("local:tiny")
    for i in range(5):
        value = lm.json(f"Score {i}.", SCORE, max_tokens=100, retries=0, temperature=1.0, seed=i)
        assert set(value) == {"score"}
        assert value["score"] in range(6)


@pytest.mark.parametrize(
    ("sampling", "kind", "message"),
    [
        ({"extra": {"topk": 3}}, RequestError, "unknown field 'topk'. Did you mean 'top_k'"),
        ({"extra": {"top_k": "x"}}, RequestError, "top_k"),
        ({"extra": {"best_of": 2}}, RequestError, "best_of is not supported"),
        ({"extra": {"min_p": 7.0}}, ConfigError, "min_p=7.0"),
        (
            {"extra": {"tools": [{"type": "function", "function": {"name": "f"}}]}},
            RequestError,
            "s",
        ),
        ({"response_format": {"type": "xml"}}, RequestError, "response_format"),
    ],
)
def test_what_the_server_would_refuse_is_refused(
    lm: LM, sampling: Any, kind: type[SharpenError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        lm("Hi", **sampling)
    with pytest.raises(DataError, match="context"):
        lm("x" * 10_000)


def test_budgets_hold_for_it(llm: LLM) -> None:
    budget = Budget(max_tokens=600)
    lm = LM(LocalEngine(llm), budget=budget, max_tokens=12)
    with pytest.raises(SharpenError, match="max_tokens=600 would be exceeded"):
        lm.map(PROMPTS * 20)
    assert 0 < budget.spent.tokens <= 600
    assert budget.spent.tokens == lm.usage.tokens


def test_the_same_name_is_loaded_once_and_another_file_is_another_model(
    folder: Path, tmp_path: Path
) -> None:
    first = LM(f"local:{folder}", options={"dtype": "float32"})
    assert LM(f"local:{folder}", options={"dtype": "float32"}).engine is first.engine
    other = LM(f"local:{folder}", options={"dtype": "float32", "max_batch": 2})
    assert other.engine is not first.engine
    cache = tmp_path / "replies.sqlite"
    moving = save_small_model(tmp_path / "moving", seed=1)
    said = LM(f"local:{moving}", cache=cache, max_tokens=12)("Hi")
    save_small_model(moving, seed=2)
    again = LM(f"local:{moving}", cache=cache, max_tokens=12)
    assert again("Hi") != said
    assert again.usage.calls == 1


def test_names_that_are_none_are_refused() -> None:
    with pytest.raises(MissingFileError, match="nothere"):
        LM("local:nothere")
    with pytest.raises(ConfigError, match="must be plain data"):
        LM("local:tiny", options={"dtype": object()})


def test_an_asset_is_found_by_the_beginning_of_its_name() -> None:
    lm = LM("local:tin", max_tokens=5)
    assert lm.model == "tiny"
    assert lm("def add(a, b):") == LM("local:tiny", max_tokens=5)("def add(a, b):")


@pytest.mark.slow
def test_a_served_model_says_the_same_as_one_in_this_process(folder: Path, lm: LM) -> None:
    with running(folder) as server, LM(f"{server.url}/v1", max_tokens=12) as served:
        assert served.model == "tiny"
        assert served.map(PROMPTS) == lm.map(PROMPTS)
        local, remote = lm.chat("Hi", logprobs=2), served.chat("Hi", logprobs=2)
        assert remote.usage == local.usage
        for field in ("logprobs", "message"):
            assert remote.raw["choices"][0][field] == local.raw["choices"][0][field]
        assert "".join(served.stream("Hi")) == lm("Hi")
        answer = {"enum": ["yes", "no", "perhaps"]}  # no white space, which this model would love
        assert served.json("Well?", answer, retries=0) == lm.json("Well?", answer, retries=0)
        with pytest.raises(RequestError, match="context"):
            served("x" * 10_000)
        with pytest.raises(RequestError, match="top_k"):
            served("Hi", extra={"top_k": -7})
        with pytest.raises(ReplyError, match="cut off"):
            served.json("Score.", {"type": "string", "minLength": 50}, retries=1)
        assert json.dumps(remote.raw)


@pytest.mark.slow
@pytest.mark.asset
def test_a_real_model_answers_by_a_schema() -> None:
    lm = LM("local:smollm2", max_tokens=40)
    schema = {
        "type": "object",
        "properties": {"capital": {"type": "string"}},
        "required": ["capital"],
        "additionalProperties": False,
    }
    assert "Paris" in lm.json("What is the capital of France?", schema)["capital"]
