"""What every gradient optimizer must keep, as a class of tests.

Subclass it in a test file; pytest runs every ``test_`` method::

    class TestMine(GradientOptimizerConformance):
        name = "mine"
        options = {"lr": 1e-2}
"""

from __future__ import annotations

import copy
import functools
import io
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sharpen.core.errors import ConfigError
from sharpen.optim.engine.base import Optimizer
from sharpen.optim.names import find
from sharpen.optim.registry import create

__all__ = ["GradientOptimizerConformance", "small_model", "train"]

_TOKENS, _WIDTH = 24, 32


def small_model(seed: int = 0) -> nn.Module:
    """An embedding, two matrices (a wide and a tall one), biases, a norm and a head."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Embedding(_TOKENS, _WIDTH),
        nn.Linear(_WIDTH, 2 * _WIDTH),
        nn.Tanh(),
        nn.Linear(2 * _WIDTH, _WIDTH),
        nn.LayerNorm(_WIDTH),
        nn.Linear(_WIDTH, _TOKENS, bias=False),
    )
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.3)
            elif name.endswith("bias"):
                p.zero_()
    return model


def batch_loss(model: nn.Module, step: int) -> Tensor:
    """Cross entropy of predicting the token seven places further, of a batch chosen by ``step``."""
    tokens = torch.randint(0, _TOKENS, (16,), generator=torch.Generator().manual_seed(step))
    logits = model(tokens)
    return nn.functional.cross_entropy(logits.float(), (tokens + 7) % _TOKENS)


def train(model: nn.Module, optimizer: Optimizer, first: int, last: int) -> list[float]:
    """Losses of the steps from ``first`` up to, not including, ``last``."""
    losses = []
    for step in range(first, last):
        loss = batch_loss(model, step)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


class GradientOptimizerConformance:
    """Tests of one optimizer."""

    name: ClassVar[str]
    """In the registry."""

    options: ClassVar[dict[str, Any]] = {}
    """A learning rate that suits :meth:`model`, and what makes a short run meet every branch
    of the method, such as a small rank and a refresh every few steps."""

    steps: ClassVar[int] = 200
    """In which the loss must fall."""

    loss: ClassVar[float] = 1.0
    """To what; a guess costs 3.18."""

    tolerance: ClassVar[float] = 1e-5
    """Largest relative distance between ways to compute the same steps."""

    def model(self, seed: int = 0) -> nn.Module:
        """The model that is trained."""
        return small_model(seed)

    def make(self, model: nn.Module, **more: Any) -> Optimizer:
        """The optimizer over a model, with low-rank rules on its small matrices, too."""
        return create(self.name, model, **{"min_lowrank_dim": 1, **self.options, **more})

    def run(self, steps: int, seed: int = 0, **more: Any) -> tuple[nn.Module, Optimizer]:
        """A model trained for some steps, and its optimizer."""
        model = self.model(seed)
        optimizer = self.make(model, **more)
        train(model, optimizer, 0, steps)
        return model, optimizer

    def test_loss_falls(self) -> None:
        """The model learns."""
        model = self.model()
        losses = train(model, self.make(model), 0, self.steps)
        assert sum(losses[-10:]) / 10 < self.loss

    def test_same_seed_same_bits(self) -> None:
        """Two runs are alike in every bit."""
        a, b = self.run(12)[0], self.run(12)[0]
        for x, y in zip(a.parameters(), b.parameters(), strict=True):
            assert torch.equal(x, y)

    def test_resumes_with_the_same_bits(self) -> None:
        """Saved after any step and loaded elsewhere, training goes on as if nothing was."""
        whole, _ = self.run(14)
        for stop in (1, 5, 10):
            model, optimizer = self.run(stop)
            file = io.BytesIO()
            torch.save({"model": model.state_dict(), "optim": optimizer.state_dict()}, file)
            file.seek(0)
            saved = torch.load(file, weights_only=True)
            fresh = self.model(seed=1)
            fresh.load_state_dict(saved["model"])
            resumed = self.make(fresh)
            resumed.load_state_dict(saved["optim"])
            train(fresh, resumed, stop, 14)
            for (n, x), y in zip(whole.named_parameters(), fresh.parameters(), strict=True):
                assert torch.equal(x, y), (stop, n)

    def test_ways_agree(self) -> None:
        """One by one, by lists, and by native code: the same weights."""
        expected, _ = self.run(10, impl="eager")
        for impl in ("foreach", "auto"):
            found, _ = self.run(10, impl=impl)
            for (n, x), y in zip(expected.named_parameters(), found.parameters(), strict=True):
                torch.testing.assert_close(
                    y, x, rtol=self.tolerance, atol=self.tolerance, msg=f"{impl}: {n}"
                )

    def test_gradients_are_not_written_to(self) -> None:
        """Norms logged after a step are those of the gradients."""
        model = self.model()
        optimizer = self.make(model)
        for step in range(3):
            batch_loss(model, step).backward()  # type: ignore[no-untyped-call]
            before = [p.grad.clone() for p in model.parameters() if p.grad is not None]
            optimizer.step()
            after = [p.grad for p in model.parameters() if p.grad is not None]
            for x, y in zip(before, after, strict=True):
                assert torch.equal(x, y)

    def test_states_take_the_predicted_bytes(self) -> None:
        """To the byte, by parameter."""
        model = self.model()
        optimizer = self.make(model)
        predicted = optimizer.state_bytes(per_param=True, predicted=True)
        train(model, optimizer, 0, 2)
        assert optimizer.state_bytes(per_param=True) == predicted

    def test_nan_spoils_nothing(self) -> None:
        """An entry that is not finite leaves finite weights and states, and is counted."""
        model, optimizer = self.run(3)
        batch_loss(model, 3).backward()  # type: ignore[no-untyped-call]
        for p, bad in zip(model.parameters(), (float("nan"), float("inf")), strict=False):
            assert p.grad is not None
            p.grad.view(-1)[3] = bad
        optimizer.step()
        optimizer.zero_grad()
        assert optimizer.stats()["nonfinite"] >= 2
        losses = train(model, optimizer, 4, 8)
        assert all(p.isfinite().all() for p in model.parameters())
        assert all(
            value.isfinite().all()
            for state in optimizer.state.values()
            for value in state.values()
            if value.is_floating_point()
        )
        assert max(losses) < 10

    def test_zero_gradients_first(self) -> None:
        """A first gradient of zeros is no trap for later ones."""
        model = self.model()
        optimizer = self.make(model)
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
        optimizer.zero_grad()
        losses = train(model, optimizer, 0, self.steps)
        assert all(p.isfinite().all() for p in model.parameters())
        assert sum(losses[-10:]) / 10 < self.loss

    def test_odd_tensors(self) -> None:
        """Of no dimension, one, three, one element, no element; without a gradient; added later."""
        shapes = [(), (1,), (5,), (0, 3), (1, 1), (3, 7), (2, 3, 4)]
        ps = [nn.Parameter(torch.full(shape, 0.5)) for shape in shapes]
        lonely, late = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(3, 5))
        optimizer = self.bare([*ps, lonely])
        for step in range(3):
            if step == 1:
                optimizer.add_param_group({"params": [late]})
            for p in (*ps, late):
                p.grad = torch.ones_like(p)
            optimizer.step()
        assert torch.equal(lonely, torch.ones(4, 4))
        for p in (*ps, late):
            assert p.isfinite().all()
            assert not p.numel() or float(p.detach().mean()) != (1.0 if p is late else 0.5)

    def test_half_precision_weights(self) -> None:
        """Bfloat16 weights learn, with states and arithmetic in float32."""
        model = self.model().to(torch.bfloat16)
        losses = train(model, self.make(model), 0, self.steps)
        assert sum(losses[-10:]) / 10 < self.loss + 0.5
        assert all(p.dtype == torch.bfloat16 for p in model.parameters())

    def test_master_weights(self) -> None:
        """Float32 copies of bfloat16 weights are what is trained."""
        model = self.model().to(torch.bfloat16)
        optimizer = self.make(model, master_weights=True)
        train(model, optimizer, 0, 5)
        for p, state in optimizer.state.items():
            assert torch.equal(state["master"].to(torch.bfloat16), p)

    def test_copies_go_on_alike(self) -> None:
        """A model and its optimizer copied together train to the same bits."""
        model, optimizer = self.run(3)
        twin, other = copy.deepcopy((model, optimizer))
        for pair in ((model, optimizer), (twin, other)):
            train(*pair, 3, 6)
        for x, y in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.equal(x, y)

    def test_learning_rate_may_change(self) -> None:
        """A new number in the group counts at the next step; 0 changes no weight."""
        model, optimizer = self.run(2)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        before = copy.deepcopy(model.state_dict())
        train(model, optimizer, 2, 3)
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, before[name], rtol=0, atol=1e-7)

    def test_wrong_states_are_refused(self) -> None:
        """Of another optimizer, other shapes, other options; the message names the parameter."""
        model, optimizer = self.run(2)
        other = copy.deepcopy(optimizer.state_dict())
        for group in other["param_groups"]:
            group["optimizer"] = "Other"
        _refused(optimizer, other, "Other")
        number = next(iter(optimizer.state_dict()["state"]))
        cut = copy.deepcopy(optimizer.state_dict())
        cut["state"][number]["step"] = torch.zeros(2)
        _refused(optimizer, cut, "step")
        foreign = torch.optim.SGD(model.parameters(), lr=0.1).state_dict()
        _refused(optimizer, foreign, "not")
        shaped = self.bare([nn.Parameter(torch.ones(4, 4))])
        _refused(shaped, self.bare([nn.Parameter(torch.ones(4, 6))]).state_dict(), "shape (4, 6)")

    def test_bad_options_are_refused(self) -> None:
        """A learning rate below 0 or NaN, sparse gradients, complex weights, no parameters."""
        w = nn.Parameter(torch.ones(4, 4))
        for lr in (-1.0, float("nan"), float("inf"), "fast"):
            _raises(functools.partial(self.bare, [w], lr=lr), "lr")
        _raises(lambda: self.bare([w], no_such_option=1), "no_such_option")
        _raises(lambda: self.bare([]), "no parameters")
        _raises(lambda: self.bare([nn.Parameter(torch.ones(2, dtype=torch.complex64))]), "complex")
        optimizer = self.bare([w])
        w.grad = torch.ones(4, 4).to_sparse()
        _raises(optimizer.step, "sparse")

    def bare(self, params: list[nn.Parameter], **more: Any) -> Optimizer:
        """The optimizer over parameters that belong to no model."""
        kind = find(self.name)
        options = {k: v for k, v in self.options.items() if k != "min_lowrank_dim"}
        return kind(params, **{**options, **more})


def _message(call: Callable[[], Any]) -> str:
    """What the error says that a call must raise."""
    try:
        call()
    except ConfigError as error:
        return str(error)
    raise AssertionError("no error was raised")


def _raises(call: Callable[[], Any], text: str) -> None:
    message = _message(call)
    assert text in message, message


def _refused(optimizer: Optimizer, state: dict[str, Any], text: str) -> None:
    before = copy.deepcopy(optimizer.state_dict()["state"])
    _raises(lambda: optimizer.load_state_dict(state), text)
    after = optimizer.state_dict()["state"]
    for number, slots in before.items():
        for name, value in slots.items():
            assert torch.equal(value, after[number][name])
