"""The worked checks of the cost formulas on the shape of Llama 3 8B."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plan_shapes import LLAMA3_8B, small_spec
from sharpen.core.errors import ConfigError
from sharpen.core.model_spec import ModelSpec
from sharpen.models import DecoderLM
from sharpen.plan import (
    activation_bytes,
    forward_flops_per_token,
    live_bytes,
    megatron_bytes,
    model_states,
    ring_bytes,
    training_flops_per_token,
    ulysses_bytes,
    zero_step_bytes,
)
from sharpen.plan.communication import split_heads
from sharpen.plan.memory import row_share, share_states


def test_parameters() -> None:
    assert LLAMA3_8B.num_parameters == 8_030_261_248
    assert LLAMA3_8B.layer_parameters == 218_112_000
    assert LLAMA3_8B.embedding_parameters == 525_336_576
    assert LLAMA3_8B.matmul_parameters == 7_504_658_432


def test_flops_per_token() -> None:
    assert training_flops_per_token(LLAMA3_8B, 8192) == 57_912_852_480
    assert training_flops_per_token(LLAMA3_8B, 8192, causal=True) == 51_471_187_968


def test_recompute_adds_a_forward_and_lora_leaves_out_weight_gradients() -> None:
    forward = forward_flops_per_token(LLAMA3_8B, 1024)
    training = training_flops_per_token(LLAMA3_8B, 1024)
    assert training == 3 * forward
    assert training_flops_per_token(LLAMA3_8B, 1024, recompute=True) == 4 * forward
    lora = training_flops_per_token(LLAMA3_8B, 1024, lora=True)
    assert training - lora == 2 * LLAMA3_8B.matmul_parameters


def test_a_window_counts_only_what_is_seen() -> None:
    windowed = small_spec(family="mistral", num_layers=1, sliding_window=3)
    seen = sum(min(i, 3) for i in range(1, 11)) / 10
    expected = 2 * windowed.matmul_parameters + 4 * windowed.query_size * seen
    assert forward_flops_per_token(windowed, 10) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("stage", "accounting", "expected"),
    [
        (0, "paper", (16_060_522_496, 16_060_522_496, 96_363_134_976, 0)),
        (0, "built", (32_121_044_992, 32_121_044_992, 64_242_089_984, 15_009_316_864)),
        (1, "paper", (16_060_522_496, 16_060_522_496, 12_045_391_872, 0)),
        (1, "built", (16_060_522_496, 16_060_522_496, 12_045_391_872, 0)),
        (2, "paper", (16_060_522_496, 2_007_565_312, 12_045_391_872, 0)),
        (2, "built", (4_015_130_624, 4_015_130_624, 8_030_261_248, 16_060_522_496)),
        (3, "paper", (2_007_565_312, 2_007_565_312, 12_045_391_872, 0)),
        (3, "built", (4_015_130_624, 4_015_130_624, 8_030_261_248, 0)),
    ],
)
def test_model_states_on_eight_devices(
    stage: int, accounting: str, expected: tuple[int, int, int, int]
) -> None:
    states = model_states(LLAMA3_8B, stage=stage, ranks=8, accounting=accounting)  # type: ignore[arg-type]
    found = (states.parameters, states.gradients, states.optimizer, states.copies)
    assert found == expected
    assert states.total == sum(expected)


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_the_table_of_the_zero_paper(stage: int, gigabytes: float) -> None:
    """Figure 1 of arXiv 1910.02054: 7.5 billion parameters on 64 devices."""
    states = share_states(7_500_000_000, stage=stage, ranks=64, accounting="paper")
    assert round(states.total / 1e9, 1) == gigabytes


@pytest.mark.parametrize(
    "spec",
    [
        small_spec(),
        small_spec(tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
        small_spec(family="qwen2"),
        small_spec(family="qwen3"),
        small_spec(block="parallel"),
    ],
)
def test_the_fullest_rank_holds_the_first_rows_of_every_tensor(spec: ModelSpec) -> None:
    with torch.device("meta"):
        model = DecoderLM(spec)
    shapes = [p.shape for p in model.parameters()]
    for ranks in (1, 2, 3, 7, 400):
        expected = sum(-(-s[0] // ranks) * (s.numel() // s[0]) for s in shapes)
        assert row_share(spec, ranks) == expected
    assert row_share(spec, 1) == spec.num_parameters


def test_float32_states_are_sixteen_bytes_shared_by_stage() -> None:
    count = 1000
    found = [share_states(count, stage=s, ranks=4, element_bytes=4) for s in range(4)]
    assert [f.total for f in found] == [16_000, 8000 + 2000, 4000 + 4000, 4000]
    assert [f.copies for f in found] == [0, 0, 4000, 0]


def test_live_bytes_are_those_of_the_largest_unit() -> None:
    assert live_bytes(LLAMA3_8B) == 2_101_346_304


def test_activations_of_a_block() -> None:
    """Counted by saved-tensor hooks on a bf16 block with torch's RMSNorm, without rotation."""
    heads = {"num_heads": 8, "num_kv_heads": 2, "head_dim": 32}
    block = small_spec(hidden_size=256, intermediate_size=688, **heads)
    assert activation_bytes(block, 256) == 3_057_664
    assert activation_bytes(block, 256, norm="transformers") == 2_795_520
    fused = activation_bytes(block, 256, norm="fused", fused_mlp=True)
    assert fused == 256 * (2 * (4 * 256 + 4) + 2 * (2 * 256 + 2 * 64) + 32 + 3 * 2 * 688)
    tiled = activation_bytes(block, 256, norm="fused", tiled_mlp=True)
    assert fused - tiled == 256 * 3 * 2 * 688


