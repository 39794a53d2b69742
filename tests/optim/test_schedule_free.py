import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sharpen.core.errors import ConfigError
from sharpen.optim import ScheduleFreeAdamW, create
from sharpen.testing.optim import batch_loss, small_model, train


def _random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("warmup", [0, 7])
def test_follows_the_paper_with_x_kept_beside_z(warmup: int) -> None:
    """The three sequences as the paper has them, in float64; ours keeps y and z only."""
    w = nn.Parameter(_random(0, 5, 4))
    lr, (b1, b2), wd, r = 0.05, (0.9, 0.99), 0.1, 0.5
    optimizer = ScheduleFreeAdamW(
        [w], lr=lr, betas=(b1, b2), weight_decay=wd, warmup_steps=warmup, r=r
    )
    z = w.detach().numpy().copy()
    x, v, total, largest = z.copy(), np.zeros_like(z), 0.0, 0.0
    for t in range(1, 41):
        y = (1 - b1) * z + b1 * x
        np.testing.assert_allclose(w.detach().numpy(), y, rtol=0, atol=1e-12)
        g = _random(t, 5, 4).numpy()
        w.grad = torch.from_numpy(g.copy())
        optimizer.step()
        v = b2 * v + (1 - b2) * g**2
        rate = lr * min(1.0, t / warmup) if warmup else lr
        z = z - rate * (g / (np.sqrt(v / (1 - b2**t)) + 1e-8) + wd * y)
        largest = max(largest, rate)
        total += t**r * largest**2
        c = t**r * largest**2 / total
        x = (1 - c) * x + c * z
    with optimizer.eval_params():
        np.testing.assert_allclose(w.detach().numpy(), x, rtol=0, atol=1e-12)


@pytest.mark.peer
@pytest.mark.parametrize("options", [{}, {"warmup_steps": 10, "weight_decay": 0.1, "r": 1.0}])
def test_weights_are_those_of_the_authors_package(options: dict[str, Any]) -> None:
    import schedulefree  # type: ignore[import-untyped]

    a, b = (nn.Parameter(_random(0, 9, 7).float()) for _ in range(2))
    ours = ScheduleFreeAdamW([a], **options)
    peer = schedulefree.AdamWScheduleFree([b], foreach=False, **options)
    peer.train()
    for t in range(1, 61):
        a.grad = _random(t, 9, 7).float()
        b.grad = a.grad.clone()
        ours.step()
        peer.step()
        # The same steps, summed in another order, in float32.
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    ours.eval()
    peer.eval()
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("decoupled", [True, False])
def test_native_steps_are_those_of_the_reference(decoupled: bool) -> None:
    """Sums have the reference's bits; its square root is not always rounded to nearest."""
    ws = [nn.Parameter(_random(0, 70_001).float()) for _ in range(2)]
    runs = [
        ScheduleFreeAdamW(
            [w], weight_decay=0.1, warmup_steps=3, maximize=True, decoupled_wd=decoupled, impl=impl
        )
        for w, impl in zip(ws, ("eager", "auto"), strict=True)
    ]
    for t in range(1, 21):
        g = _random(t, 70_001).float()
        if t > 10:
            g[t], g[2 * t] = float("nan"), float("inf")
        for w, optimizer in zip(ws, runs, strict=True):
            w.grad = g.clone()
            optimizer.step(max_norm=1e3 if t <= 10 else None)
    torch.testing.assert_close(ws[1], ws[0], rtol=1e-6, atol=1e-6)
    states = [optimizer.state[w] for w, optimizer in zip(ws, runs, strict=True)]
    assert torch.equal(states[0]["exp_avg_sq"], states[1]["exp_avg_sq"])
    assert states[0]["weight_sum"] == states[1]["weight_sum"]
    assert [optimizer.stats()["nonfinite"] for optimizer in runs] == [20, 20]


def _resume(model: nn.Module, optimizer: Any) -> tuple[nn.Module, Any]:
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optim": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    fresh = small_model(seed=1)
    fresh.load_state_dict(saved["model"])
    resumed = create("schedule_free_adamw", fresh)
    resumed.load_state_dict(saved["optim"])
    return fresh, resumed


