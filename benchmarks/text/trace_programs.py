"""Programs in Trace's names, run by trace-opt and by us: one source, two imports.

``run(trace)`` takes a namespace with ``node``, ``bundle``, ``model``, ``ExecutionError``,
``OptoPrime`` and ``llm``, which makes the optimizer's model of a function of its messages. A script
stands for the model: it changes every variable that it is shown by a fixed rule. Of each program
come the calls of the model, what stood in each section of the prompt (values, with names without
the numbers that trace-opt adds), and the values that were set. Imports neither package.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

__all__ = ["PROGRAMS", "run"]

_LINE = re.compile(r"^\((\w+)\) (\w+?)\s*[=:]\s*(.*)$")
_SECTION = re.compile(r"^#(Variables|Inputs|Others|Outputs|Feedback)\s*$")


def sections_of(prompt: str) -> dict[str, list[list[str]]]:
    """Type, name and first line of each value, by section of the problem in a prompt."""
    found: dict[str, list[list[str]]] = {}
    here = ""
    for line in prompt.splitlines():
        title = _SECTION.match(line)
        if title:
            here = title[1]
            found[here] = []
        elif line.startswith(("#", "Your re")):
            here = ""
        elif here and here != "Feedback":
            value = _LINE.match(line)
            if value:
                name = re.sub(r"_?\d+$", "", value[2]).removeprefix("__")
                found[here].append([value[1], name, value[3]])
    return {name: sorted(rows) for name, rows in found.items() if name != "Feedback"}


class Script:
    """Changes every variable that it is shown: a number by one, a text by a mark."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def __call__(self, messages: list[str]) -> str:
        self.prompts.append(messages[-1])
        lines = messages[-1].splitlines()
        suggestion: dict[str, Any] = {}
        for number, line in enumerate(lines):
            value = _LINE.match(line)
            if value is None or "#Variables" not in lines[:number]:
                continue
            if "#Constraints" in lines[:number]:
                break
            kind, name, text = value.groups()
            if kind == "code":
                whole = [text] if text else []
                for more in lines[number + 1 :]:
                    if more.startswith(("#", "(")):
                        break
                    whole.append(more)
                suggestion[name] = "\n".join(whole).strip().replace("+ 1", "+ 2")
            elif kind == "int":
                suggestion[name] = int(text) + 1
            else:
                suggestion[name] = f"{text}!"
        return json.dumps({"reasoning": "a rule", "answer": "", "suggestion": suggestion})


def number(trace: Any, optimizer: Callable[[list[Any]], Any]) -> list[Any]:
    """Operators on a number, two steps."""
    x = trace.node(3, name="x", trainable=True, constraint="x is small")
    made = optimizer([x])
    for _ in range(2):
        made.zero_feedback()
        out = x * 2 + 5
        made.backward(out, "Make it larger.")
        made.step()
    return [x.data]


def both(trace: Any, optimizer: Callable[[list[Any]], Any]) -> list[Any]:
    """A sum of two products, one of which is nobody's business."""
    x = trace.node(2, name="left", trainable=True)
    y = trace.node(5, name="right")
    out = (x * 2 + y * 3) + 1
    made = optimizer([x])
    made.backward(out, "Make it larger.")
    made.step()
    return [x.data, y.data]


def prompt(trace: Any, optimizer: Callable[[list[Any]], Any]) -> list[Any]:
    """An instruction in a function."""

    @trace.bundle("[ask] puts a question after an instruction")
    def ask(rule: str, question: str) -> str:
        return f"{rule} {question}"

    rule = trace.node("Answer", name="rule", trainable=True)
    made = optimizer([rule])
    out = ask(rule, trace.node("why", name="question"))
    made.backward(out, "Be kind.")
    made.step()
    return [rule.data]


def program(trace: Any, optimizer: Callable[[list[Any]], Any]) -> list[Any]:
    """A function whose source is a variable."""

    @trace.bundle(trainable=True)
    def grow(value: int) -> int:
        """Adds something."""
        return value + 1

    made = optimizer([grow.parameter])
    out = grow(trace.node(1, name="value"))
    made.backward(out, "Add more.")
    made.step()
    return [grow(1).data]


def agent(trace: Any, optimizer: Callable[[list[Any]], Any]) -> list[Any]:
    """A class with two variables, and one step for both."""

    @trace.model
    class Agent:
        def __init__(self) -> None:
            self.first = trace.node("plan", name="first", trainable=True)
            self.second = trace.node("act", name="second", trainable=True)

        @trace.bundle("[join] joins texts")
        def join(self, a: str, b: str) -> str:
            return f"{a} then {b}"

        def run(self) -> Any:
            return self.join(self.first, self.second)

    made_agent = Agent()
    made = optimizer(list(made_agent.parameters()))
    made.backward(made_agent.run(), "Do more.")
    made.step()
    return [made_agent.first.data, made_agent.second.data]


def failing(trace: Any, optimizer: Callable[[list[Any]], Any]) -> list[Any]:
    """An exception whose report is the feedback."""

    @trace.bundle("[share] divides")
    def share(total: int, by: int) -> float:
        return total / by

    by = trace.node(0, name="by", trainable=True)
    made = optimizer([by])
    try:
        out = share(trace.node(10, name="total"), by)
    except trace.ExecutionError as error:
        out = error.exception_node
    made.backward(out, str(out.data))
    made.step()
    return [by.data, share(10, by).data]


PROGRAMS: dict[str, Callable[[Any, Callable[[list[Any]], Any]], list[Any]]] = {
    "number": number,
    "blanket": both,
    "prompt": prompt,
    "trainable code": program,
    "agent": agent,
    "exception": failing,
}


def run(trace: Any) -> dict[str, Any]:
    """Calls, sections and values, by program."""
    found = {}
    for name, one in PROGRAMS.items():
        script = Script()

        def optimizer(parameters: list[Any], script: Script = script) -> Any:
            return trace.OptoPrime(parameters, llm=trace.llm(script))

        values = one(trace, optimizer)
        sections = [sections_of(text) for text in script.prompts]
        found[name] = {"calls": len(script.prompts), "sections": sections, "values": values}
    return found


def main() -> None:
    """Run the programs with trace-opt."""
    with contextlib.redirect_stdout(sys.stderr):
        from importlib import metadata

        from opto import trace
        from opto.optimizers import OptoPrime

        def llm(script: Callable[[list[str]], str]) -> Any:
            def complete(messages: Any, **_: Any) -> Any:
                text = script([one["content"] for one in messages])
                message = SimpleNamespace(content=text)
                return SimpleNamespace(choices=[SimpleNamespace(message=message)])

            return complete

        names = {n: getattr(trace, n) for n in ("node", "bundle", "model", "ExecutionError")}
        answer = run(SimpleNamespace(**names, OptoPrime=OptoPrime, llm=llm))
    json.dump({"version": metadata.version("trace-opt"), "programs": answer}, sys.stdout)


if __name__ == "__main__":
    main()
