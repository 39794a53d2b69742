"""How long training waits for rewards of which one in twenty hangs until its deadline.

python -m benchmarks.align.bench_rewards [--quick]

A loop as that of training one step behind: ask for the rewards of a batch, take those of the batch
before, train on that (here: wait two seconds, as long as a device would work). One reward in twenty
never ends and is killed at its deadline. Waiting is the share of the loop's time that was spent on
taking rewards. Training has to wait where the workers cannot carry the hanging calls,
``rate * batch * (deadline + start of a worker) / workers > step``, or where the deadline is longer
than a step; both are shown. Beside it the same pool asked for rewards only when they are needed,
which is how a reward that is an ordinary function call behaves, at its best: with a deadline and
side by side.

Checked: every reward that hangs has the reason ``deadline``; the others are there and right. On a
machine that others keep busy one may be late all the same; these are counted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from benchmarks.common import OURS, PEER, arguments, save, summarize

from sharpen.align.rewards import Pending, RewardPool, Rewards

HANGS = 0.05
BATCH = 32
STEP_S = 2.0
WORK_S = 0.01
CASES = ((2, 1.0), (4, 1.0), (8, 1.0), (8, 3.0))
"""Workers and seconds of the deadline."""


def lengths(
    prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Mapping[str, Any]]
) -> list[float | None]:
    """The length of each completion, after some work; ``hang`` never ends."""
    for text in completions:
        until = time.perf_counter() + (1e9 if text == "hang" else WORK_S)
        while time.perf_counter() < until:
            time.sleep(0.001)
    return [float(len(text)) for text in completions]


def batches(steps: int, seed: int) -> list[list[str]]:
    """Completions, of which the same share hangs in every run."""
    random = np.random.default_rng(seed)
    hangs = random.random((steps, BATCH)) < HANGS
    return [["hang" if one else "x" * (1 + i) for i, one in enumerate(row)] for row in hangs]


def check(words: Sequence[str], found: Rewards) -> int:
    """Samples that were late without hanging; all others have what they should have."""
    late = 0
    for word, value, reason in zip(words, found.values, found.reasons, strict=True):
        is_late = reason == "deadline"
        late += is_late and word != "hang"
        assert (value is None) == is_late, (word, value, reason)
        assert value in (None, len(word)), (word, value, reason)
        assert is_late or word != "hang", (word, value, reason)
    return late


def loop(
    pool: RewardPool, words: Sequence[Sequence[str]], step_s: float, ahead: bool
) -> tuple[float, int]:
    """The share of the time of a loop that it waited, and how many samples were late needlessly.

    The last rewards are taken outside of it.
    """
    waited = pool.stats.waited_s
    late = 0
    begin = time.perf_counter()
    pending: tuple[Sequence[str], Pending] | None = None
    for some in words:
        before = pending
        if ahead:
            pending = (some, pool.submit([""] * len(some), some))
        else:
            late += check(some, pool.score([""] * len(some), some))
        if before is not None:
            late += check(before[0], before[1].result())
        time.sleep(step_s)
    share = (pool.stats.waited_s - waited) / (time.perf_counter() - begin)
    if pending is not None:
        late += check(pending[0], pending[1].result())
    return share, late


def main() -> None:
    """Measure."""
    args = arguments(__doc__, "align_rewards")
    steps, repeats = (4, 1) if args.quick else (16, 3)
    contenders = {
        f"{workers} workers, {deadline_s:g} s, {'a step ahead' if ahead else 'when needed'}": (
            workers,
            deadline_s,
            ahead,
        )
        for workers, deadline_s in (((4, 1.0),) if args.quick else CASES)
        for ahead in (True, False)
    }
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    late = dict.fromkeys(contenders, 0)
    for repeat in range(repeats):
        words = batches(steps, repeat)
        for name, (workers, deadline_s, ahead) in contenders.items():
            with RewardPool(lengths, workers=workers, deadline_s=deadline_s) as pool:
                warm = ["warm"] * workers * 2
                check(warm, pool.score([""] * len(warm), warm))
                share, count = loop(pool, words, STEP_S, ahead)
                samples[name].append(share)
                late[name] += count
                print(f"{name}: waited {samples[name][-1]:.2%}", flush=True)
    results = {
        "waited": samples,
        "summary": {name: summarize(values) for name, values in samples.items()},
        "late": late,
        "hanging": sum(word == "hang" for row in batches(steps, 0) for word in row),
    }

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        medians = [100 * summarize(values)["median"] for values in samples.values()]
        for i, (name, (_, _, ahead)) in enumerate(contenders.items()):
            axes.barh(name, medians[i], color=OURS if ahead else PEER, hatch="" if ahead else "//")
        axes.invert_yaxis()
        axes.axvline(2, color="black", linestyle=":")
        axes.set_xlabel("share of the time that training waited, %")
        axes.set_title(f"{HANGS:.0%} of the rewards hang until their deadline")

    config = {
        "hangs": HANGS,
        "batch": BATCH,
        "work_s": WORK_S,
        "steps": steps,
        "step_s": STEP_S,
        "repeats": repeats,
    }
    save(args, results, config=config, plot=plot)


if __name__ == "__main__":
    main()