@pytest.mark.parametrize("train_mode", [True, False])
def test_saving_in_either_mode_resumes_with_the_same_bits(train_mode: bool) -> None:
    model = small_model()
    optimizer: Any = create("schedule_free_adamw", model, lr=0.05)
    train(model, optimizer, 0, 5)
    if not train_mode:
        optimizer.eval()
    fresh, resumed = _resume(model, optimizer)
    assert {g["train_mode"] for g in resumed.param_groups} == {train_mode}
    for m, o in ((model, optimizer), (fresh, resumed)):
        o.train()
        train(m, o, 5, 10)
    for x, y in zip(model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(x, y)


def test_a_step_on_the_averaged_weights_is_refused() -> None:
    model = small_model()
    optimizer: Any = create("schedule_free_adamw", model)
    train(model, optimizer, 0, 2)
    optimizer.eval()
    batch_loss(model, 2).backward()  # type: ignore[no-untyped-call]
    with pytest.raises(ConfigError, match=r"Call the optimizer's train\(\)"):
        optimizer.step()
    optimizer.train()
    optimizer.step()


def test_swapping_there_and_back_keeps_the_weights_and_twice_is_once() -> None:
    model = small_model()
    optimizer: Any = create("schedule_free_adamw", model, lr=0.05)
    train(model, optimizer, 0, 10)
    y = copy.deepcopy(model.state_dict())
    optimizer.eval()
    x = copy.deepcopy(model.state_dict())
    optimizer.eval()
    assert all(torch.equal(value, x[name]) for name, value in model.state_dict().items())
    assert any(not torch.equal(x[name], y[name]) for name in x)
    optimizer.train()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, y[name], rtol=1e-5, atol=1e-6)


def test_the_context_gives_back_every_bit_also_after_an_error() -> None:
    model = small_model()
    optimizer: Any = create("schedule_free_adamw", model, lr=0.05)
    train(model, optimizer, 0, 10)
    y = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError), optimizer.eval_params():  # noqa: PT012
        assert any(not torch.equal(value, y[name]) for name, value in model.state_dict().items())
        raise RuntimeError
    assert all(torch.equal(value, y[name]) for name, value in model.state_dict().items())
    optimizer.step()  # still in the mode of training


def test_the_average_is_better_than_the_weights_it_is_of() -> None:
    """With noisy gradients of a quadratic, x ends much nearer to the optimum than z."""
    w = nn.Parameter(torch.ones(200))
    optimizer = ScheduleFreeAdamW([w], lr=0.05)
    for step in range(300):
        w.grad = w.detach() + 2 * _random(step, 200).float()
        optimizer.step()
    z = optimizer.state[w]["z"]
    with optimizer.eval_params():
        assert float(w.detach().norm()) < 0.5 * float(z.norm())


def test_master_weights_are_swapped_too() -> None:
    w = nn.Parameter(torch.ones(50, dtype=torch.bfloat16))
    optimizer = ScheduleFreeAdamW([w], lr=0.1, master_weights=True)
    for _ in range(5):
        w.grad = torch.ones_like(w)
        optimizer.step()
    state = optimizer.state[w]
    y, z = state["master"].clone(), state["z"]
    optimizer.eval()
    torch.testing.assert_close(state["master"], (y - 0.1 * z) / 0.9)
    assert torch.equal(w, state["master"].bfloat16())


def test_states_take_two_tensors() -> None:
    w = nn.Parameter(torch.ones(30, 20))
    assert ScheduleFreeAdamW([w]).state_bytes() == 2 * 4 * 600


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": (0.0, 0.9)}, r"betas=\(0.0, 0.9\)"),
        ({"warmup_steps": -1}, "warmup_steps=-1"),
        ({"r": -1.0}, r"r=-1\.0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScheduleFreeAdamW([nn.Parameter(torch.ones(2))], **options)
