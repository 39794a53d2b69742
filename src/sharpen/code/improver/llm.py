"""Proposals of a language model: several at once, then better ones from the best so far.

Huang et al., *Effi-Code: Unleashing Code Efficiency in Language Models*, 2024: a program that is
right is shown to the model with its profile by line and asked for a faster one, again and again;
one that is wrong is shown with what is wrong. Shypula et al., *Learning Performance-Improving Code
Edits*, ICLR 2024: pairs of slow and fast programs like the one at hand stand before the question,
here the two of our own problems that are most like it.

Differs from the papers: replies are functions and not programs, and each is compared with the
original on all inputs instead of on tests alone. The code is run in a sandbox.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from sharpen.code.improver.journal import Attempt
from sharpen.code.improver.judge import Judge, Proposal
from sharpen.code.improver.objective import said
from sharpen.code.improver.reference import call_text
from sharpen.code.improver.search import Budget, ranked
from sharpen.code.improver.suspicion import SAFE_IMPORTS
from sharpen.code.improver.target import Target, functions_of, parsed
from sharpen.code.replies import function_in
from sharpen.core.errors import FileFormatError, SharpenError

if TYPE_CHECKING:
    from sharpen.code.improver.improve import Prepared
    from sharpen.code.training_data import Pair, Retriever
    from sharpen.core.lm import LM

__all__ = ["ask", "function_text", "pairs_like", "propose_with", "question", "spliced"]

_EXAMPLES = 2
_MOST_TRIED = 6
_MOST_INPUTS = 5


def pairs_like(code: str) -> list[Pair]:
    """The pairs of slow and fast functions that are most like one, the most like last.

    A pair of exactly it is left out.
    """
    return _retriever().nearest(code, _EXAMPLES)


@cache
def _retriever() -> Retriever:
    """Slow and fast solutions of our own problems."""
    from sharpen.code.problems import load_problems
    from sharpen.code.training_data import Pair, Retriever

    return Retriever(
        [
            Pair(slow=_plain(one.slow), fast=_plain(one.reference), problem=one.name)
            for one in load_problems("own")
            if one.slow is not None
        ]
    )


def _plain(program: str) -> str:
    return program.replace("from __future__ import annotations\n", "").strip("\n") + "\n"


def propose_with(
    lm: LM,
    prepared: Prepared,
    judge: Judge,
    budget: Budget,
    candidates: Sequence[Attempt],
    say: Callable[[str], None],
) -> list[Attempt]:
    """Ask a language model, in rounds; gives those of its texts that are right and seemed faster.

    A model that cannot be reached ends the asking with a line, never with an error.

    Args:
        lm: the model.
        prepared: the function and what is known of it.
        judge: tries texts.
        budget: what may be spent.
        candidates: what rules have found.
        say: called with a line.
    """
    config = prepared.config
    good: list[Attempt] = []
    for number in range(1 + config.rounds):
        best = next(iter(ranked([*candidates, *good])), None)
        tried = [one for one in judge.journal.attempts if one.origin == "llm"]
        prompt = question(prepared, best if number else None, tried)
        try:
            replies = ask(lm, prompt, config.samples, config.seed + number)
        except SharpenError as error:
            say(f"the language model gives nothing: {error}")
            break
        better = False
        for reply in replies:
            if not budget.spend():
                return good
            attempt = _consider(judge, prepared.target, reply)
            if attempt is not None and attempt.verdict == "kept" and attempt.score > 1.05:
                better |= best is None or attempt.score > best.score * 1.05
                good.append(attempt)
        say(f"language model, round {number + 1}: {len(replies)} replies, {len(good)} seem faster")
        if number and not better:
            break
    return good


def ask(lm: LM, prompt: str, samples: int, seed: int) -> list[str]:
    """Different replies to a prompt.

    Raises:
        SharpenError: none came.
    """
    response = lm.chat(prompt, n=samples, seed=seed, temperature=0.8 if samples > 1 else 0.0)
    return list(dict.fromkeys(response.texts))


def _consider(judge: Judge, target: Target, reply: str) -> Attempt | None:
    code = function_in(reply, target.name)
    if code is None:
        return None
    text = spliced(target, code)
    known = {one.text for one in judge.journal.attempts}
    if text in known or text == target.text:
        return None
    return judge.consider(
        Proposal(
            text=text,
            origin="llm",
            steps=("llm",),
            explain="A language model wrote it.",
            risk="exact",
        )
    )


def question(prepared: Prepared, best: Attempt | None, tried: Sequence[Attempt]) -> str:
    """What a language model is asked.

    Args:
        prepared: the function and what is known of it.
        best: the best text so far; it is to be made better still.
        tried: what the model has proposed before.
    """
    target, profile = prepared.target, prepared.profile
    objective = prepared.config.objective
    aim = "need less memory at its peak" if objective == "memory" else "faster"
    parts = [
        f"Make this Python function {aim}. It must do exactly the same for all arguments: the same"
        " results of the same classes in the same order, the same exceptions, the same changes of"
        " its arguments. Think of a better algorithm first.",
        "Examples of slow functions and fast ones that do the same:",
    ]
    code = function_text(target, target.text)
    for pair in pairs_like(code):
        parts.append(f"```python\n{pair.slow}```\nfaster:\n```python\n{pair.fast}```")
    parts.append(f"The function:\n```python\n{code}```")
    if profile is not None:
        parts.append(f"Instructions and memory by line:\n```text\n{profile.table()}\n```")
        if profile.exponent is not None:
            parts.append(f"Its time grows with n^{profile.exponent:.2f}.")
    inputs = [call_text(call) for call in prepared.corpus.known[:_MOST_INPUTS]]
    parts.append("It is called with, for example:\n" + "\n".join(inputs))
    if best is not None:
        parts.append(
            f"This version is right, {said(objective, best.score)}; make one that is better"
            f" still:\n```python\n{function_text(target, best.text)}```"
        )
    if tried:
        lines = [
            f"- {one.verdict}{f', {said(objective, one.score)}' if one.score else ''}"
            f"{f': {one.reason}' if one.reason else ''}"
            for one in tried[-_MOST_TRIED:]
        ]
        parts.append("What you have proposed before:\n" + "\n".join(lines))
    allowed = ", ".join(sorted({*SAFE_IMPORTS, *prepared.config.allow} - {"__future__"}))
    parts.append(
        f"Reply with one block of Python that holds the function '{target.name}' with the same"
        f" arguments, with its imports and helper functions before it. It may import {allowed}."
    )
    return "\n\n".join(parts)


def function_text(target: Target, text: str) -> str:
    """The function alone, without the indentation of its class."""
    try:
        node, _ = functions_of(parsed(text, target.file))[target.entry]
    except (FileFormatError, KeyError):
        return text
    first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    lines = text.splitlines(keepends=True)[first - 1 : node.end_lineno]
    return textwrap.dedent("".join(lines)).rstrip() + "\n"


def spliced(target: Target, code: str) -> str:
    """The file with other code in the place of the function.

    Imports and helper functions of the code come before it: at the top of the module they could
    hide names that others use, so imports go into the function where it is in a class.
    """
    tree = ast.parse(code)
    lines = code.splitlines(keepends=True)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    last = next(n for n in tree.body[::-1] if isinstance(n, kinds) and n.name == target.name)
    first = min([last.lineno, *(one.lineno for one in last.decorator_list)])
    before = "".join(lines[: first - 1]).strip("\n")
    function = "".join(lines[first - 1 : last.end_lineno])
    node = target.node
    indent = " " * node.col_offset
    old = target.text.splitlines(keepends=True)
    end = "\r\n" if old and old[0].endswith("\r\n") else "\n"
    start = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    if node.decorator_list and not last.decorator_list:
        start = node.lineno  # decorators stay, which models leave out
    new = textwrap.indent(function.rstrip("\n") + "\n", indent)
    if before and not indent:
        new = f"{before}\n\n\n{new}"
    elif before:
        inner = textwrap.indent(before + "\n", indent + "    ")
        head, body = _head_and_body(new)
        new = f"{head}{inner}{body}"
    new = new.replace("\r\n", "\n").replace("\n", end)
    return "".join([*old[: start - 1], new, *old[node.end_lineno :]])


def _head_and_body(text: str) -> tuple[str, str]:
    """A function's lines up to its body, and the rest."""
    node = ast.parse(textwrap.dedent(text)).body[0]
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    lines = text.splitlines(keepends=True)
    at = node.body[0].lineno - 1
    return "".join(lines[:at]), "".join(lines[at:])