def test_attention_traffic_of_eight_devices() -> None:
    ulysses = ulysses_bytes(32, 8, 128, ranks=8, tokens=16_384)
    assert {e.forward for e in ulysses} == {293_601_280}
    ring = ring_bytes(1024, ranks=8, tokens=16_384)
    assert (ring.forward, ring.backward) == (469_762_048, 1_409_286_144)
    assert megatron_bytes(4096, ranks=8, tokens=131_072).forward == 3_758_096_384


def test_uneven_heads_send_unequal_amounts_that_add_up() -> None:
    two = ulysses_bytes(9, 3, 1, ranks=2, tokens=1, element_bytes=1)
    assert [(e.forward, e.backward) for e in two] == [(13, 13), (13, 13)]
    four = ulysses_bytes(9, 3, 1, ranks=4, tokens=1, element_bytes=1)
    assert [e.forward for e in four] == [23, 21, 19, 21]
    assert [e.backward for e in four] == [21, 19, 25, 19]


@given(groups=st.integers(1, 8), size=st.integers(1, 8), ranks=st.integers(1, 64))
def test_heads_are_dealt_out_whole_and_each_finds_its_keys(
    groups: int, size: int, ranks: int
) -> None:
    heads = groups * size
    if ranks > heads:
        with pytest.raises(ConfigError, match="ranks="):
            split_heads(heads, groups, ranks)
        return
    shares = split_heads(heads, groups, ranks)
    assert sum(c for c, _ in shares) == heads
    assert max(c for c, _ in shares) - min(c for c, _ in shares) <= 1
    first = 0
    for count, needed in shares:
        assert needed == len({h // size for h in range(first, first + count)})
        first += count
    sent = ulysses_bytes(heads, groups, 1, ranks=ranks, tokens=1, element_bytes=1)
    assert sum(e.forward for e in sent) == sum(e.backward for e in sent)


def test_zero_traffic_in_elements() -> None:
    unit = {"parameter_bytes": 1, "gradient_bytes": 1, "ranks": 10**9}
    count = 10**9
    moved = [zero_step_bytes(count, stage=s, **unit) for s in range(4)]
    assert [round(m / count) for m in moved] == [2, 2, 2, 3]
    twice = zero_step_bytes(count, stage=3, micro_batches=2, **unit)
    assert round(twice / count) == 6
    once = zero_step_bytes(count, stage=2, micro_batches=4, reduce_once=True, **unit)
    assert round(once / count) == 2


def test_unknown_stages_are_refused() -> None:
    with pytest.raises(ConfigError, match="stage=4"):
        model_states(LLAMA3_8B, stage=4)
    with pytest.raises(ConfigError, match="stage=-1"):
        zero_step_bytes(1, stage=-1, ranks=2)
