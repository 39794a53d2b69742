"""Half fine-tuning: each round trains one half of the model (Hui et al., 2024, arXiv 2404.18466).

Full fine-tuning forgets; half of the weights kept as they are remember. In round t, for each layer
and category C (attention: q, k, v, o; MLP: gate, up, down; norms)::

    S_t = a random half of C           the others are frozen: no gradient, no optimizer state
    |S_t| = |C| / 2; for odd |C| half of the layers take one more, the others one less

Embedding, head and the last norm are categories of the whole model, under the same rule. The
choice is a function of the seed and the round alone, so a resumed training makes it again.

Differs from the paper: a round may also be shorter than a training (``every``); a tied embedding,
which cannot be halved, is trained in about every other round.
Memory: gradients and optimizer state of half of the weights, 6 bytes a parameter less than full.
Time: the frozen half's weight gradients, about a sixth of the products, are not computed.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sharpen.core.errors import ConfigError

if TYPE_CHECKING:
    from sharpen.train.trainer import StepReport, Trainer

__all__ = ["HalfFineTuning", "choose_half"]


def choose_half(names: Iterable[str], *, seed: int, round: int = 0) -> frozenset[str]:
    """The parameters that a round trains.

    Args:
        names: of all parameters, as ``named_parameters`` gives them.
        seed: with ``round``, decides the choice.
        round: from 0.

    Returns:
        Names of about half of the parameters, balanced by layer and category; a layer's weight and
        bias go together.

    Examples:
        >>> names = [f"model.layers.0.self_attn.{x}_proj.weight" for x in "qkvo"]
        >>> sorted(name[-13:-7] for name in choose_half(names, seed=0))
        ['q_proj', 'v_proj']
    """
    modules: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        modules[name.rpartition(".")[0]].append(name)
    categories: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for module in sorted(modules):
        layer, category = _place(module)
        categories[category][layer].append(module)
    dice = random.Random(f"{seed}/{round}")
    chosen: list[str] = []
    for _, layers in sorted(categories.items()):
        odd = [layer for layer, members in layers.items() if len(members) % 2]
        dice.shuffle(odd)
        larger = set(odd[: (len(odd) + dice.randrange(2)) // 2])
        for layer, members in layers.items():
            chosen += dice.sample(members, len(members) // 2 + (layer in larger))
    return frozenset(name for module in chosen for name in modules[module])


def _place(module: str) -> tuple[str, str]:
    """Layer and category of a module."""
    prefix, found, rest = module.partition(".layers.")
    layer = rest.partition(".")[0] if found else prefix.partition(".")[0]
    if "norm" in module.rpartition(".")[2]:
        return (layer, "norm") if found else ("", "last norm")
    if not found:
        return "", "embedding"
    return layer, "attention" if "attn" in module else "mlp"


class HalfFineTuning:
    """A callback that freezes one half of the trainer's model, another one each round.

    Args:
        seed: decides the halves.
        every: optimizer steps a round; None is one round for the whole training.

    Raises:
        ConfigError: ``every`` is below 1.
    """

    def __init__(self, *, seed: int = 0, every: int | None = None) -> None:
        if every is not None and every < 1:
            raise ConfigError(f"half_every={every} must be at least 1.")
        self.seed = seed
        self.every = every

    def on_start(self, trainer: Trainer) -> None:
        """Freeze the half of the round that the trainer is in."""
        self._freeze(trainer)

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        """At the end of a round, choose anew."""
        if self.every is not None and report.step % self.every == 0:
            self._freeze(trainer)

    def _freeze(self, trainer: Trainer) -> None:
        parameters = dict(trainer.model.named_parameters())
        number = trainer.step // self.every if self.every is not None else 0
        trained = choose_half(parameters, seed=self.seed, round=number)
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in trained)
            if name not in trained:
                parameter.grad = None
                trainer.optimizer.state.pop(parameter, None)
