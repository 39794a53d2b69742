import math

import pytest
import torch

from sharpen.core.model_spec import RopeScaling
from sharpen.models.rope import Rope, apply_rope, frequencies
from small_models import small_spec

DIM, THETA = 16, 10_000.0


def plain() -> torch.Tensor:
    return torch.tensor([THETA ** (-2 * j / DIM) for j in range(DIM // 2)])


def scaled(kind: str, **changes: object) -> tuple[torch.Tensor, float]:
    scaling = RopeScaling(kind=kind, **changes)  # type: ignore[arg-type]
    return frequencies(small_spec(rope_scaling=scaling), 100)


def test_frequencies_are_powers_of_the_base() -> None:
    found, factor = frequencies(small_spec())
    assert factor == 1.0
    torch.testing.assert_close(found, plain())


def test_linear_divides_every_frequency() -> None:
    torch.testing.assert_close(scaled("linear", factor=4.0)[0], plain() / 4)


def test_dynamic_raises_the_base_past_the_trained_length_only() -> None:
    """Base * (s L / L0 - (s - 1)) ^ (D / (D - 2)), with L the length and L0 the trained one."""
    scaling = RopeScaling(kind="dynamic", factor=2.0)
    spec = small_spec(rope_scaling=scaling, max_positions=50)
    torch.testing.assert_close(frequencies(spec, 50)[0], plain())
    base = THETA * (2.0 * 100 / 50 - 1.0) ** (DIM / (DIM - 2))
    expected = torch.tensor([base ** (-2 * j / DIM) for j in range(DIM // 2)])
    torch.testing.assert_close(frequencies(spec, 100)[0], expected)


def test_llama3_keeps_short_waves_and_divides_long_ones() -> None:
    found, _ = scaled("llama3", factor=8.0, original_max_positions=1000)
    for w, value in zip(plain().tolist(), found.tolist(), strict=True):
        wavelength = 2 * math.pi / w
        if wavelength < 1000 / 4:
            assert value == pytest.approx(w, rel=1e-6)
        elif wavelength > 1000 / 1:
            assert value == pytest.approx(w / 8, rel=1e-6)
        else:
            share = (1000 / wavelength - 1) / (4 - 1)
            assert value == pytest.approx((1 - share) * w / 8 + share * w, rel=1e-5)


def test_yarn_keeps_fast_waves_divides_slow_ones_and_raises_the_attention() -> None:
    found, factor = scaled("yarn", factor=4.0, original_max_positions=2048)
    assert factor == pytest.approx(0.1 * math.log(4) + 1)
    ratio = found / plain()
    assert ratio[0] == 1.0  # 2048 / 2 pi = 326 turns, more than beta_fast
    assert float(ratio[-1]) == pytest.approx(0.25)  # 0.1 turns, fewer than beta_slow
    assert bool((ratio.diff() <= 1e-6).all())
    assert scaled("yarn", factor=4.0, original_max_positions=2048, attention_factor=1.5)[1] == 1.5
    assert scaled("yarn", factor=1.0, original_max_positions=2048)[1] == 1.0


def test_rotation_turns_each_pair_by_position_times_frequency() -> None:
    rope, positions = Rope(small_spec()), torch.tensor([[0, 3, 300]])
    x = torch.randn(1, 3, 2, DIM, generator=torch.Generator().manual_seed(0))
    cos, sin = rope(positions, 301, torch.float32)
    y = apply_rope(x, cos, sin)
    for t, position in enumerate(positions[0].tolist()):
        angle = position * plain().double()
        turned = torch.complex(x[0, t, :, :8].double(), x[0, t, :, 8:].double())
        turned = turned * torch.polar(torch.ones(8).double(), angle)
        # cos and sin of a float32 angle near 300 are off by 300 * 2^-24.
        torch.testing.assert_close(y[0, t, :, :8].double(), turned.real, rtol=0, atol=1e-4)
        torch.testing.assert_close(y[0, t, :, 8:].double(), turned.imag, rtol=0, atol=1e-4)


def test_scores_depend_on_the_distance_alone() -> None:
    rope = Rope(small_spec())
    q, k = torch.randn(2, 1, 1, 1, DIM, generator=torch.Generator().manual_seed(1))

    def score(at_q: int, at_k: int) -> float:
        turned = [
            apply_rope(x, *rope(torch.tensor([[at]]), at + 1, torch.float32))
            for x, at in ((q, at_q), (k, at_k))
        ]
        return float((turned[0] * turned[1]).sum())

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)
    assert score(9, 4) != pytest.approx(score(9, 8), abs=1e-2)


def test_a_long_text_does_not_change_the_tables_of_those_after_it() -> None:
    scaling = RopeScaling(kind="dynamic", factor=2.0)
    spec = small_spec(rope_scaling=scaling, max_positions=20)
    rope, fresh = Rope(spec), Rope(spec)
    positions = torch.arange(15)[None]
    expected = fresh(positions, 15, torch.float32)[0]
    rope(torch.arange(60)[None], 60, torch.float32)
    assert torch.equal(rope(positions, 15, torch.float32)[0], expected)


def test_tables_take_the_type_asked_for() -> None:
    cos, sin = Rope(small_spec())(torch.arange(4)[None], 4, torch.bfloat16)
    assert cos.dtype == sin.dtype == torch.bfloat16
    assert cos.shape == (1, 4, 1, DIM // 2)
