from typing import Any

import pytest
import torch
from torch import nn

from sharpen.core.errors import ConfigError
from sharpen.optim import Muon, create, orthogonalize, param_groups
from sharpen.testing.optim import batch_loss, small_model

SHAPES = [(64, 32), (32, 64), (48, 48), (7, 5)]


def _random(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.peer
@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_weights_are_those_of_torch(shape: tuple[int, ...], nesterov: bool, adjust: str) -> None:
    a, b = nn.Parameter(_random(shape, 0)), nn.Parameter(_random(shape, 0))
    ours = Muon([a], lr=0.02, nesterov=nesterov, adjust=adjust, ns_dtype="bf16")  # type: ignore[arg-type]
    peer = torch.optim.Muon([b], lr=0.02, nesterov=nesterov, adjust_lr_fn=adjust)
    for step in range(30):
        a.grad = _random(shape, step + 1)
        b.grad = a.grad.clone()
        ours.step()
        peer.step()  # type: ignore[no-untyped-call]
    # Both have bfloat16 products of the same order; the scale is folded in one place or another.
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_follows_the_formula() -> None:
    w = nn.Parameter(_random((6, 4), 0).double())
    optimizer = Muon([w], lr=0.1, momentum=0.8, weight_decay=0.5, ns_dtype="fp32")
    expected, buffer = w.detach().clone(), torch.zeros(6, 4, dtype=torch.float64)
    for step in range(4):
        g = _random((6, 4), step + 1).double()
        w.grad = g.clone()
        optimizer.step()
        buffer = 0.8 * buffer + 0.2 * g
        o = orthogonalize(0.2 * g + 0.8 * buffer)
        expected = (1 - 0.1 * 0.5) * expected - 0.1 * (6 / 4) ** 0.5 * o
        torch.testing.assert_close(w.detach(), expected, rtol=1e-12, atol=1e-12)


def test_a_stack_of_experts_takes_the_step_of_each() -> None:
    stack = nn.Parameter(_random((3, 8, 5), 0))
    alone = [nn.Parameter(x.clone()) for x in stack.detach()]
    one = Muon([stack], lr=0.1, ns_dtype="fp32")
    many = Muon(alone, lr=0.1, ns_dtype="fp32")
    for step in range(3):
        stack.grad = _random((3, 8, 5), step + 1)
        for p, g in zip(alone, stack.grad, strict=True):
            p.grad = g.clone()
        one.step()
        many.step()
    torch.testing.assert_close(stack.detach(), torch.stack([p.detach() for p in alone]))


def test_a_convolution_is_a_matrix_of_its_outputs() -> None:
    model = nn.Sequential(nn.Conv1d(4, 6, 3, bias=False))
    weight = model[0].weight
    assert isinstance(weight, nn.Parameter)
    flat = nn.Parameter(weight.detach().flatten(1).clone())
    ours = create("muon", model, lr=0.1, conv_as_matrix=True, ns_dtype="fp32")
    other = Muon([flat], lr=0.1, ns_dtype="fp32")
    weight.grad = _random((6, 4, 3), 1)
    flat.grad = weight.grad.flatten(1).clone()
    ours.step()
    other.step()
    torch.testing.assert_close(weight.detach().flatten(1), flat.detach())


def test_roles_choose_the_rule_and_adamw_may_have_its_own_rate() -> None:
    model = small_model()
    optimizer = create("muon", model, lr=0.02, adamw_lr=3e-4)
    found = {g["role"]: (g["rule"], g["lr"]) for g in optimizer.param_groups}
    assert found["matrix"] == ("muon", 0.02)
    assert {found[role] for role in ("embedding", "head", "vector")} == {("adamw", 3e-4)}
    groups = param_groups(model, "muon", overrides=[(nn.Embedding, {"lr": 0.5})])
    embedding = next(
        g for g in Muon(groups, adamw_lr=3e-4).param_groups if g["role"] == "embedding"
    )
    assert embedding["lr"] == 0.5


def test_equal_shapes_are_one_batch() -> None:
    shapes = [(8, 4), (4, 8), (8, 4), (2, 3, 5), (8, 4)]
    runs = []
    for impl in ("eager", "foreach"):
        ps = [nn.Parameter(_random(shape, i)) for i, shape in enumerate(shapes)]
        optimizer = Muon(ps, lr=0.1, ns_dtype="fp32", impl=impl)
        for step in range(3):
            for i, p in enumerate(ps):
                p.grad = _random(shapes[i], 10 * step + i)
            optimizer.step()
        runs.append([p.detach() for p in ps])
    torch.testing.assert_close(runs[0], runs[1], rtol=1e-5, atol=1e-5)


def test_states_take_four_bytes_a_weight_of_a_matrix() -> None:
    w = nn.Parameter(torch.ones(30, 20))
    assert Muon([w]).state_bytes() == 4 * 30 * 20
    assert Muon([w], state_dtype="bf16").state_bytes() == 2 * 30 * 20
    assert Muon([nn.Parameter(torch.ones(30))]).state_bytes() == 8 * 30


def test_the_chosen_type_is_kept_with_the_state() -> None:
    model = small_model()
    optimizer = create("muon", model)
    assert all(g["ns_dtype"] in ("fp32", "bf16") for g in optimizer.param_groups)
    batch_loss(model, 0).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        group["ns_dtype"] = "bf16"
    optimizer.load_state_dict(saved)
    assert {g["ns_dtype"] for g in optimizer.param_groups} == {"bf16"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adjust": "adam"}, "adjust='adam'"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"ns_steps": 0}, "ns_steps=0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Muon([nn.Parameter(torch.ones(2, 2))], **options)
