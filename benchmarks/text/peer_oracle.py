"""gepa, dspy, textgrad and trace-opt on oracles; runs in an interpreter that has them.

Reads ``{"method": ..., "task": ..., "budget": ..., "seeds": [...]}`` on stdin and writes what each
run came to. The interpreter needs this repository on its path, for the oracle alone. Every peer
gets the same examples, answers and proposals, through the interface that it has for models.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import re
import sys
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from types import SimpleNamespace
from typing import Any

from benchmarks.text.oracle_loops import textgrad_loop, trace_loop
from benchmarks.text.oracle_tasks import COUNT, FIRST, Watched, examples_of

METHODS: dict[str, tuple[str, Callable[[str, int, int], dict[str, Any]]]] = {}
"""By name the package, and what runs it on a task with a seed and a budget."""

_CASE = re.compile(r"\[case \d+ of kind \w\]")
_FIELD = re.compile(r"\[\[ ## (\w+) ## \]\]")
_DEMOS = 4


def run_gepa(task: str, seed: int, budget: int) -> dict[str, Any]:
    """Gepa with its adapter protocol."""
    import gepa
    from gepa.core.adapter import EvaluationBatch

    oracle = Watched(task, seed)
    train, val = examples_of(oracle)

    class Adapter:
        propose_new_texts = None

        def evaluate(self, batch: Any, candidate: Any, capture_traces: bool = False) -> Any:
            told = candidate["instruction"]
            replies = [oracle.answer(f"{told}\n\n{one.input['input']}") for one in batch]
            pairs = zip(replies, batch, strict=True)
            scores = [float(reply == one.output) for reply, one in pairs]
            traces = list(zip(batch, replies, scores, strict=True)) if capture_traces else None
            return EvaluationBatch(outputs=replies, scores=scores, trajectories=traces)

        def make_reflective_dataset(self, candidate: Any, batch: Any, components: Any) -> Any:
            rows = [
                {
                    "Inputs": one.input["input"],
                    "Generated Outputs": reply,
                    "Feedback": f"score {score}, right is {one.output}",
                }
                for one, reply, score in batch.trajectories
            ]
            return dict.fromkeys(components, rows)

    def reflect(prompt: Any) -> str:
        text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        return f"```\n{oracle.proposal(text)}\n```"

    begin = time.process_time()
    result = gepa.optimize(
        seed_candidate={"instruction": FIRST},
        trainset=train,
        valset=val,
        adapter=Adapter(),
        reflection_lm=reflect,
        max_metric_calls=budget * COUNT,
        seed=seed,
        display_progress_bar=False,
        logger=SimpleNamespace(log=lambda *_, **__: None),
        raise_on_exception=True,
    )
    spent = time.process_time() - begin
    return oracle.outcome(result.best_candidate["instruction"], (), spent)


def _dspy(task: str, seed: int) -> tuple[Any, Watched, Any, list[Any], list[Any]]:
    """The module, an oracle behind its interface for models, a program, and examples."""
    import dspy

    oracle = Watched(task, seed)

    class Model(dspy.BaseLM):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(model="oracle")
            self.known: dict[str, str] = {}

        def forward(self, prompt: Any = None, messages: Any = None, **_: Any) -> Any:
            texts = [str(one["content"]) for one in messages]
            wanted = _FIELD.findall(texts[-1])
            if wanted and wanted[-1] == "completed":
                wanted = wanted[:-1]
            if "proposed_instruction" in "\n".join(texts):
                text = oracle.proposal("\n".join(texts[1:]))
                reply = {"proposed_instruction": text}
            elif "[[ ## output ## ]]" in texts[0]:
                reply = {"output": self.answer(texts)}
            else:
                fields = _FIELD.findall(texts[0])
                reply = {name: "Cases with an answer yes or no" for name in fields if name}
            whole = "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name, text in reply.items())
            whole += "\n\n[[ ## completed ## ]]"
            message = SimpleNamespace(content=whole, tool_calls=None, reasoning_content=None)
            choice = SimpleNamespace(message=message, finish_reason="stop", index=0)
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            return SimpleNamespace(choices=[choice], usage=usage, model="oracle")

        def answer(self, texts: list[str]) -> str:
            """The answer, asked for once for each prompt, as dspy's own cache would do."""
            pairs = zip(texts[1:-1:2], texts[2:-1:2], strict=True)
            shown = []
            for asked, replied in pairs:
                label = re.search(r"\b(yes|no)\b", replied)
                shown.append(f"{_CASE.findall(asked)[-1]} -> {label[1] if label else '?'}")
            told = oracle.instruction_of(texts[0])
            prompt = "\n\n".join([told, *shown, _CASE.findall(texts[-1])[-1]])
            if prompt not in self.known:
                self.known[prompt] = oracle.answer(prompt)
            return self.known[prompt]

    model = Model()
    dspy.configure(lm=model)
    program = dspy.Predict(dspy.Signature("input -> output", FIRST))
    made = [
        [dspy.Example(input=e.input["input"], output=e.output).with_inputs("input") for e in part]
        for part in examples_of(oracle)
    ]
    return dspy, oracle, program, made[0], made[1]


