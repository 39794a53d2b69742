"""Rewards that do all that rewards should not, in modules that worker processes import."""

import math
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.align.rewards import reward


@reward("sample")
def sample(
    prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Mapping[str, Any]]
) -> Any:
    """The length of a completion, unless it is one of these words."""
    found: list[Any] = []
    for text in completions:
        match text.partition(" ")[0]:
            case "hang":
                time.sleep(60)
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "crash-once":
                file = Path(text.partition(" ")[2])
                if not file.exists():
                    file.touch()
                    os._exit(3)
                found.append(1)
            case "raise":
                raise ValueError("on purpose")
            case "nan":
                found.append(math.nan)
            case "inf":
                found.append(-math.inf)
            case "drop":
                found.append(None)
            case "text":
                found.append("1")
            case "short":
                pass
            case "scalar":
                return 1.0
            case "true":
                found.append(True)
            case _:
                found.append(len(text))
    return found


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Appends a line to a file for each completion that it sees."""

    file: str
    pause_s: float = 0.0

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Any]
    ) -> list[float | None]:
        time.sleep(self.pause_s)
        with Path(self.file).open("a") as out:
            out.writelines(f"{text}\n" for text in completions)
        return [float(len(text)) for text in completions]

    def cache_key(self, prompt: Any, completion: str, meta: Mapping[str, Any]) -> str:
        return completion
