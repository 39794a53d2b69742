"""A function's text as a problem: what a study of ``sharpen.core`` can search over.

The space is one parameter, the text of the function; the objective is how many times as fast it is
as the original. A text for which a difference is found fails, and says for which arguments, which
is what optimizers that read (OPRO, OptoPrime, searches by a language model) go by.
"""

from __future__ import annotations

import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sharpen.code.improver.config import ImproveConfig
from sharpen.code.improver.improve import judge_of, prepare
from sharpen.code.improver.judge import Proposal
from sharpen.code.improver.llm import function_text, spliced
from sharpen.code.improver.objective import said
from sharpen.code.replies import function_in
from sharpen.core.feedback import Feedback, TextFeedback
from sharpen.core.problem import Constraint, Objective, TrialContext
from sharpen.core.space import Space
from sharpen.core.text_parameter import Text

__all__ = ["CodeProblem", "code_problem"]


class CodeProblem:
    """Find a faster text of a function; made by :func:`code_problem`.

    Attributes:
        name: ``file:function``.
        space: one text, ``code``.
        objectives: ``speedup``, at the largest inputs.
        constraints: none: a text that is not right fails.
    """

    def __init__(self, path: str | Path, function: str, config: ImproveConfig) -> None:
        stack = ExitStack()
        self._finalizer = weakref.finalize(self, stack.close)
        self.prepared = prepare(path, function, config, stack, say=lambda text: None)
        self.judge = judge_of(self.prepared, stack, out=None, sandboxed=True)
        target = self.prepared.target
        self.name = f"{target.file.name}:{target.entry}"
        code = function_text(target, target.text)
        words = f"one function '{target.name}' with the same arguments and results"
        self.space = Space(code=Text(default=code, kind="code", constraint=words))
        self.objectives = (Objective("speedup", "max"),)
        self.constraints: tuple[Constraint, ...] = ()

    def evaluate(self, config: dict[str, Any], trial: TrialContext | None = None) -> Feedback:
        """Compare a text with the original and look how fast it is.

        Args:
            config: ``code``, the text of the function; what is not the original runs in a sandbox.
            trial: not looked at.
        """
        target = self.prepared.target
        code = function_in(config["code"], target.name)
        if code is None:
            return Feedback(status="failed", error=f"it does not define '{target.name}'.")
        if code == function_text(target, target.text):
            return Feedback(objectives={"speedup": 1.0}, text=self._remarks("the original"))
        attempt = self.judge.consider(
            Proposal(text=spliced(target, code), origin="llm", steps=("study",), explain="")
        )
        if attempt.verdict not in ("kept", "slower"):
            return Feedback(status="failed", error=f"{attempt.verdict}: {attempt.reason}")
        told = said(self.prepared.config.objective, attempt.score)
        remarks = self._remarks(f"right as far as was seen, {told}")
        return Feedback(objectives={"speedup": attempt.score}, text=remarks)

    def _remarks(self, told: str) -> list[TextFeedback]:
        profile = self.prepared.profile
        table = "" if profile is None else f"\nThe original's profile:\n{profile.table()}"
        return [TextFeedback(body=told + table)]

    def close(self) -> None:
        """End its processes and sandboxes."""
        self._finalizer()


def code_problem(path: str | Path, function: str, **settings: Any) -> CodeProblem:
    """A function to make faster, as a problem for a study.

    Args:
        path: its file.
        function: ``f`` or ``Class.method``.
        settings: fields of :class:`ImproveConfig`.

    Raises:
        UserError: the function or a setting cannot be used.
        BaselineError: it does not do the same twice.

    Example:
        >>> from sharpen.code import code_problem
        >>> problem = code_problem("slow.py", "f")  # doctest: +SKIP
        >>> problem.evaluate({"code": "def f(x): ..."}).objectives  # doctest: +SKIP
    """
    return CodeProblem(path, function, ImproveConfig(**settings))
