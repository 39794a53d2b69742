"""Textual gradient descent on variables, in TextGrad's names."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from sharpen.text.compat.textgrad.variable import Variable, engine_of
from sharpen.text.optimizers.base import StepReport
from sharpen.text.optimizers.textgrad import TGD as _TGD

__all__ = ["TGD", "TextualGradientDescent", "TextualGradientDescentwithMomentum"]

_log = logging.getLogger(__name__)
_TAGS = ("<IMPROVED_VARIABLE>", "</IMPROVED_VARIABLE>")


class TextualGradientDescent:
    """Rewrites variables by what was said about them, one call each.

    Args:
        parameters: what to rewrite; what an operation gave becomes a root.
        verbose: above 0, log new values.
        engine: the model; the backward engine without one.
        constraints: words that every new value must obey.
        new_variable_tags: what a new value stands between.
        in_context_examples: of good values.
        gradient_memory: how many earlier steps' criticism is shown.
        momentum_window: how many earlier values are shown.
    """

    def __init__(
        self,
        parameters: Sequence[Variable],
        verbose: int = 0,
        engine: Any = None,
        constraints: Sequence[str] | None = None,
        new_variable_tags: Sequence[str] | None = None,
        in_context_examples: Sequence[str] | None = None,
        gradient_memory: int = 0,
        momentum_window: int = 0,
    ) -> None:
        begin, end = new_variable_tags or _TAGS
        self.parameters = list(parameters)
        self.verbose = verbose
        self.optimizer = _TGD(
            [one.as_parameter() for one in self.parameters],
            engine_of(engine),
            constraints=tuple(constraints or ()),
            memory=gradient_memory,
            momentum=momentum_window,
            examples=tuple(in_context_examples or ()),
            tags=(begin, end),
        )

    def zero_grad(self) -> None:
        """Forget what was said."""
        for one in self.parameters:
            one.reset_gradients()

    def step(self) -> StepReport:
        """Rewrite; the report says what was set, and what was refused and why."""
        for one in self.parameters:
            said = one.gradients
            one.as_parameter().messages[:] = [tuple(said)] if said else []
        report = self.optimizer.step()
        if self.verbose:
            for value in report.applied.values():
                _log.info("new value: %s", value)
        return report


class TextualGradientDescentwithMomentum(TextualGradientDescent):
    """The same with the values of ``momentum_window`` earlier steps shown."""

    def __init__(
        self,
        engine: Any,
        parameters: Sequence[Variable],
        momentum_window: int = 0,
        constraints: Sequence[str] | None = None,
        new_variable_tags: Sequence[str] | None = None,
        in_context_examples: Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            parameters,
            engine=engine,
            constraints=constraints,
            new_variable_tags=new_variable_tags,
            in_context_examples=in_context_examples,
            momentum_window=momentum_window,
        )


TGD = TextualGradientDescent
