import copy
import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sharpen.core.errors import ConfigError, DataError
from sharpen.optim import mezo
from sharpen.optim.engine.philox import normal, philox, splitmix64
from sharpen.optim.mezo import MeZO, read_log, write_log
from sharpen.testing.optim import batch_loss, small_model


def _noise(seed: int, index: int, number: int, sample: int, count: int) -> torch.Tensor:
    """The first piece's noise, from its definition."""
    for word in (index, 0, number, sample):
        seed = (splitmix64(seed) + word) % 2**64
    seed = splitmix64(seed)
    counters = torch.arange(1 << 10)
    rows = [
        normal(philox((seed % 2**32, seed >> 32), (row, counters, 0, 0))).view(-1)
        for row in range(-(-count // 4096))
    ]
    return torch.cat(rows)[:count]


def _quadratic(w: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (scale * (w - 1).square()).sum()


def test_follows_the_algorithm() -> None:
    """Two groups, decay and two samples, in float64 from the noise's definition.

    Native normal numbers differ from torch's by some 1e-7.
    """
    a, b = nn.Parameter(torch.randn(7).double()), nn.Parameter(torch.randn(3, 5).double())
    groups: list[dict[str, Any]] = [
        {"params": [a]},
        {"params": [b], "lr": 0.01, "weight_decay": 0.5},
    ]
    optimizer = MeZO(groups, lr=0.02, samples=2, perturbation=1e-2, seed=4)
    loss = lambda: a.cos().sum() + (b**4).sum()  # noqa: E731
    x, y = a.detach().clone(), b.detach().clone()
    for number in (1, 2, 3):
        done = optimizer.step(loss)
        za = [_noise(4, 1, number, s, 7).double() for s in (0, 1)]
        zb = [_noise(4, 2, number, s, 15).double().view(3, 5) for s in (0, 1)]
        slopes = []
        for i in (0, 1):
            plus = (x + 1e-2 * za[i]).cos().sum() + ((y + 1e-2 * zb[i]) ** 4).sum()
            minus = (x - 1e-2 * za[i]).cos().sum() + ((y - 1e-2 * zb[i]) ** 4).sum()
            slopes.append(float(plus - minus) / 2e-2)
        assert done.projected == pytest.approx(slopes, rel=1e-5, abs=1e-5)
        x = x - 0.02 * (slopes[0] * za[0] + slopes[1] * za[1]) / 2
        y = (1 - 0.01 * 0.5) * y - 0.01 * (slopes[0] * zb[0] + slopes[1] * zb[1]) / 2
        torch.testing.assert_close(a.detach(), x, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(b.detach(), y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("noise", ["gaussian", "rademacher"])
def test_the_estimate_is_that_of_the_gradient(noise: Any) -> None:
    """With 512 seeds its cosine with the gradient in 20 dimensions is 1 / sqrt(1 + 21 / 512)."""
    w = nn.Parameter(torch.linspace(-1, 1, 20).double())
    scale = torch.linspace(0.5, 2, 20).double()
    before = w.detach().clone()
    MeZO([w], lr=1.0, samples=512, noise=noise).step(lambda: _quadratic(w, scale))
    estimate = before - w.detach()
    true = 2 * scale * (before - 1)
    cosine = float(estimate @ true / estimate.norm() / true.norm())
    assert cosine > 0.97
    assert float(estimate @ true / true.square().sum()) == pytest.approx(1, abs=0.2)


def test_large_tensors_are_moved_in_pieces_with_noise_by_place() -> None:
    w = nn.Parameter(torch.zeros(600, 600))
    optimizer = MeZO([w], lr=1.0, perturbation=0.5)
    seen: list[torch.Tensor] = []

    def loss() -> float:
        seen.append(w.detach().clone())
        return 0.0

    optimizer.step(loss)
    expected = 0.5 * _noise(0, 1, 1, 0, 262_144)
    torch.testing.assert_close(seen[0].view(-1)[:262_144], expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(seen[1].view(-1)[:262_144], -expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(w.detach(), torch.zeros(600, 600), rtol=0, atol=1e-6)


def test_pieces_and_seeds_have_noise_of_their_own() -> None:
    """Uncorrelated, and normal: no piece, parameter, step, sample or seed repeats another's."""
    rows = [
        _made(70_000, seed, words)
        for seed, words in (
            (0, (1, 0, 1, 0)),
            (1, (1, 0, 1, 0)),
            (0, (2, 0, 1, 0)),
            (0, (1, 1, 1, 0)),
            (0, (1, 0, 2, 0)),
            (0, (1, 0, 1, 1)),
        )
    ]
    table = torch.stack(rows)
    torch.testing.assert_close(torch.corrcoef(table), torch.eye(6), rtol=0, atol=0.02)
    assert abs(float(table.mean())) < 0.01 and abs(float(table.std()) - 1) < 0.01


def _made(count: int, seed: int, words: tuple[int, ...]) -> torch.Tensor:
    return mezo._noise(count, seed, words, "gaussian", torch.device("cpu"))


@pytest.mark.parametrize("count", [1, 7, 4096, 4097, 10_000])
def test_native_noise_is_that_of_torch(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    native = _made(count, 3, (1, 2, 3, 4))
    monkeypatch.setattr(mezo, "normal_rows", lambda *_: None)
    torch.testing.assert_close(_made(count, 3, (1, 2, 3, 4)), native, rtol=1e-5, atol=1e-5)


def test_a_transposed_weight_moves_too() -> None:
    a = nn.Parameter(torch.ones(3, 5).double().mT)
    b = nn.Parameter(torch.ones(5, 3).double())
    for p in (a, b):
        MeZO([p], lr=0.1).step(lambda p=p: p.square().sum())  # type: ignore[misc]
    assert not a.is_contiguous()
    torch.testing.assert_close(a.detach(), b.detach())


def test_a_log_replayed_on_the_first_weights_gives_the_same_bits(tmp_path: Path) -> None:
    model = small_model()
    start = copy.deepcopy(model.state_dict())
    options: dict[str, Any] = {"lr": 1e-3, "weight_decay": 0.1, "samples": 2}
    optimizer = MeZO(model.named_parameters(), **options)
    for step in range(6):
        if step == 3:
            optimizer.param_groups[0]["lr"] = 5e-4
        optimizer.step(lambda step=step: batch_loss(model, step))  # type: ignore[misc]
    write_log(tmp_path / "log.jsonl", optimizer.log)
    again = small_model(seed=1)
    again.load_state_dict(start)
    fresh = MeZO(again.named_parameters(), **options)
    fresh.replay(read_log(tmp_path / "log.jsonl"))
    for x, y in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(x, y)
    assert fresh.log == optimizer.log
    with pytest.raises(ConfigError, match="step 1 of the log cannot follow step 6"):
        fresh.replay(optimizer.log)
    with pytest.raises(ConfigError, match="has 2 samples, 1 groups"):
        MeZO(again.parameters()).replay(optimizer.log)


def test_saved_and_loaded_it_goes_on_with_the_same_bits() -> None:
    model = small_model()
    optimizer = MeZO(model.parameters(), lr=1e-3)
    for step in range(3):
        optimizer.step(lambda step=step: batch_loss(model, step))  # type: ignore[misc]
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    other = small_model(seed=1)
    other.load_state_dict(weights)
    resumed = MeZO(other.parameters())
    resumed.load_state_dict(state)
    for step in range(3, 5):
        optimizer.step(lambda step=step: batch_loss(model, step))  # type: ignore[misc]
        resumed.step(lambda step=step: batch_loss(other, step))  # type: ignore[misc]
    for x, y in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(x, y)


def test_a_model_learns_without_gradients_or_states() -> None:
    model = nn.Linear(10, 1).requires_grad_(False)
    x = torch.randn(64, 10, generator=torch.Generator().manual_seed(0))
    y = x.sum(1, keepdim=True)
    optimizer = MeZO(model.parameters(), lr=0.02)
    losses = [optimizer.step(lambda: (model(x) - y).square().mean()).loss for _ in range(200)]
    assert losses[-1] < 0.05 * losses[0]
    assert optimizer.state_bytes() == optimizer.state_bytes(predicted=True) == 0
    assert all(p.grad is None for p in model.parameters())


def test_a_loss_that_is_not_finite_moves_nothing_and_is_counted() -> None:
    w = nn.Parameter(torch.ones(5))
    optimizer = MeZO([w], lr=1.0)
    for loss in (math.nan, math.inf):
        optimizer.step(lambda loss=loss: loss)  # type: ignore[misc]
    torch.testing.assert_close(w.detach(), torch.ones(5), rtol=0, atol=1e-6)
    assert optimizer.stats()["nonfinite"] == 2
    assert optimizer.log[0].projected == (0.0,)


def test_half_precision_weights_and_climbing() -> None:
    w = nn.Parameter(torch.ones(50, dtype=torch.bfloat16))
    optimizer = MeZO([w], lr=0.01, perturbation=0.05, maximize=True)
    first = optimizer.step(lambda: w.float().sum()).loss
    for _ in range(30):
        last = optimizer.step(lambda: w.float().sum()).loss
    assert last > first and w.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"perturbation": 0.0}, r"perturbation=0\.0"),
        ({"samples": 0}, "samples=0"),
        ({"noise": "sphere"}, "noise='sphere'"),
        ({"lr": -1.0}, r"lr=-1\.0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MeZO([nn.Parameter(torch.ones(2))], **options)


def test_groups_share_what_moves_all_weights_at_once() -> None:
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    groups: list[dict[str, Any]] = [{"params": [a]}, {"params": [b], "samples": 2}]
    with pytest.raises(ConfigError, match=r"samples=2 differs from another group's 1"):
        MeZO(groups)


def test_a_broken_log_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"number": 1, "projected": [0.5], "rates": [0.1], "loss": 1.0}\n{"number"\n')
    with pytest.raises(DataError, match=r"log\.jsonl:2"):
        read_log(path)
