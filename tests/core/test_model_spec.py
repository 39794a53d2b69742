import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.config import to_dict
from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError
from sharpen.core.gguf_header import GgufHeader, GgufTensor
from sharpen.core.model_spec import ModelSpec, RopeScaling
from sharpen.models.decoder import DecoderLM
from small_models import small_spec

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def from_config(**changes: Any) -> ModelSpec:
    return ModelSpec.from_config({**LLAMA, **changes}, where="m/config.json")


specs = st.builds(
    small_spec,
    family=st.sampled_from(["llama", "mistral", "qwen2", "qwen3"]),
    vocab_size=st.integers(3, 50),
    hidden_size=st.integers(1, 40),
    intermediate_size=st.integers(1, 40),
    num_layers=st.integers(1, 4),
    num_heads=st.sampled_from([4, 8]),
    num_kv_heads=st.sampled_from([1, 2, 4]),
    head_dim=st.sampled_from([2, 8, 18]),
    tie_word_embeddings=st.booleans(),
    attention_bias=st.booleans(),
    mlp_bias=st.booleans(),
    block=st.sampled_from(["serial", "parallel"]),
)


@given(specs)
def test_counts_are_those_of_the_built_model(spec: ModelSpec) -> None:
    with torch.device("meta"):
        model = DecoderLM(spec)
    assert sum(p.numel() for p in model.parameters()) == spec.num_parameters
    block = model.model.layers[0]
    assert sum(p.numel() for p in block.parameters()) == spec.layer_parameters
    matrices = [p for p in block.parameters() if p.ndim == 2]
    assert sum(p.numel() for p in matrices) == spec.layer_matmul_parameters
    assert model.model.embed_tokens.weight.numel() == spec.embedding_parameters
    assert spec.matmul_parameters == (
        spec.num_layers * spec.layer_matmul_parameters + model.lm_head.weight.numel()
    )


def test_a_parallel_block_is_read_from_its_key_or_from_the_names_it_is_saved_by() -> None:
    asked = from_config(block="parallel")
    assert asked.block == "parallel"
    assert from_config().block == "serial"
    assert asked.num_parameters == from_config().num_parameters - 2 * 32
    saved = asked.to_config()
    assert saved["architectures"] == ["LlamaParallelForCausalLM"]
    assert saved["model_type"] == "llama_parallel"
    bare = {k: v for k, v in saved.items() if k not in ("architectures", "block")}
    assert ModelSpec.from_config(bare) == asked
    with pytest.raises(FileFormatError, match=r"m/config.json: block 'both' is not supported"):
        from_config(block="both")


SCALINGS = [
    None,
    RopeScaling(kind="linear", factor=2.0),
    RopeScaling(kind="dynamic", factor=2.0),
    RopeScaling(kind="llama3", factor=8.0, original_max_positions=64, low_freq_factor=2.0),
    RopeScaling(kind="yarn", factor=4.0, original_max_positions=64, attention_factor=1.5),
]


@given(
    specs,
    st.sampled_from(SCALINGS),
    st.sampled_from([(), (2,), (2, 5)]),
    st.sampled_from([None, 0]),
    st.integers(0, 3),
)
def test_a_config_comes_back_as_the_spec_it_was_written_from(
    spec: ModelSpec,
    scaling: RopeScaling | None,
    eos: tuple[int, ...],
    bos: int | None,
    sliding: int,
) -> None:
    changes: dict[str, Any] = {"rope_scaling": scaling, "eos_token_ids": eos, "bos_token_id": bos}
    if spec.head_dim == 2:
        changes["head_dim"] = 4
    if spec.family != "llama":
        changes["mlp_bias"] = False
        changes["sliding_window"] = 8 if sliding else None
    if spec.family in ("qwen2", "qwen3") and sliding:
        changes["sliding_layers"] = tuple(i >= sliding - 1 for i in range(spec.num_layers))
        if not any(changes["sliding_layers"]):
            changes["sliding_window"] = changes["sliding_layers"] = None
    spec = dataclasses.replace(spec, **changes)
    config = json.loads(json.dumps(spec.to_config()))
    assert ModelSpec.from_config(config) == spec
    older = {k: v for k, v in config.items() if k not in ("rope_parameters", "layer_types")}
    assert ModelSpec.from_config(older) == spec


