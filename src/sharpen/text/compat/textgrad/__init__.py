"""TextGrad's names: ``from sharpen.text.compat import textgrad as tg``.

A :class:`Variable` stands for a node of a program, the losses and models are operations of kind
``llm``, ``backward`` is :class:`~sharpen.text.textual.TextualPropagator` and ``TGD`` is
:class:`~sharpen.text.optimizers.textgrad.TGD` with TextGrad's tags. Calls and what is set are
compared with textgrad 0.1.8 on six programs.

Differs from TextGrad: a sum passes each criticism on once (there it is added twice and grows with
2^depth); ``aggregate`` reaches every one of its inputs (there the last); momentum shows the past
(there the prompt is None); a variable without criticism is left alone; a reply without tags is
asked for once more and then leaves the value as it is, with the reason in the report that ``step``
returns.
"""

from __future__ import annotations

from sharpen.text.compat.engines import EngineLM
from sharpen.text.compat.engines import named_engine as get_engine
from sharpen.text.compat.textgrad.calls import (
    BlackboxLLM,
    FormattedLLMCall,
    LLMCall,
    Module,
    MultiChoiceTestTime,
    MultiFieldEvaluation,
    MultiFieldTokenParsedEvaluation,
    StringBasedFunction,
    TextLoss,
)
from sharpen.text.compat.textgrad.optimizer import (
    TGD,
    TextualGradientDescent,
    TextualGradientDescentwithMomentum,
)
from sharpen.text.compat.textgrad.variable import Variable, aggregate, set_backward_engine, sum

__all__ = [
    "TGD",
    "BlackboxLLM",
    "EngineLM",
    "FormattedLLMCall",
    "LLMCall",
    "Module",
    "MultiChoiceTestTime",
    "MultiFieldEvaluation",
    "MultiFieldTokenParsedEvaluation",
    "StringBasedFunction",
    "TextLoss",
    "TextualGradientDescent",
    "TextualGradientDescentwithMomentum",
    "Variable",
    "aggregate",
    "get_engine",
    "set_backward_engine",
    "sum",
]
