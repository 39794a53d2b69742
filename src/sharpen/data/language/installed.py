"""Languages by packages and models of others, where they are installed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import DependencyNotInstalled, FileFormatError, MissingFileError
from sharpen.data.language.base import UNKNOWN
from sharpen.data.statistics import Texts

__all__ = ["Cld2", "FastText", "Lingua"]

Found = tuple[list[str], npt.NDArray[np.float64]]


def _load(module: str, backend: str, package: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise DependencyNotInstalled(
            f"the language backend '{backend}' needs the package {package}. Install it: pip "
            f"install {package}. Backends that need none: script, ngram."
        ) from None


class FastText:
    """A supervised fastText model whose labels are codes of languages.

    Args:
        path: its file, .bin or .ftz.

    Raises:
        MissingFileError: there is no such file.
        FileFormatError: fastText cannot read it.
        DependencyNotInstalled: fastText is missing.
    """

    def __init__(self, path: str | Path) -> None:
        if not Path(path).is_file():
            raise MissingFileError(f"no such fastText model: {path}")
        module = _load("fasttext", "fasttext", "fasttext-predict")
        try:
            self._model = module.load_model(str(path))
        except (ValueError, RuntimeError) as error:
            raise FileFormatError(f"{path} is no fastText model: {error}.") from error

    def detect(self, texts: Texts) -> Found:
        """See :class:`~sharpen.data.language.base.Detector`."""
        codes, scores = [], np.zeros(len(texts))
        for i, text in enumerate(texts.strings):
            line = text.replace("\n", " ") + "\n"  # a line is what it reads
            found = self._model.f.predict(line, 1, 0.0, "strict")
            codes.append(found[0][1].removeprefix("__label__") if found else UNKNOWN)
            scores[i] = min(1.0, found[0][0]) if found else 0.0
        return codes, scores


class Lingua:
    """Peter M. Stahl's lingua, with all its languages.

    Raises:
        DependencyNotInstalled: it is missing.
    """

    def __init__(self) -> None:
        module = _load("lingua", "lingua", "lingua-language-detector")
        self._detector = module.LanguageDetectorBuilder.from_all_languages().build()

    def detect(self, texts: Texts) -> Found:
        """See :class:`~sharpen.data.language.base.Detector`."""
        codes, scores = [], np.zeros(len(texts))
        for i, text in enumerate(texts.strings):
            found = self._detector.compute_language_confidence_values(text)
            best = found[0] if found and found[0].value > 0 else None
            codes.append(best.language.iso_code_639_1.name.lower() if best else UNKNOWN)
            scores[i] = best.value if best else 0.0
        return codes, scores


class Cld2:
    """Compact Language Detector 2; the score is the share of the text in its first language.

    Raises:
        DependencyNotInstalled: pycld2 is missing.
    """

    def __init__(self) -> None:
        self._module = _load("pycld2", "pycld2", "pycld2")

    def detect(self, texts: Texts) -> Found:
        """See :class:`~sharpen.data.language.base.Detector`."""
        codes, scores = [], np.zeros(len(texts))
        for i, text in enumerate(texts.strings):
            printable = "".join(c if c.isprintable() else " " for c in text)  # it refuses others
            _, _, found = self._module.detect(printable)
            code, percent = found[0][1], found[0][2]
            codes.append(UNKNOWN if code == "un" else code)
            scores[i] = percent / 100 if code != "un" else 0.0
        return codes, scores
