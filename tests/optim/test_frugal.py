import io
import logging
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sharpen.core.errors import ConfigError
from sharpen.optim import AdamW, BAdam, Frugal, GaLore, create
from sharpen.optim.engine.base import Optimizer
from sharpen.optim.engine.blocks import BlockWalk, units_of
from sharpen.optim.engine.projector import Projector, param_seed
from sharpen.testing.optim import small_model, train

SHAPES = [(12, 7), (7, 12), (8, 8)]


def parameters(shapes: list[tuple[int, ...]] = SHAPES, seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in shapes]


def drive(optimizer: Optimizer, ps: list[nn.Parameter], steps: int, first: int = 0) -> None:
    """Steps with gradients that are the same for every optimizer."""
    for t in range(first, first + steps):
        generator = torch.Generator().manual_seed(t)
        for p in ps:
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        optimizer.step()


@pytest.mark.parametrize("select", ["columns", "rows", "randk", "svd", "random"])
@pytest.mark.parametrize("stateless", ["sign", "sgd", "none"])
@pytest.mark.parametrize("shape", SHAPES)
def test_steps_follow_the_algorithm(select: Any, stateless: Any, shape: tuple[int, int]) -> None:
    """In float64, over two refreshes, each factor of the learning rate another number."""
    (w,) = parameters([shape])
    by_hand = w.detach().clone()
    optimizer = Frugal(
        [w],
        lr=0.01,
        density=0.4,
        update_gap=4,
        select=select,
        stateless=stateless,
        lr_scale=0.5,
        stateless_lr_scale=0.3,
        weight_decay=0.1,
    )
    kind: Any = "orthogonal" if select == "random" else select
    right = {"columns": True, "rows": False}.get(select, shape[0] >= shape[1])
    total = w.numel() if select == "randk" else shape[1] if right else shape[0]
    share = 0.4 * total
    rank = int(share) if select in ("columns", "rows", "randk") else round(share)
    projector = Projector(kind, rank, shape, right)
    for t in range(10):
        drive(optimizer, [w], 1, t)
        assert w.grad is not None
        g = w.grad
        if t % 4 == 0:
            basis, a, m, v = projector.make(g, param_seed(0, 1), t // 4), 0, 0.0, 0.0
        low = projector.down(g, basis)
        a, m, v = a + 1, 0.9 * m + 0.1 * low, 0.999 * v + 0.001 * low * low
        adam = (m / (1 - 0.9**a)) / ((v / (1 - 0.999**a)).sqrt() + 1e-8)
        rest = g - projector.up(low, basis)
        free = {"sign": rest.sign(), "sgd": rest, "none": 0 * rest}[stateless]
        by_hand = by_hand * (1 - 0.01 * 0.1)
        by_hand = by_hand - 0.01 * 0.5 * (projector.up(adam, basis) + 0.3 * free)
    torch.testing.assert_close(w.detach(), by_hand)


@pytest.mark.parametrize("stateful", ["lion", "sgdm"])
def test_other_optimizers_of_the_active_part(stateful: Any) -> None:
    """Their formulas, on all of a tensor."""
    (w,) = parameters([(4, 3)])
    by_hand, m = w.detach().clone(), torch.zeros(4, 3, dtype=torch.float64)
    optimizer = Frugal([w], lr=0.01, density=1.0, stateful=stateful, betas=(0.9, 0.99))
    for t in range(5):
        drive(optimizer, [w], 1, t)
        assert w.grad is not None
        g = w.grad
        if stateful == "lion":
            step, m = (0.9 * m + 0.1 * g).sign(), 0.99 * m + 0.01 * g
        else:
            step = m = 0.9 * m + g
        by_hand = by_hand - 0.01 * step
    torch.testing.assert_close(w.detach(), by_hand)


def test_all_active_is_adamw_bit_for_bit() -> None:
    a, b = parameters(), parameters()
    drive(Frugal(a, lr=0.01, density=1.0, update_gap=50, weight_decay=0.1), a, 20)
    drive(AdamW(b, lr=0.01, weight_decay=0.1), b, 20)
    assert all(map(torch.equal, a, b))


@pytest.mark.parametrize("select", ["block", "columns", "svd"])
def test_none_active_is_sign_descent(select: Any) -> None:
    ps, plain = parameters(), parameters()
    optimizer = Frugal(ps, lr=0.01, density=0.0, select=select)
    for t in range(3):
        drive(optimizer, ps, 1, t)
        for w, p in zip(plain, ps, strict=True):
            assert p.grad is not None
            w.data.sub_(p.grad.sign() * 0.01)
    assert all(map(torch.equal, ps, plain))
    assert optimizer.state_bytes() == 0


def test_no_step_on_the_rest_and_kept_moments_are_galore() -> None:
    """Where eps, which GaLore adds before the bias correction, is 0."""
    a, b = parameters(), parameters()
    frugal = Frugal(
        a,
        lr=0.01,
        select="svd",
        rank=3,
        update_gap=4,
        stateless="none",
        on_refresh="keep",
        lr_scale=0.25,
        eps=0.0,
    )
    drive(frugal, a, 12)
    drive(GaLore(b, lr=0.01, rank=3, update_proj_gap=4, eps=0.0), b, 12)
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.peer
def test_it_is_the_published_galore_too() -> None:
    """galore-torch 1.0, within what eps = 0 in float32 allows."""
    from galore_torch import GaLoreAdamW

    a, b = ([nn.Parameter(p.detach().float()) for p in parameters()] for _ in range(2))
    frugal = Frugal(
        a,
        lr=0.01,
        select="svd",
        rank=3,
        update_gap=4,
        stateless="none",
        on_refresh="keep",
        lr_scale=0.25,
        eps=0.0,
    )
    low = {"rank": 3, "update_proj_gap": 4, "scale": 0.25, "proj_type": "std"}
    peer = GaLoreAdamW([{"params": b, **low}], lr=0.01, eps=0.0, no_deprecation_warning=True)
    drive(frugal, a, 12)
    drive(peer, b, 12)
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_blocks_take_turns_with_fresh_states() -> None:
    """Each active tensor by AdamW from t = 1, the others by signs; decay on all."""
    ps = parameters([(4, 4)] * 4)
    by_hand = [p.detach().clone() for p in ps]
    optimizer = Frugal(
        ps, lr=0.01, density=0.25, update_gap=3, order="descending", weight_decay=0.1
    )
    m = v = torch.zeros(())
    for t in range(12):
        drive(optimizer, ps, 1, t)
        active, a = 3 - t // 3, t % 3 + 1
        assert [p in optimizer.active(optimizer.param_groups[0]) for p in ps] == [
            i == active for i in range(4)
        ]
        assert optimizer.state_bytes() == 2 * 16 * 8
        for i, p in enumerate(ps):
            assert p.grad is not None
            g, step = p.grad, p.grad.sign()
            if i == active:
                if a == 1:
                    m, v = torch.zeros_like(g), torch.zeros_like(g)
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
                step = (m / (1 - 0.9**a)) / ((v / (1 - 0.999**a)).sqrt() + 1e-8)
            by_hand[i] = by_hand[i] * (1 - 0.001) - 0.01 * step
    for p, expected in zip(ps, by_hand, strict=True):
        torch.testing.assert_close(p.detach(), expected)


def test_states_kept_over_a_choice_go_on() -> None:
    """Blocks chosen again keep their moments when asked to: all of them always are AdamW."""
    a, b = parameters(), parameters()
    drive(Frugal(a, lr=0.01, density=1.0, update_gap=3, on_refresh="keep"), a, 10)
    drive(AdamW(b, lr=0.01, weight_decay=0.0), b, 10)
    assert all(map(torch.equal, a, b))


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("ascending", [{0, 1}, {2, 3}, {4, 5}, {0, 1}]),
        ("descending", [{5, 4}, {3, 2}, {1, 0}, {5, 4}]),
        ("mirror", [{0, 5}, {1, 4}, {2, 3}, {0, 5}]),
    ],
)
def test_ordered_walks_go_on_where_they_ended(order: Any, expected: list[set[int]]) -> None:
    walk = BlockWalk([10] * 6, density=1 / 3, order=order)
    assert [set(walk.chosen(count)) for count in range(4)] == expected
    late = BlockWalk([10] * 6, density=1 / 3, order=order)
    assert late.chosen(3) == walk.chosen(3)


