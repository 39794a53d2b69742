import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError
from sharpen.optim.engine.orthogonal import check_orthogonal, fastest_dtype, orthogonalize


def _with_singular_values(values: torch.Tensor, m: int, n: int) -> tuple[torch.Tensor, ...]:
    """A matrix with these singular values, and its nearest orthonormal one."""
    generator = torch.Generator().manual_seed(m * n)
    u = torch.linalg.qr(torch.randn(m, len(values), generator=generator, dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(n, len(values), generator=generator, dtype=torch.float64)).Q
    return u * values @ v.mT, u @ v.mT


@pytest.mark.parametrize(("m", "n"), [(12, 12), (30, 12), (12, 30)])
def test_polar_express_converges_to_the_nearest_orthonormal_matrix(m: int, n: int) -> None:
    values = torch.logspace(-3, 0, 12, dtype=torch.float64)
    x, expected = _with_singular_values(values, m, n)
    found = orthogonalize(x, coefficients="polar_express", steps=12)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("m", "n"), [(12, 12), (30, 12), (12, 30)])
def test_quintic_applies_its_polynomial_to_singular_values(m: int, n: int) -> None:
    values = torch.logspace(-2, 0, 12, dtype=torch.float64)
    x, _ = _with_singular_values(values, m, n)
    expected = values / values.norm()
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    found = torch.linalg.svdvals(orthogonalize(x))
    torch.testing.assert_close(found, expected.sort(descending=True).values, rtol=1e-9, atol=1e-9)


def test_quintic_brings_singular_values_near_one() -> None:
    x, _ = _with_singular_values(torch.logspace(-1.5, 0, 16, dtype=torch.float64), 40, 16)
    found = torch.linalg.svdvals(orthogonalize(x))
    assert float(found.min()) > 0.6 and float(found.max()) < 1.3


@settings(max_examples=20, deadline=None)
@given(
    lead=st.sampled_from([(), (3,), (2, 2)]),
    m=st.integers(1, 6),
    n=st.integers(1, 6),
    kind=st.sampled_from(["quintic", "polar_express"]),
)
def test_a_stack_is_its_matrices(lead: tuple[int, ...], m: int, n: int, kind: str) -> None:
    x = torch.randn(*lead, m, n, dtype=torch.float64)
    found = orthogonalize(x, coefficients=kind)  # type: ignore[arg-type]
    for one, given_ in zip(found.reshape(-1, m, n), x.reshape(-1, m, n), strict=True):
        expected = orthogonalize(given_, coefficients=kind)  # type: ignore[arg-type]
        torch.testing.assert_close(one, expected, rtol=1e-10, atol=1e-10)


def test_scale_does_not_matter_and_zeros_stay() -> None:
    x = torch.randn(5, 3)
    torch.testing.assert_close(orthogonalize(x), orthogonalize(1e4 * x), rtol=1e-4, atol=1e-5)
    assert not orthogonalize(torch.zeros(5, 3)).any()
    assert not orthogonalize(torch.zeros(2, 5, 3), dtype="bf16").any()


def test_types() -> None:
    x = torch.randn(4, 4)
    before = x.clone()
    assert orthogonalize(x).dtype == torch.float32
    assert orthogonalize(x.bfloat16()).dtype == torch.float32
    assert orthogonalize(x.double()).dtype == torch.float64
    assert orthogonalize(x, dtype="bf16").dtype == torch.bfloat16
    assert torch.equal(x, before)


def test_the_fastest_type_is_found_once_for_each_device() -> None:
    assert fastest_dtype("cpu") in ("fp32", "bf16")
    assert fastest_dtype("cpu") == fastest_dtype("cpu")
    assert fastest_dtype.cache_info().currsize >= 1
    assert (fastest_dtype("cuda"), fastest_dtype("meta")) == ("bf16", "fp32")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((0, "auto"), "ns_steps=0"),
        ((100, "auto"), "ns_steps=100"),
        ((5, "fp16"), "ns_dtype='fp16'"),
        ((5, "fp32", "cubic"), "coefficients='cubic'"),
    ],
)
def test_bad_options_are_refused(options: tuple[int, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_orthogonal(*options)
