import pytest
import torch

from sharpen.compress import Grid, save_quantized
from sharpen.core.errors import ConfigError, DataError, ExecutionError, MissingFileError
from sharpen.models import LoraConfig, add_lora, generate, load_model, merge_lora, save_adapter
from sharpen.models.chat import render_chat
from sharpen.models.devices import resolve_device
from sharpen.serve import LLM, SamplingParams
from sharpen.serve.llm import parse_bytes, resolve_dtype
from small_models import byte_tokenizer, save_small_model, small_model

GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def llm(folder):
    return LLM(folder, dtype="float32")


def test_one_prompt_gives_one_output_and_a_list_a_list(llm):
    one = llm.generate("ab", GREEDY)
    assert one.outputs[0].ids == generate(small_model(), [one.prompt_ids], max_new_tokens=8)[0].ids
    assert one.text == one.outputs[0].text == byte_tokenizer().decode(one.outputs[0].ids)
    assert one.prompt == "ab"
    several = llm.generate(["ab", one.prompt_ids], GREEDY)
    assert several == [one, one]
    assert llm.generate([], GREEDY) == []


def test_each_prompt_may_have_its_own_parameters(llm):
    params = [SamplingParams(max_tokens=n, ignore_eos=True, seed=n) for n in (1, 5)]
    found = llm.generate(["a", "b"], params)
    assert [len(output.outputs[0].ids) for output in found] == [1, 5]
    with pytest.raises(ConfigError, match="2 SamplingParams for 1"):
        llm.generate(["a"], params)
    with pytest.raises(ConfigError, match="one prompt"):
        llm.generate("a", params)
    with pytest.raises(ConfigError, match="one conversation"):
        llm.chat([{"role": "user", "content": "a"}], params)


def test_chat_renders_the_template(llm):
    messages = [{"role": "user", "content": "hi"}]
    output = llm.chat(messages, GREEDY)
    expected = render_chat(byte_tokenizer(), messages, add_generation_prompt=True)
    assert output.prompt == expected
    assert llm.chat([messages, messages], GREEDY) == [output, output]
    with pytest.raises(DataError, match="non-empty"):
        llm.chat([], GREEDY)


def test_continuations_of_one_prompt_differ_and_are_reproducible(llm):
    params = SamplingParams(n=3, seed=4, max_tokens=8)
    first, again = llm.generate("ab", params), llm.generate("ab", params)
    assert first == again
    assert len({tuple(output.ids) for output in first.outputs}) == 3
    assert [output.index for output in first.outputs] == [0, 1, 2]
    alone = llm.generate("ab", SamplingParams(seed=4, max_tokens=8))
    assert alone.outputs[0] == first.outputs[0]


def test_a_stream_gives_the_same_text_in_pieces(llm):
    params = SamplingParams(seed=1, max_tokens=24)
    pieces = list(llm.stream("ab", params))
    assert "".join(piece.text for piece in pieces) == llm.generate("ab", params).text
    assert len(pieces) > 3
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    chat = [{"role": "user", "content": "hi"}]
    streamed = "".join(piece.text for piece in llm.stream_chat(chat, params))
    assert streamed == llm.chat(chat, params).text


def test_streams_may_take_turns_and_be_left_early(llm):
    params = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True)
    expected = {prompt: llm.generate(prompt, params).text for prompt in ("ab", "cd")}
    one, two = llm.stream("ab", params), llm.stream("cd", params)
    texts = ["", ""]
    for a, b in zip(one, two, strict=False):
        texts[0] += a.text
        texts[1] += b.text
        if len(texts[0]) > 10:
            break
    one.close()
    texts[1] += "".join(piece.text for piece in two)
    assert texts[1] == expected["cd"]
    assert expected["ab"].startswith(texts[0])
    assert llm.engine.num_running == 0


def test_a_stop_text_is_cut_off(llm):
    whole = llm.generate("ab", SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)).text
    stop = whole[4:6]
    cut = llm.generate("ab", SamplingParams(temperature=0, max_tokens=40, stop=stop))
    assert cut.text == whole[: whole.index(stop)]
    assert cut.outputs[0].finish_reason == "stop"


def test_logprobs_come_with_every_token(llm):
    output = llm.generate("ab", SamplingParams(seed=0, max_tokens=6, logprobs=3)).outputs[0]
    assert output.logprobs is not None
    assert [one.id for one in output.logprobs] == output.ids
    assert all(len(one.top) == 3 and one.logprob <= one.top[0][2] for one in output.logprobs)


