import numpy as np
import pytest
import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.optim.engine.philox import normal, philox
from sharpen.optim.engine.projector import (
    ORTHONORMAL,
    Kind,
    Projector,
    param_seed,
    random_order,
    side_is_right,
)

KINDS = ["gaussian", "rademacher", *ORTHONORMAL]
SHAPES = [(9, 5), (5, 9), (6, 6)]


def gradient(shape: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def std(kind: Kind, rank: int, shape: tuple[int, int]) -> Projector:
    return Projector(kind, rank, shape, side_is_right("std", shape))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("right", [True, False])
def test_shapes_are_as_told(kind: Kind, shape: tuple[int, int], right: bool) -> None:
    projector = Projector(kind, 3, shape, right)
    g = gradient(shape)
    basis = projector.make(g, 7, 2)
    low = projector.down(g, basis)
    assert basis.shape == projector.basis_shape
    assert low.shape == projector.low_shape
    assert projector.up(low, basis).shape == shape
    assert torch.equal(basis, projector.make(g, 7, 2))
    if projector.is_random:
        assert not torch.equal(basis, projector.make(g, 7, 3))
        assert not torch.equal(basis, projector.make(g, 8, 2))


def test_the_short_side_is_compressed() -> None:
    assert [side_is_right("std", s) for s in SHAPES] == [True, False, True]
    assert [side_is_right("reverse_std", s) for s in SHAPES] == [False, True, False]
    assert side_is_right("right", (5, 9)) and not side_is_right("left", (9, 5))


@pytest.mark.parametrize("kind", ORTHONORMAL)
@pytest.mark.parametrize("shape", SHAPES)
def test_there_and_back_is_a_projection(kind: Kind, shape: tuple[int, int]) -> None:
    projector, g = std(kind, 3, shape), gradient(shape)
    basis = projector.make(g, 1, 0)
    inside = projector.up(projector.down(g, basis), basis)
    again = projector.up(projector.down(inside, basis), basis)
    torch.testing.assert_close(again, inside, rtol=1e-6, atol=1e-6)
    assert float(((g - inside) * inside).sum()) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_vectors_catch_the_most(shape: tuple[int, int]) -> None:
    """What is left is what the largest singular values leave; ``randsvd`` is exact here, for with 8
    vectors more it has the whole space."""
    g = gradient(shape)
    rest = torch.linalg.svdvals(g)[3:].square().sum().sqrt()
    for kind in ("svd", "randsvd"):
        projector = std(kind, 3, shape)
        basis = projector.make(g, 1, 0)
        left = g - projector.up(projector.down(g, basis), basis)
        torch.testing.assert_close(left.norm(), rest)


def test_randsvd_is_near_svd_on_a_decaying_spectrum() -> None:
    u = torch.linalg.qr(gradient((120, 60), 1)).Q
    v = torch.linalg.qr(gradient((60, 60), 2)).Q
    g = u * 0.9 ** torch.arange(60, dtype=torch.float64) @ v
    best = torch.linalg.svdvals(g)[10:].norm()
    projector = std("randsvd", 10, (120, 60))
    basis = projector.make(g, 1, 0)
    left = g - projector.up(projector.down(g, basis), basis)
    assert float(left.norm()) < 1.03 * float(best)


def test_random_projections_keep_lengths_on_average() -> None:
    """E ||R_j||^2 = ||G_j||^2, within three standard errors over 2000 seeds."""
    g = gradient((4, 3)).float()
    for kind in ("gaussian", "rademacher"):
        projector = std(kind, 2, (4, 3))
        squares = torch.stack(
            [projector.down(g, projector.make(g, s, 0)).square().sum(1) for s in range(2000)]
        )
        error = squares.std(0) / 2000**0.5
        assert ((squares.mean(0) - g.square().sum(1)).abs() < 3 * error).all()


def test_entries_come_from_their_own_counters() -> None:
    """Entry (k, i) is lane i mod 4 of the counter (k, i div 4), so slices need no neighbours."""
    rank, width = 3, 10
    g = torch.zeros(20, width)
    basis = Projector("gaussian", rank, (20, width), True).make(g, 77, 5)
    for k, i in ((0, 0), (1, 3), (2, 9), (0, 6)):
        words = philox((77, 5), (torch.tensor(k), i // 4, 0, 0))
        expected = normal(words)[i % 4] / 3**0.5
        torch.testing.assert_close(basis[k, i], expected)
    left = Projector("gaussian", rank, (width, 20), False).make(torch.zeros(width, 20), 77, 5)
    assert torch.equal(left, basis.T)


def test_published_random_numbers() -> None:
    """Of APOLLO's code: torch's generator, and the last of 15 numbers as the next seed."""
    projector = Projector("gaussian", 2, (5, 3), True, rng="torch")
    g = torch.zeros(5, 3)
    seed = 4
    for count in range(3):
        noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(projector.make(g, 4, count), noise / np.sqrt(2))
        draws = torch.randint(0, 2**63 - 1, (15,), generator=torch.Generator().manual_seed(seed))
        seed = int(draws[-1])


def test_selected_entries_and_the_rest_are_all() -> None:
    for kind in ("columns", "rows", "randk", "permutation"):
        projector = std(kind, 4, (9, 5))
        ones = torch.ones(9, 5)
        basis = projector.make(ones, 3, 1)
        assert basis.dtype == torch.int32 and len(set(basis.tolist())) == 4
        inside = projector.up(projector.down(ones, basis), basis)
        assert set(inside.unique().tolist()) == {0.0, 1.0}
        assert inside.sum() == projector.down(ones, basis).numel()


def test_orders_are_uniform() -> None:
    """Each of 3! orders, 200 times in 1200, within four standard deviations."""
    orders = [tuple(random_order(3, (param_seed(0, i), 0)).tolist()) for i in range(1200)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6
    assert max(abs(count - 200) for count in counts) < 4 * (1200 / 6 * 5 / 6) ** 0.5


def test_moments_turn_with_an_orthonormal_basis() -> None:
    """What lies in both subspaces is kept."""
    projector, g = std("svd", 5, (9, 6)), gradient((9, 6))
    old = projector.make(g, 1, 0)
    turned = torch.linalg.qr(gradient((5, 5), 3)).Q @ old
    low = projector.down(g, old)
    found = projector.rotate(low, old, turned)
    torch.testing.assert_close(projector.up(found, turned), projector.up(low, old))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gausian", 1, (4, 4), True), "proj='gausian'"),
        (("svd", 0, (4, 4), True), "rank=0 must be from 1 to 4"),
        (("svd", 5, (9, 4), True), "rank=5 must be from 1 to 4"),
        (("randk", 17, (4, 4), True), "from 1 to 16"),
        (("svd", 1, (4, 4), True, "torch"), "rng='torch'"),
    ],
)
def test_impossible_projectors_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Projector(*arguments)