def _metric(example: Any, predicted: Any, trace: Any = None) -> bool:
    return bool(predicted.output == example.output)


def _told(oracle: Watched, program: Any, begin: float) -> dict[str, Any]:
    predictor = program.predictors()[0]
    kinds = [demo["input"][-2] for demo in predictor.demos]
    instruction = oracle.instruction_of(predictor.signature.instructions)
    return oracle.outcome(instruction, [kinds], time.process_time() - begin)


def _fitting(run: Callable[[int], dict[str, Any]], most: int, budget: int) -> dict[str, Any]:
    """The run with the most candidates whose calls are within the budget; dspy has no limit."""
    for count in range(most, 0, -1):
        found = run(count)
        if found["calls"] <= budget * COUNT or count == 1:
            return found
    raise AssertionError


def run_mipro(task: str, seed: int, budget: int, demos: int = _DEMOS) -> dict[str, Any]:
    """Dspy's MIPROv2 with as many trials as fit, each a full evaluation.

    Instructions are two for three trials, as in dspy's own settings.
    """

    def run(trials: int) -> dict[str, Any]:
        begin = time.process_time()
        dspy, oracle, program, train, val = _dspy(task, seed)
        optimizer = dspy.MIPROv2(
            metric=_metric,
            auto=None,
            num_candidates=max(3, round(budget / 1.5)),
            max_bootstrapped_demos=demos,
            max_labeled_demos=demos,
            num_threads=1,
            seed=seed,
        )
        given = {"num_trials": trials, "minibatch": False, "seed": seed}
        found = optimizer.compile(program, trainset=train, valset=val, **given)
        return _told(oracle, found, begin)

    return _fitting(run, budget, budget)


def run_bootstrap(task: str, seed: int, budget: int) -> dict[str, Any]:
    """Dspy's BootstrapFewShotWithRandomSearch with as many candidates as fit."""

    def run(candidates: int) -> dict[str, Any]:
        begin = time.process_time()
        dspy, oracle, program, train, val = _dspy(task, seed)
        random.Random(seed).shuffle(train)  # its own candidates have fixed seeds
        optimizer = dspy.BootstrapFewShotWithRandomSearch(
            metric=_metric,
            max_bootstrapped_demos=_DEMOS,
            max_labeled_demos=_DEMOS,
            num_candidate_programs=candidates,
            num_threads=1,
        )
        return _told(oracle, optimizer.compile(program, trainset=train, valset=val), begin)

    return _fitting(run, budget - 3, budget)


def run_textgrad(task: str, seed: int, budget: int) -> dict[str, Any]:
    """textgrad, with validation revert."""
    import textgrad
    from textgrad.autograd import StringBasedFunction

    names = {**vars(textgrad), "StringBasedFunction": StringBasedFunction}
    return textgrad_loop(SimpleNamespace(**names), task, seed, budget)


def run_trace(task: str, seed: int, budget: int) -> dict[str, Any]:
    """trace-opt's OptoPrime, with validation revert."""
    from opto import optimizers, trace

    def model(suggest: Callable[[str], str]) -> Any:
        def complete(messages: Any, **_: Any) -> Any:
            text = suggest("\n".join(one["content"] for one in messages))
            message = SimpleNamespace(content=text)
            return SimpleNamespace(choices=[SimpleNamespace(message=message)])

        return complete

    def reset(node: Any, text: str) -> None:
        node._data = text

    trace.GRAPH.clear()
    names = SimpleNamespace(
        node=trace.node,
        bundle=trace.bundle,
        OptoPrime=optimizers.OptoPrime,
        value=lambda node: node.data,
        reset=reset,
        llm=model,
    )
    return trace_loop(names, task, seed, budget)


METHODS |= {
    "gepa": ("gepa", run_gepa),
    "MIPROv2": ("dspy", run_mipro),
    "MIPROv2, instructions": ("dspy", lambda t, s, b: run_mipro(t, s, b, demos=0)),
    "BootstrapFewShotWithRandomSearch": ("dspy", run_bootstrap),
    "textgrad": ("textgrad", run_textgrad),
    "OptoPrime": ("trace-opt", run_trace),
}


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    package, method = METHODS[request["method"]]
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(sys.stderr):
        rows = [method(request["task"], seed, request["budget"]) for seed in request["seeds"]]
    json.dump({"version": metadata.version(package), "rows": rows}, sys.stdout)


if __name__ == "__main__":
    main()