def test_shuffled_walks_visit_all_before_one_comes_again() -> None:
    walk = BlockWalk([1] * 5, density=0.2, order="shuffle", count=1)
    visits = [next(iter(walk.chosen(count))) for count in range(15)]
    laps = [visits[i : i + 5] for i in (0, 5, 10)]
    assert all(sorted(lap) == [0, 1, 2, 3, 4] for lap in laps)
    assert laps[0] != laps[1] or laps[1] != laps[2]


def test_random_choices_hold_to_the_density_and_reach_all() -> None:
    sizes = [100, 50, 25, 200, 75, 150]
    walk = BlockWalk(sizes, density=0.4, order="random", seed=3)
    chosen = [walk.chosen(count) for count in range(300)]
    assert all(0 < sum(sizes[i] for i in some) <= 1.02 * 0.4 * 600 for some in chosen)
    assert len(Counter(i for some in chosen for i in some)) == 6
    assert len(set(chosen)) > 5
    counted = BlockWalk(sizes, density=0.4, order="random", count=2)
    assert all(len(counted.chosen(count)) == 2 for count in range(20))


def test_odd_mirrors_end_in_the_middle() -> None:
    walk = BlockWalk([1] * 5, density=0.4, order="mirror")
    assert [set(walk.chosen(count)) for count in range(4)] == [{0, 4}, {1, 3}, {2}, {0, 4}]


