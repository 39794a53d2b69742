"""What tells languages apart, by name.

==========  =====================================================================================
script      how many letters are of a script that the languages asked for are written in
ngram       a model that :func:`sharpen.data.language.train` made of texts of yours
fasttext    a fastText file of yours, such as lid.176.ftz (package fasttext or fasttext-predict)
lingua      the package lingua-language-detector
pycld2      the package pycld2
==========  =====================================================================================

Languages are named by codes of ISO 639-1 (``en``). Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError
from sharpen.data.statistics import Texts

__all__ = ["BACKENDS", "UNKNOWN", "Backend", "Detector", "detector"]

Backend = Literal["script", "ngram", "fasttext", "lingua", "pycld2"]
BACKENDS: tuple[str, ...] = get_args(Backend)

UNKNOWN = "und"
"""The code of no language that could be told."""


class Detector(Protocol):
    """Tells languages apart."""

    def detect(self, texts: Texts) -> tuple[list[str], npt.NDArray[np.float64]]:
        """[n] the likeliest language of each text, and [n] how sure that is, 0 to 1."""
        ...


def detector(backend: str, *, model: str | None, languages: Sequence[str]) -> Detector:
    """What tells languages apart.

    Args:
        backend: one of :data:`BACKENDS`.
        model: file of ``ngram`` or ``fasttext``.
        languages: codes that are asked for; ``script`` knows only those.

    Raises:
        ConfigError: an unknown backend, a model missing or out of place, or a language that the
            backend does not know.
        DependencyNotInstalled: the backend's package is missing; the message says which.
        MissingFileError: there is no such model.
        FileFormatError: the model is something else, or damaged.
    """
    from sharpen.data.language import bayes, installed, scripts

    if backend not in BACKENDS:
        raise ConfigError(f"backend={backend!r} must be one of {', '.join(BACKENDS)}.")
    if (model is not None) != (backend in ("ngram", "fasttext")):
        needs = (
            "needs model: its file. The backend 'script' needs none, but tells scripts alone"
            if model is None
            else "takes no model"
        )
        raise ConfigError(f"the language backend '{backend}' {needs}.")
    if backend == "ngram":
        assert model is not None
        found = bayes.LanguageModel.load(model)
        _check(languages, found.languages, f"the model {model}")
        return found
    if backend == "fasttext":
        assert model is not None
        return installed.FastText(model)
    if backend == "lingua":
        return installed.Lingua()
    if backend == "pycld2":
        return installed.Cld2()
    _check(languages, tuple(scripts.SCRIPTS), "the backend 'script'")
    return scripts.ScriptDetector(languages)


def _check(languages: Sequence[str], known: Sequence[str], who: str) -> None:
    if strange := [code for code in languages if code not in known]:
        raise ConfigError(
            f"{who} does not know the language {', '.join(strange)}; it knows "
            f"{', '.join(sorted(known))}."
        )
