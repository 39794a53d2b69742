"""B-Coder: do the values of programs tell right ones from wrong ones where there is no test?

The task: two examples of a change of digits are shown, a program that makes it is asked for
(``sharpen.align.domains``: leave out the last digit, reverse, double). A model of two layers first
learns programs of which three in five make a common mistake (leave out the first digit, sort, add
1): this is the start. Of each training prompt the start draws candidates, which together with the
solution are run: reward 1 for right, -0.3 for wrong, -0.6 for failing, -1 for no program.
``bcoder`` learns from these rows, once with its conservative operator and once with the optimal
one.

Then the start draws candidates of held-out prompts, the same for all ways to choose one:

- Spearman's correlation of the score and the true reward over all candidates, beside the greatest
  that is possible with so many equal rewards;
- accuracy of the chosen candidate: at random (the share of right ones), by the log-probability that
  the start or the trained policy gives to the whole candidate, by B-Coder's score; and the share of
  prompts with a right candidate, which no choice exceeds.

    python -m benchmarks.align.bench_bcoder [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.align.bench_learning import align, tasks
from benchmarks.common import OURS, PEER, arguments, save
from scipy.stats import spearmanr

from sharpen.align.domains import ProgramReward, write_program_model
from sharpen.align.engines import PlainEngine
from sharpen.align.methods import Policy
from sharpen.align.ranking import rank_programs
from sharpen.align.rows import tokenize_rows
from sharpen.align.rows.batches import rank_batch
from sharpen.align.rows.parse import Row, parse_row
from sharpen.models import load_model, load_tokenizer
from sharpen.serve import SamplingParams

MISTAKES = {"r": "s", "l": "t", "d": "i"}
MISTAKEN, DRAWN, NEW = 0.6, 8, 8
ROWS = {"start": 2000, "learn": 1500, "held_out": 200}
START = {"method": "sft", "steps": 250, "batch": 64, "lr": 3e-3}
LEARN = {"method": "bcoder", "steps": 100, "batch": 64, "lr": 1e-3}
OPERATORS = ("conservative", "optimal")
WANTED = {"spearman": 0.6, "lift": 0.3}
WAYS = (
    "at random",
    "likeliest to the start",
    *(f"{what}, {operator}" for operator in OPERATORS for what in ("policy", "score")),
    "best there is",
)


def mistaken_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Programs of which so many make a common mistake."""
    draw = np.random.default_rng(seed)
    rows = tasks(count, kind="completion", seed=seed)
    return [
        {**row, "completion": MISTAKES[row["solution"]]} if draw.random() < MISTAKEN else row
        for row in rows
    ]


def drawn(model: Path, rows: Sequence[dict[str, Any]], seed: int) -> list[list[str]]:
    """Candidates of prompts by a model, without empty ones."""
    tokenizer = load_tokenizer(model)
    engine = PlainEngine(tokenizer, max_batch=800)
    engine.update_weights(load_model(model), 0)
    prompts = [tokenizer.encode(row["prompt"]) for row in rows for _ in range(DRAWN)]
    seeds = range(seed * 1_000_000, seed * 1_000_000 + len(prompts))
    params = [SamplingParams(max_tokens=NEW, seed=one) for one in seeds]
    made = [one.text.strip() for one in engine.generate(prompts, params)]
    return [[text for text in made[at : at + DRAWN] if text] for at in range(0, len(made), DRAWN)]


