"""Adapters chosen by request, in Python and over HTTP."""

import httpx
import openai
import pytest

from serving import running
from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError
from sharpen.serve import LLM, SamplingParams
from sharpen.serve.api.server import ApiServer, ServerConfig
from small_models import save_small_adapter, save_small_model

PROMPT = "some prompt of a few blocks that are known the second time"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    save_small_model(root / "base")
    save_small_adapter(root / "red", 1)
    save_small_adapter(root / "blue", 2, targets=("q_proj", "down_proj"), rslora=True)
    save_small_adapter(root / "dora", 3, dora=True)
    return root


def params(adapter=None, **settings):
    settings = {"temperature": 0, "max_tokens": 12, "ignore_eos": True, **settings}
    return SamplingParams(adapter=adapter, **settings)


def merged(folders, name):
    adapter = folders / name if name else None
    return LLM(folders / "base", dtype="float32", adapter=adapter).generate(PROMPT, params()).text


def test_one_batch_answers_as_each_merged_model_does(folders):
    loras = {"red": folders / "red", "blue": folders / "blue"}
    llm = LLM(folders / "base", dtype="float32", loras=loras, speculate="ngram")
    names = [None, "red", "blue", "red", None, "blue"]
    expected = {name: merged(folders, name) for name in (None, "red", "blue")}
    assert len(set(expected.values())) == 3
    for _ in range(2):  # the second time, prefixes are known
        outputs = llm.generate([PROMPT] * 6, [params(name) for name in names])
        assert [output.text for output in outputs] == [expected[name] for name in names]
    assert llm.engine.scheduler.prefix_hits > 0


def test_a_reloaded_adapter_shares_nothing_with_the_one_before(folders):
    llm = LLM(folders / "base", dtype="float32", loras={"mine": folders / "red"})
    red = llm.generate(PROMPT, params("mine")).text
    llm.engine.adapters.unload("mine")
    with pytest.raises(ConfigError, match="no adapter 'mine'"):
        llm.generate(PROMPT, params("mine"))
    llm.engine.adapters.load("mine", folders / "blue")
    assert llm.generate(PROMPT, params("mine")).text == merged(folders, "blue") != red


def test_a_request_keeps_the_adapter_it_began_with(folders):
    llm = LLM(folders / "base", dtype="float32", loras={"red": folders / "red"})
    stream = llm.stream(PROMPT, params("red"))
    text = next(stream).text
    llm.engine.adapters.unload("red")
    assert text + "".join(piece.text for piece in stream) == merged(folders, "red")


def test_what_cannot_be_loaded_is_refused(folders):
    llm = LLM(folders / "base", dtype="float32", loras={"red": folders / "red"}, max_loras=2)
    adapters = llm.engine.adapters
    for name, folder, error, message in (
        ("red", "blue", ConfigError, "taken"),
        (" ", "blue", ConfigError, "name"),
        ("x", "nowhere", MissingFileError, "nowhere"),
        ("x", "base", MissingFileError, "adapter_config"),
        ("x", "dora", FileFormatError, "DoRA"),
    ):
        with pytest.raises(error, match=message):
            adapters.load(name, folders / folder)
    adapters.load("blue", folders / "blue")
    with pytest.raises(ConfigError, match="max_loras=2"):
        adapters.load("more", folders / "blue")
    assert [one.name for one in adapters] == ["red", "blue"]
    with pytest.raises(ConfigError, match="max_loras=-1"):
        LLM(folders / "base", dtype="float32", max_loras=-1)


def test_clients_choose_an_adapter_by_the_model(folders):
    engine = {"loras": {"red": folders / "red"}, "max_loras": 2}
    with (
        running(folders / "base", engine=engine, allow_runtime_lora=True) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client,
    ):

        def ask(model):
            answer = client.completions.create(
                model=model,
                prompt=PROMPT,
                temperature=0,
                max_tokens=12,
                extra_body={"ignore_eos": True},
            )
            assert answer.model == model
            return answer.choices[0].text

        def post(path, **body):
            return httpx.post(f"{server.url}/v1/{path}", json=body, timeout=30)

        assert [one.id for one in client.models.list()] == ["tiny", "red"]
        assert client.models.retrieve("red").parent == "tiny"
        assert ask("tiny") == merged(folders, None)
        assert ask("red") == merged(folders, "red")
        with pytest.raises(openai.NotFoundError, match="'tiny', 'red'"):
            ask("blue")
        made = post("load_lora_adapter", lora_name="blue", lora_path=str(folders / "blue"))
        assert (made.status_code, made.json()["id"]) == (200, "blue")
        assert ask("blue") == merged(folders, "blue")
        for body in (
            {"lora_name": "tiny", "lora_path": str(folders / "blue")},
            {"lora_name": "x", "lora_path": str(folders / "nowhere")},
            {"lora_name": "x", "lora_path": "/dev/null"},
            {"lora_name": "x"},
            {"lora_name": 3, "lora_path": []},
        ):
            answer = post("load_lora_adapter", **body)
            assert answer.status_code == 400
            assert answer.json()["error"]["message"]
        assert post("unload_lora_adapter", lora_name="red").json()["deleted"] is True
        assert post("unload_lora_adapter", lora_name="red").status_code == 400
        with pytest.raises(openai.NotFoundError):
            ask("red")


def test_clients_change_nothing_unless_they_may(folders):
    with running(folders / "base") as server:
        for path in ("load_lora_adapter", "unload_lora_adapter"):
            body = {"lora_name": "red", "lora_path": str(folders / "red")}
            answer = httpx.post(f"{server.url}/v1/{path}", json=body)
            assert answer.status_code == 403
            assert "--allow-runtime-lora" in answer.json()["error"]["message"]


def test_no_adapter_has_the_models_name(folders):
    config = ServerConfig(name="red", port=0)
    loras = {"red": folders / "red"}
    server = ApiServer(config, lambda: LLM(folders / "base", dtype="float32", loras=loras))
    with pytest.raises(ConfigError, match="the model's name"):
        server.run()
