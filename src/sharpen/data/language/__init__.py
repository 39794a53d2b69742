"""In which language a text is: by its script, by a model of yours, or by a package of others."""

from sharpen.data.language.base import BACKENDS, Detector, detector
from sharpen.data.language.bayes import LanguageModel, train
from sharpen.data.language.scripts import ScriptDetector, script_shares

__all__ = [
    "BACKENDS",
    "Detector",
    "LanguageModel",
    "ScriptDetector",
    "detector",
    "script_shares",
    "train",
]
