"""Ways of searching for a prompt, on a model whose best prompt is known, beside gepa.

    python -m benchmarks.text.bench_prompts [--seeds 30]

``sharpen.text.prompts.oracle.Oracle`` answers and proposes: a prompt's chance of a right answer is
known, and a third of the proposals change the prompt for the better. 30 validation and 30 training
examples, budgets of 8, 16 and 32 full evaluations. The result is how far the chance of the chosen
prompt is from that of the best one, over all seeds. gepa (``pip install gepa==0.1.4``) gets the
same examples, proposals and minibatches as ours, and the same number of metric calls.

The first table searches for instructions alone; the second for instructions and exemplars.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.common import OURS, PEER, RESULTS, save

from sharpen.core.lm.messages import ChatRequest
from sharpen.text.prompts.metrics import make_metric
from sharpen.text.prompts.optimize import optimize_prompt
from sharpen.text.prompts.oracle import Oracle
from sharpen.text.prompts.parsers import make_parser
from sharpen.text.prompts.task import PromptProgram

WEIGHTS = {
    "steps": 0.12,
    "short": 0.08,
    "expert": 0.06,
    "check": 0.05,
    "json": -0.1,
    "rhyme": -0.15,
    "verbose": -0.05,
    "polite": 0.0,
}
FIRST = "Answer yes or no. (rhyme)"
BUDGETS = (8, 16, 32)
INSTRUCTIONS = ("ape", "opro", "protegi", "promptagent", "mipro", "gepa")
BOTH = (
    *(("none", "none"), ("none", "random"), ("none", "nearest"), ("none", "all")),
    *(("none", "random_search"), ("none", "mutation"), ("gepa", "none"), ("gepa", "random")),
    *(("gepa", "all"), ("gepa", "random_search"), ("gepa", "mutation"), ("ape", "mutation")),
)
PROGRAM = PromptProgram(
    template="{{instruction}}\n\n{{exemplars}}\n\n{{input}}",
    exemplar="{{input}} -> {{output}}",
    parser=make_parser("label", ["yes", "no"]),
)
COUNT = 30


def ours(seed: int, io: str, eo: str, budget: int) -> dict[str, float]:
    oracle = Oracle(WEIGHTS, seed=seed)
    examples = oracle.examples(2 * COUNT)
    begin = time.process_time()
    result = optimize_prompt(
        PROGRAM,
        FIRST,
        examples[COUNT:],
        make_metric("exact"),
        lm=oracle,
        train=examples[:COUNT],
        io=io,
        eo=eo,
        budget=budget,
        seed=seed,
        concurrency=1,
    )
    kinds = [one.input["input"][-2] for one in result.candidate.exemplars]
    return {
        "chance": oracle.chance(result.candidate.instruction, kinds),
        "calls": result.judgements,
        "cpu_s": time.process_time() - begin,
    }


def peer(seed: int, budget: int) -> dict[str, float]:
    import gepa
    from gepa.core.adapter import EvaluationBatch

    oracle = Oracle(WEIGHTS, seed=seed)
    examples = oracle.examples(2 * COUNT)
    calls = {"metric": 0, "reflect": 0}

    class Adapter:
        propose_new_texts = None

        def evaluate(self, batch: Any, candidate: Any, capture_traces: bool = False) -> Any:
            replies = []
            for example in batch:
                prompt = f"{candidate['instruction']}\n\n{example.input['input']}"
                replies.append(oracle.complete(ChatRequest(prompt)).text)  # type: ignore[arg-type]
            calls["metric"] += len(replies)
            scores = [
                float(reply == example.output)
                for reply, example in zip(replies, batch, strict=True)
            ]
            traces = list(zip(batch, replies, scores, strict=True)) if capture_traces else None
            return EvaluationBatch(outputs=replies, scores=scores, trajectories=traces)

        def make_reflective_dataset(self, candidate: Any, batch: Any, components: Any) -> Any:
            rows = [
                {
                    "Inputs": example.input["input"],
                    "Generated Outputs": reply,
                    "Feedback": f"score {score}, right is {example.output}",
                }
                for example, reply, score in batch.trajectories
            ]
            return dict.fromkeys(components, rows)

    def reflect(prompt: Any) -> str:
        calls["reflect"] += 1
        text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        request = ChatRequest(  # type: ignore[arg-type]
            f"{text}\n<PROMPT>", temperature=1.0, repeat=calls["reflect"]
        )
        reply = oracle.complete(request).text
        return "```\n" + reply.replace("<PROMPT>", "").replace("</PROMPT>", "") + "\n```"

    begin = time.process_time()
    result = gepa.optimize(
        seed_candidate={"instruction": FIRST},
        trainset=examples[:COUNT],
        valset=examples[COUNT:],
        adapter=Adapter(),
        reflection_lm=reflect,
        max_metric_calls=budget * COUNT,
        seed=seed,
        display_progress_bar=False,
        logger=type("Quiet", (), {"log": staticmethod(lambda *a, **k: None)})(),
        raise_on_exception=True,
    )
    return {
        "chance": oracle.chance(result.best_candidate["instruction"]),
        "calls": calls["metric"],
        "cpu_s": time.process_time() - begin,
    }


def summed(rows: list[dict[str, float]], best: float, allowed: int) -> dict[str, float]:
    regrets = [best - row["chance"] for row in rows]
    error = statistics.stdev(regrets) / len(regrets) ** 0.5 if len(regrets) > 1 else 0.0
    return {
        "regret": statistics.mean(regrets),
        "standard_error": error,
        "calls_max": max(row["calls"] for row in rows),
        "calls_allowed": allowed,
        "over_budget": sum(row["calls"] > allowed for row in rows),
        "cpu_s": statistics.mean(row["cpu_s"] for row in rows),
        "seeds": len(rows),
    }


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, default=30)
    options.add_argument("--json", type=Path, default=None)
    options.add_argument("--plot", type=Path, default=None)
    options.add_argument("--quick", action="store_true")
    args = options.parse_args()
    args.name = "text_prompts"
    if not args.quick:
        args.json = args.json or RESULTS / "text_prompts.json"
        args.plot = args.plot or RESULTS / "text_prompts.png"
    warnings.simplefilter("ignore")
    seeds = range(2 if args.quick else args.seeds)
    budgets = BUDGETS[:1] if args.quick else BUDGETS
    has_gepa = find_spec("gepa") is not None
    plain = Oracle(WEIGHTS, exemplar_weight=0.0).best_chance
    shown = Oracle(WEIGHTS).best_chance
    instructions: dict[str, Any] = {}
    for budget in budgets:
        allowed = budget * COUNT
        row = {
            io: summed([ours(s, io, "none", budget) for s in seeds], plain, allowed)
            for io in INSTRUCTIONS
        }
        if has_gepa:
            row["gepa 0.1.4"] = summed([peer(s, budget) for s in seeds], plain, allowed)
        instructions[str(budget)] = row
    budget = budgets[-1]
    both = {
        f"{io} + {eo}": summed([ours(s, io, eo, budget) for s in seeds], shown, budget * COUNT)
        for io, eo in BOTH
    }
    results = {
        "instructions": instructions,
        "both": both,
        "best": {"instruction": plain, "both": shown},
        "first": Oracle(WEIGHTS).chance(FIRST),
        "versions": {"gepa": metadata.version("gepa")} if has_gepa else {},
    }

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        for name in next(iter(instructions.values())):
            y = [instructions[str(b)][name]["regret"] for b in budgets]
            colour = {"gepa": OURS, "gepa 0.1.4": PEER}.get(name, "#999999")
            axes.plot(budgets, y, "o-", color=colour, label=name)
        axes.set(xlabel="full evaluations", ylabel="chance behind the best prompt")
        axes.legend(frameon=False, fontsize=8)

    save(args, results, config={"seeds": len(seeds), "weights": WEIGHTS}, plot=plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
