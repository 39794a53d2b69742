"""One optimizer step after another on an oracle: in TextGrad's names, and in Trace's.

Each takes the module, so that the same source runs the peer and ours.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.text.oracle_tasks import FIRST, Watched, climb

from sharpen.text.prompts.task import Example

__all__ = ["textgrad_loop", "trace_loop"]

_TAGS = ("<IMPROVED_VARIABLE>", "</IMPROVED_VARIABLE>")
_NAMED = re.compile(r"\(str\) (\w+) ?= ?Answer yes")


def textgrad_loop(tg: Any, task: str, seed: int, budget: int) -> dict[str, Any]:
    """TextGrad with validation revert: sum of the losses of a minibatch, one step."""
    oracle = Watched(task, seed)

    class Engine(tg.EngineLM):  # type: ignore[misc, name-defined]
        model_string = "oracle"

        def generate(self, prompt: str, system_prompt: str | None = None, **_: Any) -> str:
            told = system_prompt or ""
            if "improves text (i.e., variable)" in told or "You improve one value" in told:
                return f"{_TAGS[0]}{oracle.proposal(prompt)}{_TAGS[1]}"
            if "gradient (feedback) engine" in told or "write feedback for one of" in told:
                return "It should be more often right."
            return oracle.answer(f"{told}\n\n{prompt}")

        def __call__(self, *given: Any, **named: Any) -> str:
            return self.generate(*given, **named)

    begin = time.process_time()
    engine = Engine()
    system = tg.Variable(FIRST, role_description="the instruction")
    model = tg.BlackboxLLM(engine, system)
    same = tg.StringBasedFunction(
        lambda guess, right: int(guess.value == right.value), "whether the answer is right"
    )
    optimizer = tg.TGD(parameters=[system], engine=engine)

    def fixed(text: str, role: str) -> Any:
        return tg.Variable(text, requires_grad=False, role_description=role)

    def step(batch: Sequence[Example]) -> str:
        optimizer.zero_grad()
        losses = []
        for example in batch:
            guess = model(fixed(example.input["input"], "a case"))
            losses.append(same({"guess": guess, "right": fixed(example.output, "the answer")}))
        tg.sum(losses).backward(engine)
        optimizer.step()
        return str(system.value)

    kept = climb(oracle, budget, step, system.set_value)
    return oracle.outcome(kept, (), time.process_time() - begin)


def trace_loop(trace: Any, task: str, seed: int, budget: int) -> dict[str, Any]:
    """OptoPrime with validation revert: a minibatch as one output, one step.

    Args:
        trace: ``node``, ``bundle``, ``OptoPrime``; ``value`` and ``reset`` read and set a node; and
            ``llm`` makes the optimizer's model of a function of the whole prompt.
        task: name of the task.
        seed: of the oracle.
        budget: full evaluations.
    """
    oracle = Watched(task, seed)

    def suggest(prompt: str) -> str:
        name = _NAMED.findall(prompt)[-1]
        return json.dumps({"reasoning": "", "suggestion": {name: oracle.proposal(prompt)}})

    begin = time.process_time()
    instruction = trace.node(FIRST, name="instruction", trainable=True)

    @trace.bundle()
    def answer(instruction: str, cases: Any) -> list[str]:
        """Answers each case by the instruction."""
        return [oracle.answer(f"{instruction}\n\n{case}") for case in cases]

    value, reset = trace.value, trace.reset
    optimizer = trace.OptoPrime([instruction], llm=trace.llm(suggest))

    def step(batch: Sequence[Example]) -> str:
        out = answer(instruction, [example.input["input"] for example in batch])
        right = [a == example.output for a, example in zip(value(out), batch, strict=True)]
        optimizer.zero_feedback()
        optimizer.backward(out, f"{sum(right)} of {len(right)} are right.")
        optimizer.step()
        return value(instruction)

    kept = climb(oracle, budget, step, lambda text: reset(instruction, text))
    return oracle.outcome(kept, (), time.process_time() - begin)
