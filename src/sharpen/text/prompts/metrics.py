"""How good a prediction is: a number from 0 to 1, or feedback with words.

=================== =====================================================================
``exact``           1 where it equals the label without regard to case and white space
``contains``        1 where the label stands in it
``numeric``         1 where it is the label's number, to one part in a million
``numeric:T``       to the relative tolerance ``T``
``f1``              the F1 score of their words (Rajpurkar et al., SQuAD, 2016)
``python:P:F``      function ``F`` of the file ``P``, called with prediction and example
=================== =====================================================================
"""

from __future__ import annotations

import importlib.util
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sharpen.core.errors import ConfigError, MissingFileError
from sharpen.text.feedback import Feedback, as_feedback
from sharpen.text.prompts.task import Example

__all__ = ["Metric", "judge", "make_metric"]

Metric = Callable[[Any, Example], Any]
"""Takes the prediction and the example; returns a number, words or a Feedback."""


def make_metric(text: str, folder: Path | None = None) -> Metric:
    """The metric of a name.

    Args:
        text: as in the table above.
        folder: what paths are relative to.

    Raises:
        ConfigError: an unknown name.
        MissingFileError: there is no such file.
    """
    kind, _, argument = text.partition(":")
    if kind == "exact" and not argument:
        return lambda predicted, example: float(_plain(predicted) == _plain(example.output))
    if kind == "contains" and not argument:
        return lambda predicted, example: float(_plain(example.output) in _plain(predicted))
    if kind == "f1" and not argument:
        return lambda predicted, example: _f1(_plain(predicted), _plain(example.output))
    if kind == "numeric":
        try:
            tolerance = float(argument) if argument else 1e-6
        except ValueError:
            raise ConfigError(f"the tolerance of the metric {text!r} is no number.") from None
        return lambda predicted, example: _numeric(predicted, example.output, tolerance)
    if kind == "python" and argument:
        path, _, function = argument.rpartition(":")
        return _of_file((folder or Path()) / path, function)
    raise ConfigError(
        f"there is no metric {text!r}. There are: exact, contains, numeric, numeric:TOLERANCE, f1,"
        " python:FILE:FUNCTION."
    )


def judge(metric: Metric, predicted: Any, example: Example) -> Feedback:
    """What a metric says, as feedback with a score.

    Raises:
        ConfigError: it gives no score, or one that is not finite.
    """
    feedback = as_feedback(metric(predicted, example))
    if feedback.score is None or not math.isfinite(feedback.score):
        raise ConfigError(
            f"the metric gave the score {feedback.score} for example {example.id}; it must be a"
            " finite number."
        )
    return feedback


def _plain(value: Any) -> str:
    return " ".join(str(value).split()).casefold()


def _numeric(predicted: Any, wanted: Any, tolerance: float) -> float:
    try:
        a, b = float(predicted), float(wanted)
    except (TypeError, ValueError):
        return 0.0
    return float(math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance * 1e-3))


def _f1(predicted: str, wanted: str) -> float:
    ours, right = predicted.split(), wanted.split()
    common = sum((Counter(ours) & Counter(right)).values())
    return 2 * common / (len(ours) + len(right)) if common else 0.0


def _of_file(path: Path, function: str) -> Metric:
    if not path.is_file():
        raise MissingFileError(f"there is no file {path} for the metric.")
    spec = importlib.util.spec_from_file_location(f"sharpen_metric_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        found: Metric = getattr(module, function)
    except Exception as error:
        raise ConfigError(f"the metric {function!r} of {path} cannot be loaded: {error}") from error
    return found
