"""What textgrad does with a chain of sums; runs in an interpreter that has it and nothing of ours.

Reads ``{"depths": [D, ...]}`` as JSON on stdin. A variable is added to itself ``D`` times over
(``y = y + y``), and a fixed gradient is sent back from the end: seconds of ``backward`` and
characters of gradients at the root.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time

with contextlib.redirect_stdout(sys.stderr):
    import textgrad as tg
    from textgrad.engine import EngineLM


class NoModel(EngineLM):
    """Is never asked: sums pass a gradient on without a model."""

    model_string = "none"

    def generate(self, prompt, system_prompt=None, **kwargs):  # type: ignore[no-untyped-def]
        """Refuse."""
        raise AssertionError("a sum needs no model")

    __call__ = generate


def main() -> None:
    """Answer one request."""
    json.dump([tower(depth) for depth in json.load(sys.stdin)["depths"]], sys.stdout)


def tower(depth: int) -> dict[str, float]:
    """Seconds and characters for one depth."""
    root = tg.Variable("a", requires_grad=True, role_description="a letter")
    value = root
    for _ in range(depth):
        value = tg.sum([value, value])
    said = tg.Variable("shorter", requires_grad=False, role_description="feedback")
    value.gradients.add(said)
    begin = time.perf_counter()
    value.backward(engine=NoModel())
    seconds = time.perf_counter() - begin
    characters = sum(len(gradient.value) for gradient in root.gradients)
    return {"seconds": seconds, "characters": characters}


if __name__ == "__main__":
    main()
