"""GPTQ: against the loop written out in full, and never worse than rounding to nearest."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.compress.gptq import Hessian, clip_ratios, gptq, row_errors
from sharpen.compress.rows import encode, grouped, parameters, quantize_rows
from sharpen.core.errors import DataError


def correlated(tokens, columns, seed=0):
    """Inputs whose columns depend on each other and differ in size, as a model's do."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
    sizes = torch.rand(columns, generator=generator) * 3 + 0.1
    return torch.randn(tokens, columns, generator=generator) @ (torch.eye(columns) + mixing) * sizes


def hessian_of(x):
    hessian = Hessian(x.shape[1])
    hessian.add(x[: x.shape[0] // 3])
    hessian.add(x[x.shape[0] // 3 :])
    return hessian


def test_the_hessian_is_the_mean_of_outer_products():
    x = correlated(50, 20)
    hessian = hessian_of(x)
    wanted = 2 / 50 * x.double().T @ x.double()
    assert torch.allclose(hessian.matrix, wanted, rtol=1e-12)
    assert torch.allclose(hessian.magnitude, x.double().abs().sum(0))
    assert hessian.tokens == 50


def textbook(weight, matrix, eight):
    """GPTQ without blocks: one column after the other, the inverse shrunk by elimination."""
    columns = weight.shape[1]
    groups = -(-columns // 128)
    ends = [slice(g * 128, min(columns, g * 128 + 128)) for g in range(groups)]
    sums = torch.stack([matrix.diagonal()[e].sum() for e in ends])
    order = [c for g in sums.argsort(descending=True) for c in range(columns)[ends[g]]]
    damped = matrix.clone()
    damped.diagonal()[damped.diagonal() == 0] = 1
    damped += 0.01 * matrix.diagonal().mean() * torch.eye(columns)
    left, codes = weight.double().clone(), torch.zeros_like(weight)
    remaining, group = list(order), None
    while remaining:
        j = remaining[0]
        if j // 128 != group:
            group = j // 128
            scale, zero = parameters(grouped(left[:, ends[group]].float()), eight)
            s, z = scale[:, 0].double(), zero[:, 0].double()
        q = encode(left[:, j].float(), s.float(), z.float(), eight)
        codes[:, j] = q
        inverse = torch.linalg.inv(damped[remaining][:, remaining])
        error = (left[:, j] - (q.double() - z) * s) / inverse[0, 0]
        left[:, remaining] -= error[:, None] * inverse[0]
        remaining.pop(0)
    return codes


@pytest.mark.parametrize("columns", [40, 150])
def test_codes_are_those_of_the_loop_written_out(columns):
    weight = torch.randn(6, columns, generator=torch.Generator().manual_seed(1))
    x = correlated(400, columns)
    x[:, 3] = 0
    eight = torch.tensor([False, True, False, False, True, False])
    hessian = hessian_of(x)
    found = gptq(weight, hessian.factor(), eight, clip=False)
    wanted = textbook(weight, hessian.matrix, eight)
    nearest = quantize_rows(weight, eight)
    kept = (found.values != nearest.values).any(1)  # rows that did not go back to nearest
    assert int(kept.sum()) >= 4
    same = found.values[kept] == wanted[kept]
    # float32 against float64: a weight midway between two codes may go the other way
    assert float(same.float().mean()) > 0.98


@settings(max_examples=15)
@given(
    columns=st.sampled_from([1, 65, 128, 200, 300]),
    tokens=st.sampled_from([3, 100, 400]),
    seed=st.integers(0, 1000),
    clip=st.booleans(),
)
def test_no_row_is_worse_than_rounded_to_nearest(columns, tokens, seed, clip):
    x = correlated(tokens, columns, seed)
    weight = torch.randn(8, columns, generator=torch.Generator().manual_seed(seed))
    eight = torch.arange(8) % 3 == 0
    hessian = hessian_of(x)
    found = gptq(weight, hessian.factor(), eight, clip=clip)
    nearest = quantize_rows(weight, eight)
    ours = row_errors(found, weight, hessian.matrix)
    assert bool((ours <= row_errors(nearest, weight, hessian.matrix) * (1 + 1e-9)).all())


def test_on_correlated_inputs_the_error_is_far_lower():
    weight = torch.randn(32, 256, generator=torch.Generator().manual_seed(3))
    hessian = hessian_of(correlated(2000, 256))
    eight = torch.zeros(32, dtype=torch.bool)
    errors = [
        float(row_errors(codes, weight, hessian.matrix).sum())
        for codes in (
            quantize_rows(weight, eight),
            gptq(weight, hessian.factor(), eight, clip=False),
            gptq(weight, hessian.factor(), eight),
        )
    ]
    assert errors[1] < 0.8 * errors[0]
    assert errors[2] < 0.8 * errors[0]


def test_clipping_helps_rows_with_an_outlier_in_a_dead_column():
    weight = torch.randn(4, 128, generator=torch.Generator().manual_seed(4)) * 0.1
    weight[:, 7] = 0.5  # the largest by far, and never multiplied by anything
    x = correlated(500, 128)
    x[:, 7] = 0
    factor = hessian_of(x).factor()
    eight = torch.zeros(4, dtype=torch.bool)
    ratios = clip_ratios(weight, factor, eight)
    assert ratios.shape == (4, 1)
    assert float(ratios.mean()) < 0.9
    assert bool((ratios >= 0.8 - 1e-6).all())


def test_no_inputs_and_bad_inputs_are_errors():
    with pytest.raises(DataError, match="seen no inputs"):
        _ = Hessian(4).matrix
    hessian = Hessian(4)
    hessian.add(torch.tensor([[1.0, float("nan"), 0, 0]]))
    with pytest.raises(DataError, match="NaN or infinity"):
        hessian.factor()