def test_a_tensor_above_the_density_is_active_alone_and_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ps = parameters([(8, 8), (9, 9)])
    with caplog.at_level(logging.WARNING):
        optimizer = Frugal(ps, density=0.1, update_gap=2)
        drive(optimizer, ps, 6)
    assert len(optimizer.active(optimizer.param_groups[0])) == 1
    assert len(caplog.records) == 1 and "density=0.1" in caplog.text


def test_layers_are_blocks() -> None:
    names = ["embed.weight", "h.0.q.weight", "h.0.k.weight", "h.1.q.weight", "h.10.q.weight"]
    assert units_of(names, "layer") == [[0], [1, 2], [3], [4]]
    model = nn.Module()
    model.layers = nn.ModuleList(
        nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 16), nn.Linear(16, 8)) for _ in range(3)
    )
    optimizer = create("badam", model, update_gap=2)
    assert isinstance(optimizer, BAdam)
    matrices = next(g for g in optimizer.param_groups if g["role"] == "matrix")
    seen = []
    for t in range(6):
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer.step()
        moved = {n for n, p in model.named_parameters() if p.ndim == 2 and (p != before[n]).any()}
        active = optimizer.active(matrices)
        assert moved == {n for n, p in model.named_parameters() if p in active}
        assert len({name.split(".")[1] for name in moved}) == 1 and len(moved) == 3
        seen.append(next(iter(moved)).split(".")[1])
        if t % 2 == 0:
            vectors = 3 * (8 + 16 + 8)
            assert optimizer.state_bytes() == 4 * 2 * (64 + 128 + 128 + vectors)
    assert sorted(seen) == ["0", "0", "1", "1", "2", "2"]


@pytest.mark.parametrize("select", ["columns", "rows", "randk", "svd", "random", "permutation"])
def test_bytes_of_states_follow_the_formula(select: Any) -> None:
    """2 values of the part, and its indices or basis."""
    ps = [nn.Parameter(p.detach().float()) for p in parameters([(20, 12), (12, 20)])]
    optimizer = Frugal(ps, density=0.25, select=select)
    part = {"columns": 20 * 3 + 12 * 5, "rows": 5 * 12 + 3 * 20, "randk": 60 + 60}
    basis = {"columns": 3 + 5, "rows": 5 + 3, "randk": 120, "permutation": 6}
    expected = 4 * (2 * part.get(select, 2 * 20 * 3) + basis.get(select, 2 * 12 * 3))
    assert optimizer.state_bytes(predicted=True) == expected
    drive(optimizer, ps, 1)
    assert optimizer.state_bytes() == expected


