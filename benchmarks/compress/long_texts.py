"""Long texts for SmolLM2: prose and code, some with secret codes that are asked for at the end.

Heads are trained on descriptions of installed packages and modules of the standard library; what is
measured are licences and two modules that training never sees. Names and codes differ as well.
"""

from __future__ import annotations

import random
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from sharpen.compress.kv import AnsweredText
from sharpen.core.assets import asset_path
from sharpen.data.stdlib import stdlib_texts

__all__ = ["Coded", "coded_text", "measured_ids", "training_texts"]

_HELD_MODULES = ("argparse", "optparse")
_LICENCES = ("GPL-3", "GFDL-1.3", "MPL-2.0", "MPL-1.1", "Apache-2.0")
_TRAINED_NAMES = (
    *("Paris", "London", "Berlin", "Madrid", "Rome", "Vienna", "Oslo", "Dublin", "Prague"),
    *("Athens", "Lisbon", "Warsaw", "Cairo", "Lima", "Tokyo", "Delhi", "Seoul", "Havana"),
)
_MEASURED_NAMES = (
    *("Boston", "Denver", "Chicago", "Dallas", "Seattle", "Austin", "Portland", "Phoenix"),
    *("Toronto", "Sydney", "Melbourne", "Auckland"),
)
_CODES = 4
CONTINUATION = 64


def training_texts(tokenizer: Any, count: int, tokens: int, seed: int = 0) -> list[AnsweredText]:
    """Half of them with codes, half to be continued."""
    chance = random.Random(seed)
    sources = [
        r["text"]
        for r in stdlib_texts(asset_path("python-stdlib"))
        if r["module"] not in _HELD_MODULES
    ]
    prose = [
        text
        for text in (str(d.metadata.get_payload()) for d in metadata.distributions())  # type: ignore[attr-defined]
        if len(text) > 4000 and "General Public License" not in text
    ]
    texts: list[AnsweredText] = []
    while len(texts) < count:
        number = len(texts)
        one = chance.choice(prose if number % 4 < 2 else sources)
        start = chance.randrange(max(1, len(one) - 5 * tokens))
        ids = tokenizer.encode(one[start : start + 8 * tokens])
        if len(ids) < tokens // 2:
            continue
        if number % 2:
            coded = coded_text(tokenizer, ids[:tokens], chance, _TRAINED_NAMES)
            texts.append(AnsweredText(coded.prompt, coded.questions[0]))
        else:
            ids = ids[:tokens]
            texts.append(AnsweredText(ids[:-CONTINUATION], ids[-CONTINUATION:]))
    return texts


def measured_ids(tokenizer: Any) -> dict[str, list[int]]:
    """Texts that training never sees."""
    folder = Path("/usr/share/common-licenses")
    licences = "\n".join((folder / name).read_text() for name in _LICENCES)
    stdlib = Path(sysconfig.get_path("stdlib"))
    code = "\n".join((stdlib / f"{name}.py").read_text() for name in _HELD_MODULES)
    return {"licences": tokenizer.encode(licences), "code": tokenizer.encode(code)}


@dataclass(frozen=True)
class Coded:
    """A text with codes at random places."""

    prompt: list[int]
    questions: list[list[int]]
    """With answers: their last five tokens are the digits of a code."""
    continuation: list[int]
    """What follows the prompt in the text itself."""


def coded_text(
    tokenizer: Any,
    ids: list[int],
    chance: random.Random,
    names: tuple[str, ...] = _MEASURED_NAMES,
) -> Coded:
    """A text of so many tokens, without the questions."""
    chosen = chance.sample(names, _CODES)
    codes = {name: str(chance.randrange(10_000, 100_000)) for name in chosen}
    told = {n: tokenizer.encode(f"\nThe secret code of {n} is {c}.\n") for n, c in codes.items()}
    asked = "\nWhat is the secret code of {0}?\nThe secret code of {0} is {1}"
    questions = [tokenizer.encode(asked.format(name, codes[name])) for name in chosen]
    room = len(ids) - CONTINUATION - sum(map(len, told.values()))
    cuts = sorted(chance.sample(range(1, room), _CODES))
    prompt: list[int] = []
    for start, end, name in zip([0, *cuts], [*cuts, room], [*chosen, None], strict=True):
        prompt += ids[start:end] + (told[name] if name is not None else [])
    return Coded(prompt, questions, ids[room : room + CONTINUATION])