def test_what_a_config_leaves_out_gets_its_usual_value() -> None:
    spec = from_config()
    assert (spec.num_kv_heads, spec.head_dim, spec.max_positions) == (4, 8, 2048)
    assert (spec.rms_norm_eps, spec.rope_theta, spec.rope_scaling) == (1e-6, 10_000.0, None)
    assert not spec.tie_word_embeddings
    assert from_config(architectures=None, model_type="mistral").family == "mistral"
    old = from_config(rope_scaling={"type": "linear", "factor": 4.0})
    assert old.rope_scaling == RopeScaling(kind="linear", factor=4.0)
    named = {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 64}
    assert from_config(rope_parameters=named).rope_scaling == SCALINGS[2]
    yarn = from_config(rope_scaling={"type": "yarn", "original_max_position_embeddings": 512})
    assert yarn.rope_scaling is not None
    assert yarn.rope_scaling.factor == 2048 / 512
    none = from_config(rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    assert (none.rope_theta, none.rope_scaling) == (5e5, None)


def test_windows_belong_to_the_families_that_use_them() -> None:
    assert from_config(sliding_window=8).sliding_window is None
    mistral = from_config(architectures=["MistralForCausalLM"], sliding_window=8)
    assert [mistral.slides(i) for i in range(2)] == [True, True]
    qwen = {"architectures": ["Qwen2ForCausalLM"], "sliding_window": 8}
    assert from_config(**qwen).sliding_window is None
    some = from_config(**qwen, use_sliding_window=True, max_window_layers=1)
    assert [some.slides(i) for i in range(2)] == [False, True]
    none = from_config(**qwen, use_sliding_window=True, max_window_layers=2)
    assert none.sliding_window is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architecture GPT2LMHeadModel is not supported"),
        ({"architectures": "GPT2LMHeadModel"}, "architecture GPT2LMHeadModel is not supported"),
        ({"architectures": 5}, "is not supported"),
        ({"architectures": [[]]}, "is not supported"),
        ({"architectures": None}, "architecture None is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        ({"hidden_size": None}, "cannot be used"),
        ({"hidden_size": "32"}, "cannot be used"),
        ({"hidden_size": -32}, "hidden_size=-32"),
        ({"hidden_size": 1 << 40}, "hidden_size=1099511627776"),
        ({"vocab_size": 0}, "vocab_size=0"),
        ({"vocab_size": 1.5}, "vocab_size=1.5"),
        ({"num_hidden_layers": 10**15}, "num_layers="),
        ({"num_attention_heads": 0}, "cannot be used"),
        ({"num_key_value_heads": 3}, "does not divide num_heads=4. Choose one of 1, 2, 4"),
        ({"head_dim": 7}, "must be even"),
        ({"rms_norm_eps": 0}, "rms_norm_eps=0.0"),
        ({"rms_norm_eps": math.nan}, "rms_norm_eps=nan"),
        ({"rms_norm_eps": "x"}, "cannot be used"),
        ({"rope_theta": 10**400}, "cannot be used"),
        ({"rope_theta": -1.0}, "rope_theta=-1.0"),
        ({"rope_theta": 1.0}, "rope_theta=1.0 above 1"),
        ({"rope_parameters": [1]}, "the rope parameters are"),
        ({"rope_scaling": "linear"}, "the rope parameters are 'linear'"),
        ({"rope_scaling": {"type": "longrope"}}, "rope scaling 'longrope' is not supported"),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "factor=0.5"),
        ({"rope_scaling": {"type": "linear", "factor": math.inf}}, "factor=inf"),
        ({"rope_scaling": {"type": "linear", "factor": "x"}}, "cannot be used"),
        ({"rope_scaling": {"type": "llama3", "factor": 8.0}}, "needs original_max_positions"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 2.0, "mscale": 0.7}},
            "'mscale' of rope scaling is 0.7",
        ),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "truncate": False}}, "'truncate'"),
        ({"rope_scaling": {"type": "yarn", "beta_fast": 1.0, "beta_slow": 2.0}}, "beta_slow=2.0"),
        ({"rope_scaling": {"type": "yarn", "attention_factor": 0.0}}, "attention_factor=0.0"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 2, "original_max_position_embeddings": -1}},
            "original_max_positions=-1",
        ),
        ({"eos_token_id": ["x"]}, "cannot be used"),
        ({"eos_token_id": math.inf}, "cannot be used"),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": 0}, "sliding_window=0"),
        (
            {
                "architectures": ["Qwen3ForCausalLM"],
                "sliding_window": 4,
                "use_sliding_window": True,
                "layer_types": ["full_attention", "chunked_attention"],
            },
            "layer type 'chunked_attention'",
        ),
        (
            {
                "architectures": ["Qwen3ForCausalLM"],
                "sliding_window": 4,
                "use_sliding_window": True,
                "layer_types": ["sliding_attention"],
            },
            "sliding_layers has 1 entries for 2 layers",
        ),
    ],
)
def test_a_config_that_cannot_be_used_says_why(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FileFormatError, match=message) as caught:
        from_config(**changes)
    assert "m/config.json" in str(caught.value)