@pytest.mark.parametrize(("bits", "head"), [(4, "keep"), (8, "int8")])
def test_a_quantized_folder_is_served_as_its_model_decodes(tmp_path, bits, head):
    grid = Grid(bits=bits, group=32 if bits == 4 else None)
    save_quantized(small_model(), tmp_path / "q", grid, head=head, tokenizer=byte_tokenizer())
    found = LLM(tmp_path / "q", dtype="float32").generate([[40, 41], [42]], GREEDY)
    plain = generate(load_model(tmp_path / "q"), [[40, 41], [42]], max_new_tokens=8)
    assert [output.outputs[0].ids for output in found] == [one.ids for one in plain]


def test_an_adapter_is_folded_in(folder, tmp_path):
    model = small_model()
    config = LoraConfig(rank=2)
    add_lora(model, config, seed=1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(2))
    save_adapter(model, tmp_path / "adapter", config, base="tiny")
    merge_lora(model)
    llm = LLM(folder, dtype="float32", adapter=tmp_path / "adapter")
    expected = generate(model, [[40, 41]], max_new_tokens=8)[0].ids
    assert llm.generate([[40, 41]], GREEDY)[0].outputs[0].ids == expected


def test_new_weights_are_taken_over_between_requests(folder):
    llm, other = LLM(folder, dtype="float32"), small_model(seed=9)
    prompt = list(range(3, 40))
    before = llm.generate([prompt], GREEDY)
    stream = llm.stream(prompt, GREEDY)
    next(stream)
    with pytest.raises(ExecutionError, match="under way"):
        llm.update_weights(other)
    stream.close()
    llm.engine.run()
    llm.update_weights(other)  # nothing that the old ones made of the prompt is used
    after = llm.generate([prompt], GREEDY)
    assert after[0].outputs[0].ids == generate(other, [prompt], max_new_tokens=8)[0].ids
    llm.update_weights(small_model())
    assert llm.generate([prompt], GREEDY) == before


def test_a_continuation_knows_the_token_that_ended_it(llm):
    ended = []
    llm.engine.on_finish = ended.append
    bias = {2: 100.0}
    try:
        llm.generate("ab", SamplingParams(temperature=0, max_tokens=3, logit_bias=bias))
        llm.generate("ab", GREEDY)
    finally:
        llm.engine.on_finish = None
    assert [one.stop_id for one in ended] == [2, None]


def test_bad_requests_are_refused_before_any_work(llm):
    with pytest.raises(DataError, match="context holds 256"):
        llm.generate(["ok", "x" * 300])
    assert llm.engine.num_waiting == 0


def test_a_missing_model_is_named():
    with pytest.raises(MissingFileError, match="nowhere"):
        LLM("nowhere")


def test_types_are_resolved_by_name():
    assert resolve_dtype("float32") is torch.float32
    assert resolve_dtype(torch.float16) is torch.float16
    assert resolve_dtype("auto", "cuda") is torch.bfloat16
    assert resolve_dtype("auto") in (torch.bfloat16, torch.float32)
    with pytest.raises(ConfigError, match="int3"):
        resolve_dtype("int3")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "meta", "cuda:99", ""])
def test_devices_that_are_not_there_are_named(device):
    with pytest.raises(ConfigError, match="device="):
        resolve_device(device)


def test_a_device_by_itself():
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_options_of_the_engine_change_no_text(folder, llm):
    prompt, params = "abcabcabcabcabc" * 3, SamplingParams(temperature=0, max_tokens=24)
    other = LLM(
        folder,
        dtype="float32",
        max_batched_tokens=20,
        kv_cache_memory="1 MiB",
        block_size=8,
        prefix_caching=False,
        aging=0.5,
        speculate="ngram:k=4,n=3",
    )
    assert other.engine.scheduler.pool.size == 8
    assert other.generate(prompt, params) == llm.generate(prompt, params)
    assert other.engine.scheduler.config.draft_tokens == 4


@pytest.mark.parametrize(
    ("size", "count"), [(7, 7), ("7", 7), ("2GiB", 2 << 30), ("0.5 KiB", 512), ("3MiB", 3 << 20)]
)
def test_sizes_are_read(size, count):
    assert parse_bytes(size) == count


@pytest.mark.parametrize("size", ["2GB", "-1", "", "GiB", "1e9"])
def test_other_sizes_are_refused(size):
    with pytest.raises(ConfigError, match="2GiB"):
        parse_bytes(size)
