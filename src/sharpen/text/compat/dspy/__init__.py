"""DSPy's names: ``from sharpen.text.compat import dspy``.

Signatures, ``Predict``, ``ChainOfThought``, ``Module``, ``Example``, ``Evaluate`` and optimizers.
Thin: prompts are rendered and searched for by :mod:`sharpen.text.prompts`.

Differs from DSPy: replies are asked for in tags, one for each output; optimizers that search take
programs of one prompt; a budget is never exceeded, and ``program.result`` tells scores with
intervals, calls and tokens; a saved program is one JSON file of instructions and exemplars.
"""

from __future__ import annotations

from sharpen.text.compat.dspy.optimizers import (
    GEPA,
    BootstrapFewShot,
    BootstrapFewShotWithRandomSearch,
    Evaluate,
    EvaluationResult,
    LabeledFewShot,
    MIPROv2,
)
from sharpen.text.compat.dspy.predict import (
    LM,
    ChainOfThought,
    Example,
    Module,
    Predict,
    Prediction,
    configure,
    context,
)
from sharpen.text.compat.dspy.signature import InputField, OutputField, Signature

__all__ = [
    "GEPA",
    "LM",
    "BootstrapFewShot",
    "BootstrapFewShotWithRandomSearch",
    "ChainOfThought",
    "Evaluate",
    "EvaluationResult",
    "Example",
    "InputField",
    "LabeledFewShot",
    "MIPROv2",
    "Module",
    "OutputField",
    "Predict",
    "Prediction",
    "Signature",
    "configure",
    "context",
]