def ranked(row: dict[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """A row of candidates and what they earn."""
    rewards = ProgramReward()([""] * len(texts), texts, [row] * len(texts))
    return {"query": row["prompt"], "responses": list(texts), "scores": rewards}


def learning_rows(start: Path, count: int, seed: int) -> list[dict[str, Any]]:
    """Of each prompt the solution and the different candidates of the start."""
    rows = tasks(count, kind="prompt", seed=seed + 100)
    lists = [
        list(dict.fromkeys([row["solution"], *texts]))
        for row, texts in zip(rows, drawn(start, rows, 2 * seed), strict=True)
    ]
    return [ranked(row, texts) for row, texts in zip(rows, lists, strict=True) if len(texts) > 1]


def held_out_rows(start: Path, count: int, seed: int) -> list[Row]:
    """Candidates of prompts that no training saw."""
    rows = tasks(count, kind="prompt", split="test", seed=seed)
    lists = drawn(start, rows, 2 * seed + 1)
    return [
        parse_row(ranked(row, texts), f"prompt {i}")
        for i, (row, texts) in enumerate(zip(rows, lists, strict=True))
        if len(texts) > 1
    ]


@torch.no_grad()
def likelihoods(model: Path, rows: Sequence[Row]) -> list[list[float]]:
    """Log-probability of each whole candidate."""
    policy = Policy(load_model(model))
    tokens = tokenize_rows(rows, load_tokenizer(model)).rows
    return [policy.logp(rank_batch([row])).sum(1).tolist() for row in tokens]


def accuracy(rows: Sequence[Row], scores: Sequence[Sequence[float]]) -> float:
    """Share of rows whose candidate of the highest score is right."""
    right = [
        row.scores[max(range(len(own)), key=own.__getitem__)] == 1
        for row, own in zip(rows, scores, strict=True)
    ]
    return sum(right) / len(rows)


def correlation(rows: Sequence[Row], scores: Sequence[Sequence[float]]) -> float:
    """Spearman's, over the candidates of all rows."""
    found = [score for own in scores for score in own]
    return float(spearmanr(found, [reward for row in rows for reward in row.scores]).statistic)


def one_seed(seed: int, folder: Path, quick: bool) -> dict[str, Any]:
    """Accuracies by way and correlations of one start."""
    count = {name: number // 5 if quick else number for name, number in ROWS.items()}
    model = write_program_model(folder / "model", seed=seed)
    settings = {**START, "steps": 20} if quick else START
    rows = mistaken_rows(count["start"], seed)
    start, _ = align(model, rows, seed, folder / "start", **settings)
    rows, held = (
        learning_rows(start, count["learn"], seed),
        held_out_rows(start, count["held_out"], seed),
    )
    before = likelihoods(start, held)
    found = {
        "at random": sum(row.scores.count(1) / len(row.scores) for row in held) / len(held),
        "likeliest to the start": accuracy(held, before),
        "best there is": sum(1 in row.scores for row in held) / len(held),
    }
    draw = np.random.default_rng(seed)  # tells apart what rewards do not
    ideal = [[reward + 1e-6 * draw.random() for reward in row.scores] for row in held]
    told = {
        "likeliest to the start": correlation(held, before),
        "best there is": correlation(held, ideal),
    }
    for operator in OPERATORS:
        own = {**LEARN, "options": {"operator": operator}, **({"steps": 3} if quick else {})}
        made, _ = align(start, rows, seed, folder / operator, **own)
        policy, scores = likelihoods(made, held), rank_programs(made, held, start=start)
        for name, values in (("policy", policy), ("score", scores)):
            found[f"{name}, {operator}"] = accuracy(held, values)
            told[f"{name}, {operator}"] = correlation(held, values)
    return {
        "accuracy": found,
        "spearman": told,
        "lift": found["score, conservative"] / found["at random"] - 1,
        "candidates": sum(len(row.scores) for row in held),
    }


def main() -> int:
    args = arguments(__doc__, "align_bcoder")
    torch.set_num_threads(1)
    seeds = range(1 if args.quick else 3)
    runs = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as temporary:
            runs.append(one_seed(seed, Path(temporary), args.quick))
        print(seed, runs[-1], flush=True)
    summary = {
        key: {
            way: statistics.median(run[key][way] for run in runs)
            for way in WAYS
            if way in runs[0][key]
        }
        for key in ("accuracy", "spearman")
    }
    reached = {
        "spearman": all(
            run["spearman"]["score, conservative"] >= WANTED["spearman"] for run in runs
        ),
        "lift": all(run["lift"] >= WANTED["lift"] for run in runs),
    }

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        for place, way in enumerate(WAYS):
            colour = OURS if way.startswith("score") else PEER
            values = [run["accuracy"][way] for run in runs]
            axes.barh(place, statistics.median(values), color=colour)
            axes.plot(values, [place] * len(values), "k.", markersize=3)
        axes.set_yticks(range(len(WAYS)), WAYS)
        axes.invert_yaxis()
        axes.set_xlabel("share of held-out prompts whose chosen program is right")
        least = 1 + min(run["lift"] for run in runs)
        axes.set_title(f"B-Coder's score: right at least {least:.2f} x as often as at random")

    config = {
        "mistakes": MISTAKES,
        "mistaken": MISTAKEN,
        "drawn": DRAWN,
        "rows": ROWS,
        "start": START,
        "learn": LEARN,
        "seeds": list(seeds),
        "wanted": WANTED,
    }
    results = {"runs": runs, "summary": summary, "reached": reached}
    save(args, results, config=config, plot=plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