def test_missing_keys_files_and_objects_are_named(tmp_path: Path) -> None:
    for key in ("vocab_size", "hidden_size", "num_hidden_layers"):
        config = {k: v for k, v in LLAMA.items() if k != key}
        with pytest.raises(FileFormatError, match=f"lacks the key '{key}'"):
            ModelSpec.from_config(config)
    with pytest.raises(FileFormatError, match="is not a JSON object"):
        ModelSpec.from_config([1])
    with pytest.raises(MissingFileError, match="no such model"):
        ModelSpec.from_ref(tmp_path / "absent")
    with pytest.raises(MissingFileError, match="no such file"):
        ModelSpec.from_ref(tmp_path)
    (tmp_path / "config.json").write_text('{"a": ' + "9" * 5000 + "}")
    with pytest.raises(FileFormatError, match="not valid JSON"):
        ModelSpec.from_ref(tmp_path)


def test_a_spec_built_by_hand_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="head_dim=2 must be at least 4"):
        small_spec(head_dim=2, rope_scaling=SCALINGS[2])
    with pytest.raises(ConfigError, match="'dynamic' takes no original_max_positions"):
        RopeScaling(kind="dynamic", factor=2.0, original_max_positions=64)
    with pytest.raises(ConfigError, match="num_layers=5000 must be at most"):
        small_spec(num_layers=5000)
    assert to_dict(small_spec())["family"] == "llama"


GGUF = {
    "general.architecture": "qwen2",
    "qwen2.embedding_length": 32,
    "qwen2.context_length": 128,
    "qwen2.feed_forward_length": 64,
    "qwen2.block_count": 2,
    "qwen2.attention.head_count": 4,
    "qwen2.attention.head_count_kv": 2,
    "qwen2.attention.layer_norm_rms_epsilon": 9.999999974752427e-07,
    "tokenizer.ggml.tokens": ["a", "b"],
}


def gguf(**changes: Any) -> ModelSpec:
    metadata = {**GGUF, **{k.replace("__", "."): v for k, v in changes.items()}}
    output = {"output.weight": GgufTensor("output.weight", (2, 32), "F32", 0, 256)}
    return ModelSpec.from_gguf(GgufHeader(Path("m.gguf"), 3, metadata, output))


def test_a_gguf_header_gives_the_spec() -> None:
    spec = gguf(
        qwen2__rope__scaling__type="yarn",
        qwen2__rope__scaling__factor=4.0,
        tokenizer__ggml__eos_token_id=1,
    )
    assert (spec.vocab_size, spec.head_dim, spec.rms_norm_eps) == (2, 8, 1e-6)
    assert not spec.tie_word_embeddings
    assert spec.eos_token_ids == (1,)
    assert spec.rope_scaling == RopeScaling(kind="yarn", factor=4.0, original_max_positions=128)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general__architecture": "mamba"}, "architecture 'mamba' is not supported"),
        ({"general__architecture": ["llama"]}, "is not supported"),
        ({"qwen2__block_count": None}, r"lacks the metadata 'qwen2\.block_count'"),
        ({"qwen2__embedding_length": "x"}, "cannot be used"),
        ({"qwen2__attention__head_count": [4, 4]}, "cannot be used"),
        ({"qwen2__attention__head_count": 0}, "cannot be used"),
        ({"qwen2__attention__layer_norm_rms_epsilon": "x"}, "cannot be used"),
        ({"qwen2__rope__scaling__type": "su"}, "rope scaling 'su'"),
        ({"tokenizer__ggml__eos_token_id": math.inf}, "cannot be used"),
        ({"tokenizer__ggml__tokens": 5}, "cannot be used"),
    ],
)
def test_a_gguf_header_that_cannot_be_used_says_why(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FileFormatError, match=message) as caught:
        gguf(**changes)
    assert "m.gguf" in str(caught.value)
