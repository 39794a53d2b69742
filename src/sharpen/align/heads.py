"""What a policy gets beside its language-model head: critics, scores, values of B-Coder.

Heads are modules of the model itself, so that one optimizer and one checkpoint have everything, and
are taken off before the model is written.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from sharpen.core.errors import ConfigError
from sharpen.models.decoder import DecoderLM
from sharpen.models.hf import read_safetensors_header, save_tensors

__all__ = [
    "DuelingHead",
    "add_critic",
    "add_dueling_head",
    "add_score_head",
    "read_dueling_head",
    "take_off_heads",
    "write_dueling_head",
]

_DUELING_FILE = "value_head.safetensors"
_SEED = 0  # of the values' first weights
_NAMES = ("critic", "critic_head", "score", "dueling")


def add_critic(model: DecoderLM) -> None:
    """Give a policy a critic of its own size: a copy with a head for one number.

    What is frozen in the policy is shared: under adapters the critic is adapters and a head. The
    head begins at 0.
    """
    frozen = {id(p): p for p in model.parameters() if not p.requires_grad}
    critic = copy.deepcopy(model, memo=frozen)
    del critic.lm_head  # it would be trained by nothing
    model.add_module("critic", critic)
    model.add_module("critic_head", _zero_head(model))


def add_score_head(model: DecoderLM) -> None:
    """Give a model the head of a reward model, without bias as ``transformers`` has it."""
    head = nn.Linear(model.spec.hidden_size, 1, bias=False, device=model.lm_head.weight.device)
    nn.init.zeros_(head.weight)
    model.add_module("score", head)


class DuelingHead(nn.Module):
    """Values of B-Coder on the last hidden state (Yu et al., ICLR 2024, section 4).

    ::

        V_phi(s) = phi(s)               stage phi, then frozen
        V_r(s)   = h_1(s) - h_2(s)      stage theta; h_2 is the frozen copy of h_1: 0 at first

    Args:
        hidden_size: of the state.
        device: where it lies.
    """

    def __init__(self, hidden_size: int, device: torch.device | str = "cpu") -> None:
        super().__init__()
        # The same numbers each time: h_2 is in no checkpoint, since it is never trained.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            self.phi, self.residual = _mlp(hidden_size), _mlp(hidden_size)
        nn.init.zeros_(cast(nn.Linear, self.phi[-1]).weight)
        self.start = copy.deepcopy(self.residual).requires_grad_(False)
        self.to(device)

    def gained(self, hidden: Tensor) -> Tensor:
        """[..., H] -> [..., 1]: V_r."""
        value: Tensor = self.residual(hidden) - self.start(hidden)
        return value

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., H] -> [..., 1]: V_phi + V_r, raw."""
        value: Tensor = self.phi(hidden) + self.gained(hidden)
        return value


def add_dueling_head(model: DecoderLM) -> None:
    """Give a policy the values of B-Coder."""
    head = DuelingHead(model.spec.hidden_size, model.lm_head.weight.device)
    model.add_module("dueling", head)


def write_dueling_head(model: DecoderLM, folder: Path) -> None:
    """Write the values of B-Coder into a model's folder."""
    head = model.get_submodule("dueling")
    tensors = {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}
    save_tensors(tensors, folder / _DUELING_FILE)


def read_dueling_head(model: DecoderLM, folder: Path) -> None:
    """Give the model's head the values that :func:`write_dueling_head` wrote.

    Raises:
        ConfigError: the folder has none, or those of another model.
    """
    path = folder / _DUELING_FILE
    if not path.is_file():
        raise ConfigError(
            f"{folder} has no {_DUELING_FILE}: fit values first, with options.stage=phi or both."
        )
    found = {name: one.read() for name, one in read_safetensors_header(path).items()}
    try:
        model.get_submodule("dueling").load_state_dict(found)
    except RuntimeError as error:
        raise ConfigError(f"{path} belongs to another model: {error}") from error


def take_off_heads(model: DecoderLM) -> None:
    """Leave the language model alone."""
    for name in _NAMES:
        if name in model._modules:
            delattr(model, name)


def _zero_head(model: DecoderLM) -> nn.Linear:
    head = nn.Linear(model.spec.hidden_size, 1, device=model.lm_head.weight.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _mlp(hidden_size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.GELU(), nn.Linear(hidden_size, 1))
