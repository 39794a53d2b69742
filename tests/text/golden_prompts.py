"""The prompts of optimizers that read, whole, for one program.

Rewrite them: ``PYTHONPATH=tests python tests/text/golden_prompts.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sharpen.text as st
from sharpen.core.lm.messages import ChatRequest, text_of
from sharpen.core.parameters import Float

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("optoprime", "optoprime_xml", "opro", "textgrad", "optoprime_multi")


@st.op
def scale(text: str, times: int) -> str:
    """Repeats a text."""
    return text * times


@st.op(trainable=True)
def shout(text):  # type: ignore[no-untyped-def]
    """Makes a text loud."""
    return text.upper()


def run(text: st.Node, times: st.Node) -> Any:
    """One use of the program."""
    return scale(text, times=times) + shout("x" * 9)


def prompts(name: str) -> str:
    """What the model is asked in two steps, with roles."""
    asked: list[str] = []

    def model(request: ChatRequest) -> str:
        for message in request.messages:
            asked.append(f"<<{message['role']}>>\n{text_of(message)}")
        last = text_of(request.messages[-1])
        if "Write feedback for" in last:
            return f"Change {last.rsplit(chr(39), 2)[1]}."
        if "Several proposals" in last:
            return "1"
        if "between <NEW>" in last:
            return "<NEW>Be short. </NEW>"
        return '{"suggestion": {"style": "%s. "}}' % ("Shout" if request.temperature else "Short")

    lm = st.LM(st.Scripted(model))
    style = st.Parameter(
        "Be brief. ", "style", role="the instruction", constraint="at most 5 words"
    )
    times = st.Parameter(2, "times")
    rate = st.Parameter(0.5, "rate", space=Float(0.0, 1.0))
    parameters = [style, times, rate, shout.parameter]  # type: ignore[attr-defined]
    if name == "opro":
        optimizer: st.TextOptimizer = st.OPRO(parameters, lm)
    elif name == "textgrad":
        optimizer = st.TextGrad([style], lm, memory=2, momentum=2, concurrency=1)
    elif name == "optoprime_multi":
        optimizer = st.OptoPrimeMulti(parameters, lm, temperatures=(0.0, 1.0), concurrency=1)
    else:
        form: Any = "xml" if name.endswith("xml") else "json"
        optimizer = st.OptoPrime(parameters, lm, memory=2, format=form, examples=["1 + 1 = 2"])
    for said in (st.Feedback(score=0.5, text="Too much."), "Better: {braces} stay."):
        optimizer.zero_feedback()
        run(style, times).backward(said)
        optimizer.step()
    return "\n".join(asked) + "\n"


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for one in NAMES:
        (GOLDEN / f"{one}.txt").write_text(prompts(one))
