import pytest
import torch
from torch import nn

from sharpen.core.errors import ConfigError
from sharpen.optim import AdamW, create, describe, param_groups, roles
from sharpen.train import TrainConfig
from sharpen.train.optimizer import OptimizerMaker
from small_models import small_model


def test_updates_follow_the_formula() -> None:
    """Three steps against Loshchilov & Hutter's algorithm 2, in float64."""
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(3, 4, dtype=torch.float64))
    w = p.detach().clone()
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    optimizer = AdamW([p], lr=0.1, betas=(0.8, 0.9), weight_decay=0.5)
    for t in range(1, 4):
        grad = torch.randn(3, 4, dtype=torch.float64)
        p.grad = grad.clone()
        optimizer.step()
        m, v = 0.8 * m + 0.2 * grad, 0.9 * v + 0.1 * grad**2
        step = (m / (1 - 0.8**t)) / ((v / (1 - 0.9**t)).sqrt() + 1e-8)
        w = w - 0.1 * 0.5 * w - 0.1 * step
        torch.testing.assert_close(p.detach(), w)


def test_a_training_decays_matrices_alone() -> None:
    model = small_model()
    model.requires_grad_(True)
    make = OptimizerMaker(model, TrainConfig(steps=1, weight_decay=0.1))
    decayed = {
        name
        for group in make(model.named_parameters()).param_groups
        for name in group["param_names"]
        if group["weight_decay"]
    }
    matrices = {n for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n}
    assert decayed == matrices


def test_frozen_parameters_are_left_out_and_all_frozen_is_an_error() -> None:
    model = small_model()
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="no parameter is trainable"):
        OptimizerMaker(model, TrainConfig(steps=1))
    model.model.norm.weight.requires_grad_(True)
    made = OptimizerMaker(model, TrainConfig(steps=1))(model.named_parameters())
    assert [p for group in made.param_groups for p in group["params"]] == [model.model.norm.weight]


def test_roles_and_groups_go_by_the_kind_of_module() -> None:
    model = nn.ModuleDict(
        {
            "words": nn.Embedding(30, 8),
            "conv": nn.Conv1d(8, 8, 3),
            "up": nn.Linear(8, 16),
            "norm": nn.LayerNorm(16),
            "out": nn.Linear(16, 30, bias=False),
        }
    )
    found = roles(model)
    assert found["words.weight"] == "embedding" and found["out.weight"] == "head"
    assert found["conv.weight"] == "other" and found["up.weight"] == "matrix"
    assert {found["conv.bias"], found["norm.weight"]} == {"vector"}
    assert roles(model, conv_as_matrix=True)["conv.weight"] == "matrix"
    tied = nn.ModuleDict({"words": nn.Embedding(30, 8), "out": nn.Linear(8, 30, bias=False)})
    tied["out"].weight = tied["words"].weight
    assert roles(tied) == {"words.weight": "embedding"}
    groups = param_groups(model, "muon", overrides=[("up", {"lr": 0.5}), (nn.Conv1d, {"lr": 0.1})])
    rates = {n: g.get("lr") for g in groups for n, _ in g["params"]}
    assert rates["up.weight"] == rates["up.bias"] == 0.5 and rates["conv.bias"] == 0.1
    assert rates["norm.weight"] is None
    rules = {n: g["rule"] for g in groups for n, _ in g["params"]}
    assert [n for n, rule in rules.items() if rule == "muon"] == ["up.weight"]
    assert "embedding  adamw  1        240" in describe(groups)
    with pytest.raises(ConfigError, match="matches no trainable"):
        param_groups(model, "adamw", overrides=[("nothing", {})])


def test_options_of_a_recipe_reach_the_optimizer_and_wrong_ones_are_named() -> None:
    model = small_model()
    model.requires_grad_(True)
    config = TrainConfig(steps=1, optimizer="apollo-mini", optimizer_options={"scale": 3.0})
    made = OptimizerMaker(model, config)(model.named_parameters())
    assert type(made).__name__ == "ApolloMini"
    assert made.param_groups[0]["scale"] == 3.0 and made.param_groups[0]["betas"] == (0.9, 0.999)
    assert OptimizerMaker(model, TrainConfig(steps=1))(model.named_parameters()).param_groups[0][
        "betas"
    ] == (0.9, 0.95)
    wrong = TrainConfig(steps=1, optimizer_options={"rnak": 3})
    with pytest.raises(ConfigError, match="rnak"):
        OptimizerMaker(model, wrong)
    with pytest.raises(ConfigError, match="Did you mean 'lion'"):
        TrainConfig(steps=1, optimizer="lionn")


def test_a_step_may_clip_without_touching_gradients() -> None:
    model = small_model()
    model.requires_grad_(True)
    optimizer = create("sgd", model, lr=1.0, weight_decay=0.0)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step(max_norm=0.5)
    moved = sum((p.detach() - before[n]).square().sum() for n, p in model.named_parameters())
    assert float(moved.sqrt()) == pytest.approx(0.5, rel=1e-4)
    assert all(p.grad.eq(1).all() for p in model.parameters())


def test_create_takes_parameters_and_groups_as_they_are() -> None:
    model = nn.Linear(4, 4)
    optimizer = create("adamw_8bit", list(model.parameters()), lr=0.1)
    assert [len(group["params"]) for group in optimizer.param_groups] == [2]
    groups = [{"params": [model.weight], "lr": 0.5}, {"params": [model.bias]}]
    optimizer = create("lion", groups, lr=0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
