"""A study of a program whose model notes each paid call, killed after some; run as a script.

python killed_study.py FOLDER KILL_AFTER     (0: never)
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import sharpen.text as st
from sharpen.core.lm.messages import ChatRequest, text_of
from sharpen.core.study import Budget, Study

FOLDER, KILL_AFTER = Path(sys.argv[1]), int(sys.argv[2])
PAID = FOLDER / "paid.txt"


def model(request: ChatRequest) -> str:
    """Answers with as many letters as the rule has; rewrites rules by one letter more."""
    paid = PAID.read_text().splitlines() if PAID.exists() else []
    if KILL_AFTER and len(paid) >= KILL_AFTER:
        os.kill(os.getpid(), signal.SIGKILL)  # before this call is paid for
    with PAID.open("a") as file:
        file.write(request.digest() + "\n")
    last = text_of(request.messages[-1])
    if "#Variables" in last:
        rule = last.split("(str) rule = ")[1].split("\n")[0]
        return f'{{"suggestion": {{"rule": "{rule}a"}}}}'
    return last


class Answer(st.Module):
    """Puts the rule before the question."""

    def __init__(self, lm: st.LM) -> None:
        self.rule = st.Parameter("a")
        self.answer = st.LLM(lm)

    def forward(self, question: str) -> st.Node:
        return self.answer(self.rule + question)


lm = st.LM(st.Scripted(model, model="killed"), cache=FOLDER / "replies.sqlite")
problem = st.TextProblem(
    Answer(lm), [("?", 5), ("??", 5)], lambda response, want: -abs(response.count("a") - want)
)
study = Study(
    problem,
    optimizer=st.OptoPrime.maker(lm),
    store=f"sqlite:///{FOLDER}/study.db",
    budget=Budget(trials=7),
).run()
print([trial.value for trial in study.trials()], study.best.config)
