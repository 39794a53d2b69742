"""What a ladder of fidelities is worth: regret at equal cost, with and without cheap measurements.

Three tasks with 81 epochs. ``curves``: Hartmann 6 that is learnt at a rate which depends on the
configuration, so that curves cross; ``biased``: Branin whose valleys lie elsewhere at a low
fidelity; ``noisy``: Hartmann 6 with noise that falls with the square root of the epochs. Each
method may spend as much as 25 full trials, a round of Hyperband; a configuration that climbs is
measured anew and pays for all its epochs. The regret is the true one, in full and without noise, of
what is recommended in the end. Beside them: Optuna's TPE with its Hyperband pruner, which goes on
from where a trial stands and pays for the further epochs only.

    python -m benchmarks.search.bench_multi_fidelity [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import optuna
from benchmarks.common import arguments, draw_bars, save
from benchmarks.search.bench_tpe import FLOOR, TASKS, hartmann, mean_of

from sharpen.core.problem import Fidelity
from sharpen.core.space import random_stream
from sharpen.search import ASHA, BOHB, DEHB, TPE, Hyperband, Random, SuccessiveHalving
from sharpen.testing.search import branin

TOP, FULL_TRIALS, SEEDS = 81, 25, 20
EPOCHS = Fidelity("epochs", 1, TOP, integer=True)
METHODS: dict[str, Any] = {
    "random": Random,
    "tpe": TPE,
    "successive-halving": SuccessiveHalving,
    "asha": ASHA,
    "hyperband": Hyperband,
    "bohb": BOHB,
    "dehb": DEHB,
}


def curves(config: dict[str, Any], epochs: float, rng: Any) -> float:
    """Falls from 0 to its limit; what is learnt slowly is not better in the end."""
    rate = 3 + 12 * config["x0"]
    return hartmann(config) * (1 - math.exp(-rate * epochs / TOP))


def biased(config: dict[str, Any], epochs: float, rng: Any) -> float:
    """Branin moved by up to 1.5 along x."""
    shift = 1.5 * (1 - epochs / TOP)
    return branin(config["x"] + shift, config["y"])


def noisy(config: dict[str, Any], epochs: float, rng: Any) -> float:
    """Hartmann 6 with noise of standard deviation 0.05 in full and 0.45 at one epoch."""
    return hartmann(config) + 0.05 * math.sqrt(TOP / epochs) * float(rng.standard_normal())


Measure = Callable[[dict[str, Any], float, Any], float]
PROBLEMS: dict[str, tuple[str, Measure]] = {
    "curves": ("Hartmann 6", curves),
    "biased": ("Branin", biased),
    "noisy": ("Hartmann 6", noisy),
}


def _regret(name: str, config: dict[str, Any]) -> float:
    task, measure = PROBLEMS[name]
    space = TASKS[task]
    truth = space.loss(config) if measure is noisy else measure(config, TOP, None)
    return max(truth - space.optimum, FLOOR)


def run_ours(name: str, kind: Any, seed: int) -> float:
    """Regret of one of ours; those without rungs measure in full."""
    task, measure = PROBLEMS[name]
    optimizer = kind(TASKS[task].space, seed=seed, fidelity=EPOCHS)
    spent = 0.0
    while spent < FULL_TRIALS:
        [candidate] = optimizer.ask()
        epochs = candidate.fidelity or TOP
        rng = random_stream(seed + 1000, candidate.number)
        optimizer.tell([candidate.result(measure(candidate.config, epochs, rng))])
        spent += EPOCHS.cost(epochs)
    return _regret(name, optimizer.recommend().config)


def run_optuna(name: str, seed: int) -> float:
    """Regret of Optuna's TPE with its Hyperband pruner."""
    task, measure = PROBLEMS[name]
    space = TASKS[task].space
    study = optuna.create_study(
        study_name=f"{name}-{seed}",  # its pruner deals trials to brackets by the name
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.HyperbandPruner(1, TOP, 3),
    )
    spent, best = 0, (math.inf, {})
    while spent < FULL_TRIALS * TOP:
        trial = study.ask()
        config = {n: trial.suggest_float(n, p.low, p.high) for n, p in space.items()}  # type: ignore[attr-defined]
        rng = random_stream(seed + 1000, trial.number)
        for epochs in range(1, TOP + 1):
            if epochs in (1, 3, 9, 27, TOP):
                loss = measure(config, epochs, rng)
                trial.report(loss, epochs)
                if epochs < TOP and trial.should_prune():
                    break
        spent += epochs
        if epochs == TOP:
            study.tell(trial, loss)
            best = min(best, (loss, config), key=lambda pair: pair[0])
        else:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return _regret(name, best[1])


def main() -> int:
    """Measure, print and save; a check that a ladder is worth its trouble on two tasks of three."""
    args = arguments(__doc__, "search_multi_fidelity")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    seeds = 4 if args.quick else SEEDS
    regrets: dict[str, dict[str, list[float]]] = {}
    for name in PROBLEMS:
        found: dict[str, list[float]] = {method: [] for method in (*METHODS, "optuna")}
        for seed in range(seeds):
            for method, kind in METHODS.items():
                found[method].append(run_ours(name, kind, seed))
            found["optuna"].append(run_optuna(name, seed))
        regrets[name] = found
        means = {method: mean_of(values) for method, values in found.items()}
        print(f"{name:8}", "  ".join(f"{m} {v:.4g}" for m, v in means.items()), flush=True)

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        series = {m: [mean_of(regrets[n][m]) for n in PROBLEMS] for m in ("bohb", "tpe", "asha")}
        label = f"regret after the cost of {FULL_TRIALS} trials"
        draw_bars(axes, y_label=label, groups=list(PROBLEMS), series=series)
        axes.set_yscale("log")
        axes.set_title("cheap measurements first (bohb, asha) and full ones (tpe)")

    config = {"top": TOP, "full_trials": FULL_TRIALS, "seeds": seeds, "floor": FLOOR}
    save(args, {"regrets": regrets}, config=config, plot=plot)
    gains = [mean_of(found["bohb"]) < mean_of(found["random"]) for found in regrets.values()]
    return 0 if sum(gains) >= 2 else 1


if __name__ == "__main__":
    sys.exit(main())
