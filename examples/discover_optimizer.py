"""Search for an update rule among programs: regularized evolution, then longer tests of the best.

A child of a good program trains a small network for 40 steps, unless an earlier program did the
same. The best go on to a wider network, other data and more steps, and what is left is printed
without the statements that do nothing. Some 40 seconds: python examples/discover_optimizer.py
"""

import argparse
from typing import ClassVar

import torch

from sharpen import Budget, Study, problem
from sharpen.core.optimizer import Capabilities, Optimizer
from sharpen.core.space import random_stream
from sharpen.optim import program

LENGTH, POPULATION, TOURNAMENT, LR = 8, 60, 8, 0.02
SPACE = program.program_space(LENGTH)
KNOWN = {"Lion": program.LION, "Adam": program.ADAM, "momentum": program.MOMENTUM}


class RegularizedEvolution(Optimizer):
    """Real et al., 2019: a child of the best of a few among the youngest; the old are forgotten."""

    name: ClassVar[str] = "evolution"
    capabilities: ClassVar[Capabilities] = Capabilities()

    def propose(self, number: int) -> dict:
        rng = random_stream(self.seed, number)
        young = sorted(n for n in self.history if self.history[n].is_ok)[-POPULATION:]
        picked = [self.history[int(n)] for n in rng.choice(young, TOURNAMENT)]
        parent = min(picked, key=lambda trial: trial.values["loss"]).config
        changed = rng.choice(list(SPACE), rng.integers(1, 4), replace=False)
        drawn = SPACE.draw(rng)
        return {**parent, **{str(name): drawn[str(name)] for name in changed}}


def train(rule: program.Program, width: int, steps: int, lr: float, seed: int) -> float:
    """Loss at the end, as a network of two layers learns another one."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(512, 12, generator=random) * torch.logspace(0, -1, 12)
    y = (x @ torch.randn(12, 6, generator=random)).tanh() @ torch.randn(6, 1, generator=random)
    w = torch.randn(14 * width, generator=random) * 0.3
    momentum, velocity = torch.zeros_like(w), torch.zeros_like(w)
    losses = []
    for step in range(steps):
        rows = torch.randint(0, 512, (64,), generator=random)
        w.requires_grad_()
        first, bias, second = w.view(14, width).split((12, 1, 1))
        loss = ((x[rows] @ first + bias).tanh() @ second.T - y[rows]).square().mean()
        (g,) = torch.autograd.grad(loss, w)
        w = w.detach()
        rate = lr * min(1.0, 2 - 2 * step / steps)
        update, momentum, velocity = program.run(rule, w, g, momentum, velocity, rate)
        w = w - update
        losses.append(loss.item() if loss.isfinite() else 100.0)
    return min(sum(losses[-10:]) / 10, 100.0)


def tuned(rule: program.Program, steps: int, seeds: range) -> float:
    """Mean loss over some data, at the best of four learning rates."""
    rates = (LR / 4, LR / 2, LR, LR * 2)
    return min(sum(train(rule, 16, steps, lr, s) for s in seeds) / len(seeds) for lr in rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1200)
    trials = parser.parse_args().trials
    torch.set_num_threads(1)
    found: dict[str, tuple[float, program.Program]] = {}

    @problem(SPACE, minimize="loss")
    def proxy(config: dict) -> float:
        rule = program.simplify(program.decode(config))
        kind = program.fingerprint(rule)
        if kind is not None and kind not in found:
            found[kind] = train(rule, 8, 40, LR, seed=1), rule
        return 100.0 if kind is None else found[kind][0]

    budget = Budget(trials=trials)
    study = Study(proxy, optimizer=RegularizedEvolution, store="sqlite://", budget=budget)
    study.enqueue([program.encode(program.MOMENTUM, LENGTH)])
    study.run()
    rules = [rule for _, rule in sorted(found.values(), key=lambda pair: pair[0])]
    print(f"{trials} trials, {len(found)} different rules that learn")
    for keep, steps, seeds in ((15, 60, range(2, 3)), (4, 200, range(3, 5)), (1, 400, range(5, 8))):
        rules = sorted(rules[:keep], key=lambda rule: tuned(rule, steps, seeds))
    for name, rule in {"found": rules[0], **KNOWN}.items():
        print(f"{name:9} {tuned(rule, 400, range(8, 11)):.4f}")
    print(rules[0])


if __name__ == "__main__":
    main()