@pytest.mark.parametrize("select", ["columns", "rows", "randk", "svd", "randsvd", "random"])
@pytest.mark.parametrize("stop", [3, 4, 5])
def test_selections_resume_with_the_same_bits(select: Any, stop: int) -> None:
    """Saved before, at and after a refresh."""
    ps = parameters()
    drive(Frugal(ps, lr=0.01, select=select, update_gap=4), ps, 10)
    again = parameters()
    first = Frugal(again, lr=0.01, select=select, update_gap=4)
    drive(first, again, stop)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = Frugal(again, lr=0.01, select=select, update_gap=4)
    second.load_state_dict(torch.load(file, weights_only=True))
    drive(second, again, 10 - stop, stop)
    assert all(map(torch.equal, ps, again))


def test_states_alone_are_enough_to_go_on_in_the_right_blocks() -> None:
    """A checkpoint of tensors only, put into a new optimizer: counters come from the steps."""
    whole = parameters([(4, 4)] * 5)
    drive(Frugal(whole, lr=0.01, density=0.4, update_gap=3), whole, 12)
    ps = parameters([(4, 4)] * 5)
    first = Frugal(ps, lr=0.01, density=0.4, update_gap=3)
    drive(first, ps, 7)
    second = Frugal(ps, lr=0.01, density=0.4, update_gap=3)
    for p in ps:
        second.state[p] = {name: value.clone() for name, value in first.state[p].items()}
    drive(second, ps, 5, 7)
    assert all(map(torch.equal, whole, ps))


def test_a_parameter_without_a_gradient_does_not_stop_the_clock() -> None:
    """Blocks of a group change together."""
    ps = parameters([(4, 4)] * 3)
    optimizer = Frugal(ps, lr=0.01, density=0.34, update_gap=2, order="ascending")
    for t in range(6):
        for i, p in enumerate(ps):
            p.grad = None if i == 0 and t < 3 else torch.ones_like(p)
        optimizer.step()
        (active,) = optimizer.active(optimizer.param_groups[0])
        assert active is ps[t // 2]


def test_a_part_learns_less_than_all_and_more_than_nothing() -> None:
    """Losses of a small model: every way to choose learns it."""
    for select in ("block", "columns", "randk", "svd"):
        model = small_model()
        optimizer = create("frugal", model, lr=0.01, density=0.25, select=select, update_gap=10)
        losses = train(model, optimizer, 0, 100)
        assert sum(losses[-10:]) / 10 < 0.7, select


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_entry_that_is_not_finite_leaves_the_matrix(bad: float) -> None:
    """At a refresh, too, which then comes with the next good gradient."""
    (w,) = parameters([(8, 6)])
    optimizer = Frugal([w], lr=0.01, select="columns", density=0.5, update_gap=3)
    drive(optimizer, [w], 3)
    before, state = w.detach().clone(), {k: v.clone() for k, v in optimizer.state[w].items()}
    w.grad = torch.full_like(w, bad)
    optimizer.step()
    assert torch.equal(w.detach(), before)
    assert all(torch.equal(v, optimizer.state[w][k]) for k, v in state.items())
    drive(optimizer, [w], 1, 3)
    assert not torch.equal(optimizer.state[w]["basis"], state["basis"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 1.5}, r"density=1\.5"),
        ({"update_gap": 0}, "update_gap=0"),
        ({"select": "cols"}, "select='cols'"),
        ({"order": "up"}, "order='up'"),
        ({"stateful": "adam"}, "stateful='adam'"),
        ({"stateless": "no"}, "stateless='no'"),
        ({"block_count": 0}, "block_count=0"),
        ({"block_unit": "row"}, "block_unit='row'"),
        ({"rank": 0}, "rank=0"),
        ({"lr_scale": -1.0}, "lr_scale=-1"),
        ({"on_refresh": "rotate"}, "on_refresh='rotate'"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Frugal(parameters(), **options)


def test_selected_and_other_entries_are_all_of_the_matrix() -> None:
    """A step moves each entry by AdamW's first step or by a sign: by lr everywhere."""
    for select in ("columns", "rows", "randk", "block"):
        ps: list[nn.Parameter] = parameters()
        before: list[Tensor] = [p.detach().clone() for p in ps]
        drive(Frugal(ps, lr=0.01, eps=0.0, select=select), ps, 1)  # type: ignore[arg-type]
        for p, w in zip(ps, before, strict=True):
            torch.testing.assert_close((p.detach() - w).abs(), torch.full_like(w, 0.01))
