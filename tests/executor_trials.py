"""Trials that succeed, fail, hang, die and report, and how an executor carries them out."""

import os
import signal
import time
from typing import Any

from sharpen.core.executor import Job
from sharpen.core.feedback import Feedback
from sharpen.core.parameters import Categorical, Float
from sharpen.core.problem import TrialContext, problem
from sharpen.core.space import Space

SPACE = Space(x=Float(0, 10), act=Categorical("ok", "raise", "hang", "kill", "exit", "eat", "say"))


@problem(SPACE, minimize="y")
def act(config: dict[str, Any], trial: TrialContext) -> dict[str, Any]:
    match config["act"]:
        case "raise":
            raise RuntimeError("on purpose")
        case "hang":
            time.sleep(60)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(7)
        case "eat":
            return {"y": len(bytearray(8 << 30))}
        case "say":
            print("this goes to standard error")
            for step in range(600):
                if trial.report(step, float(step)) == "stop":
                    break
                time.sleep(0.05)  # an answer may take a while
    return {"y": config["x"] ** 2, "pid": os.getpid(), "seed": trial.seed}


def go(executor: Any, jobs: list[tuple[float, str]], on_report: Any = None) -> dict[int, Feedback]:
    """Carry out jobs, at most ``slots`` at a time."""
    waiting = [
        Job(number=i, config={"x": x, "act": what}, seed=100 + i)
        for i, (x, what) in enumerate(jobs)
    ]
    ended: dict[int, Feedback] = {}
    begun = 0
    while len(ended) < len(jobs):
        while waiting and begun - len(ended) < executor.slots:
            executor.submit(waiting.pop(0))
            begun += 1
        ended.update(executor.poll(10.0, on_report or (lambda number, point: "continue")))
    return ended
