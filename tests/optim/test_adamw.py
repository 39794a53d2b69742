import pytest
import torch
from torch import nn

from sharpen.core.errors import ConfigError
from sharpen.optim.adamw import make_adamw, split_decay


def _layers() -> nn.Module:
    model = nn.Module()
    model.embed_tokens = nn.Embedding(5, 4)
    model.linear = nn.Linear(4, 3)
    model.norm = nn.LayerNorm(3)
    return model


def test_only_matrices_decay() -> None:
    model = _layers()
    decayed, kept = split_decay(model.named_parameters(), 0.1)
    assert [p.shape for p in decayed["params"]] == [(3, 4)]
    assert decayed["weight_decay"] == 0.1 and kept["weight_decay"] == 0.0
    assert len(kept["params"]) == 4


def test_frozen_parameters_are_left_out_and_all_frozen_is_an_error() -> None:
    model = _layers()
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="no parameter is trainable"):
        make_adamw(model.named_parameters(), lr=1e-3)
    model.linear.weight.requires_grad_(True)
    optimizer = make_adamw(model.named_parameters(), lr=1e-3)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 1


def test_updates_follow_the_formula() -> None:
    """Three steps against Loshchilov & Hutter's algorithm 2, in float64."""
    torch.manual_seed(0)
    linear = nn.Linear(4, 3, bias=False).double()
    w = linear.weight.detach().clone()
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    optimizer = make_adamw(linear.named_parameters(), lr=0.1, betas=(0.8, 0.9), weight_decay=0.5)
    for t in range(1, 4):
        grad = torch.randn(3, 4, dtype=torch.float64)
        linear.weight.grad = grad.clone()
        optimizer.step()
        m, v = 0.8 * m + 0.2 * grad, 0.9 * v + 0.1 * grad**2
        step = (m / (1 - 0.8**t)) / ((v / (1 - 0.9**t)).sqrt() + 1e-8)
        w = w - 0.1 * 0.5 * w - 0.1 * step
        torch.testing.assert_close(linear.weight.detach(), w)
