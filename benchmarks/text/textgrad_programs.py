"""Programs in TextGrad's names, run by textgrad and by us: one source, two imports.

``run(tg)`` takes the module ``textgrad``, or ``sharpen.text.compat.textgrad``, and gives for each
program the kinds of calls in order and the values that were set. A script stands for the model. Its
criticism names what it criticizes, where it was used and what it was told, and a rewritten value
names all criticism that the rewriter was shown, so that equal values mean that the same words
arrived. ``notes`` holds what is not compared: whether earlier criticism was shown, and how often
criticism was asked for by feedback that is empty. Runs in an interpreter that has textgrad and
nothing of ours, and imports neither.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["PROGRAMS", "run"]

_ROLE = re.compile(
    r"<ROLE> ?(.+?) ?</ROLE>|input '[^']*', which is ([^:]+):|The value '[^']*'\. It is ([^.]+)\."
)
_SAID = re.compile(r"\bsaid\[[^\[\]]*\]")
_QUESTION = re.compile(r"\bq\d\b")
_PAST = ("FEEDBACK-1", "Feedback of earlier steps")
_EMPTY = re.compile(
    r"following feedback on the LM_OUTPUT: \s*</|Feedback on the output:\s*\n\nGoal"
)


def script(tg: Any) -> Any:
    """An engine of ``tg`` that follows the script and notes what it was asked."""

    class Script(tg.EngineLM):  # type: ignore[misc, name-defined]
        model_string = "scripted"

        def __init__(self) -> None:
            self.calls: list[str] = []
            self.notes = {"past_shown": 0, "empty_feedback": 0}

        def generate(self, prompt: str, system_prompt: str | None = None, **_: Any) -> str:
            told = system_prompt or ""
            role = next(one for one in _ROLE.findall(prompt) or [("", "", "")])
            of = next((part for part in role if part), "")
            said = sorted(set(_SAID.findall(prompt)))
            if "gradient (feedback) engine" in told or "write feedback for one of" in told:
                self.calls.append(f"criticize {of}")
                self.notes["empty_feedback"] += bool(_EMPTY.search(prompt))
                about = "+".join(one[5:-1].replace(" of ", "/") for one in said)
                where = ",".join(sorted(set(_QUESTION.findall(prompt))))
                return f"said[{of} {where} of {about or 'the judgement'}]"
            if "improves text (i.e., variable)" in told or "You improve one value" in told:
                self.calls.append(f"rewrite {of}")
                tags = ("<IMPROVED_VARIABLE>", "</IMPROVED_VARIABLE>")
                rules = "short" if "be short" in prompt else "free"
                self.notes["past_shown"] += any(mark in prompt for mark in _PAST)
                return f"{tags[0]}{of} | {'; '.join(said)} | {rules}{tags[1]}"
            self.calls.append("judge" if "Judge" in told else "answer")
            return f"{'verdict' if 'Judge' in told else 'reply'} on <{prompt[:20]}>"

        def __call__(self, *given: Any, **named: Any) -> str:
            return self.generate(*given, **named)

    return Script()


def single(tg: Any, engine: Any) -> list[Any]:
    """One loss on one text."""
    text = tg.Variable("a text", role_description="an essay")
    optimizer = tg.TGD(parameters=[text], engine=engine)
    loss = tg.TextLoss(tg.Variable("Judge.", requires_grad=False, role_description="rule"), engine)
    loss(text).backward(engine)
    optimizer.step()
    return [text]


def _answers(tg: Any, engine: Any, count: int) -> tuple[Any, list[Any]]:
    system = tg.Variable("Answer.", role_description="the system prompt")
    model = tg.BlackboxLLM(engine, system_prompt=system)
    loss = tg.TextLoss("Judge.", engine)
    losses = []
    for k in range(count):
        question = tg.Variable(f"q{k}", requires_grad=False, role_description="a question")
        losses.append(loss(model(question)))
    return system, losses


def summed(tg: Any, engine: Any) -> list[Any]:
    """The sum of three losses under one system prompt."""
    system, losses = _answers(tg, engine, 3)
    optimizer = tg.TGD(parameters=[system], engine=engine)
    tg.sum(losses).backward(engine)
    optimizer.step()
    return [system]


def chain(tg: Any, engine: Any) -> list[Any]:
    """Two models, each with a system prompt, one after the other."""
    first = tg.Variable("Draft.", role_description="the prompt of the drafter")
    second = tg.Variable("Polish.", role_description="the prompt of the editor")
    question = tg.Variable("q", requires_grad=False, role_description="a question")
    out = tg.BlackboxLLM(engine, second)(tg.BlackboxLLM(engine, first)(question))
    optimizer = tg.TGD(parameters=[first, second], engine=engine)
    tg.TextLoss("Judge.", engine)(out).backward(engine)
    optimizer.step()
    return [first, second]


def shared(tg: Any, engine: Any) -> list[Any]:
    """One prompt used twice in one path."""
    system = tg.Variable("Improve.", role_description="the system prompt")
    model = tg.BlackboxLLM(engine, system)
    question = tg.Variable("q", requires_grad=False, role_description="a question")
    optimizer = tg.TGD(parameters=[system], engine=engine)
    tg.TextLoss("Judge.", engine)(model(model(question))).backward(engine)
    optimizer.step()
    return [system]


def constrained(tg: Any, engine: Any) -> list[Any]:
    """A solution that is itself what a model gave, under a constraint."""
    question = tg.Variable("q", requires_grad=False, role_description="a question")
    answer = tg.BlackboxLLM(engine)(question)
    answer.set_role_description("an answer")
    optimizer = tg.TGD(parameters=[answer], engine=engine, constraints=["be short"])
    tg.TextLoss("Judge.", engine)(answer).backward(engine)
    optimizer.step()
    return [answer]


def memory(tg: Any, engine: Any) -> list[Any]:
    """Three steps with the criticism of the last one shown."""
    text = tg.Variable("a text", role_description="an essay")
    optimizer = tg.TGD(parameters=[text], engine=engine, gradient_memory=1)
    loss = tg.TextLoss("Judge.", engine)
    for _ in range(3):
        optimizer.zero_grad()
        loss(text).backward(engine)
        optimizer.step()
    return [text]


PROGRAMS: dict[str, Callable[[Any, Any], list[Any]]] = {
    "single loss": single,
    "sum of three": summed,
    "two-layer chain": chain,
    "shared variable": shared,
    "constraint on an answer": constrained,
    "memory": memory,
}


def run(tg: Any) -> dict[str, Any]:
    """Calls in order and values that were set, by program."""
    found = {}
    for name, program in PROGRAMS.items():
        engine = script(tg)
        values = [one.value for one in program(tg, engine)]
        found[name] = {"calls": engine.calls, "values": values, "notes": engine.notes}
    return found


def batch(tg: Any, count: int, delay_s: float, each: Any = map) -> dict[str, float]:
    """Seconds and calls of one step on ``count`` examples, with a model that takes its time.

    Args:
        tg: the module.
        count: examples.
        delay_s: seconds of a call.
        each: runs the program on each example, as ``map`` does.
    """
    engine = script(tg)
    answer = engine.generate

    def slow(prompt: str, system_prompt: str | None = None, **_: Any) -> str:
        time.sleep(delay_s)
        return str(answer(prompt, system_prompt))

    engine.generate = slow
    system = tg.Variable("Answer.", role_description="the system prompt")
    model = tg.BlackboxLLM(engine, system_prompt=system)
    loss = tg.TextLoss("Judge.", engine)
    optimizer = tg.TGD(parameters=[system], engine=engine)
    questions = [
        tg.Variable(f"q{k}", requires_grad=False, role_description="a question")
        for k in range(count)
    ]
    begin = time.perf_counter()
    losses = list(each(lambda question: loss(model(question)), questions))
    tg.sum(losses).backward(engine)
    optimizer.step()
    return {"seconds": time.perf_counter() - begin, "calls": len(engine.calls)}


def main() -> None:
    """Answer one request of stdin."""
    with contextlib.redirect_stdout(sys.stderr):
        os.environ.setdefault("TEXTGRAD_LOG_DIR", "logs")
        import textgrad
    request = json.load(sys.stdin)
    answer: dict[str, Any] = {"version": textgrad.__version__, "programs": run(textgrad)}
    if "batch" in request:
        answer["batch"] = batch(textgrad, **request["batch"])
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
