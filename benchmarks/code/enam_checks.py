"""Evaluates programs with enam 0.2.0, ENAMEL's own evaluator: a request a line in, an answer out.

Requests: ``{"data": enamel.csv, "problem": number, "codes": [...]}``. The settings are the defaults
of its demo. It runs everything in this process.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

HARDNESS = [0.0, 3.0, 3.0, 4.0]


def check(request: dict[str, Any]) -> dict[str, Any]:
    from enam.evaluate import Evaluator

    number = request["problem"]
    begin = time.perf_counter()
    evaluator = Evaluator(
        problems=request["data"],
        subset=[number],
        n_tests=[8, 4, 4, 4],
        n_reps=6,
        hardness=HARDNESS,
        memory_giga=4.0,
        timeout_factor=2.0,
        tolerence_sec=0.01,
        seed=998244353,
    )
    evaluator.make_tests()
    passed, efficiency = [], []
    references = evaluator.compute_refs(i=number)
    for code in request["codes"]:
        ok, effs, _ = evaluator.evaluate1(i=number, code=code, refs=references, verbose=False)
        passed.append(bool(ok))
        efficiency.append(float(np.average(effs, weights=HARDNESS)))
    return {
        "passed": passed,
        "efficiency": efficiency,
        "seconds": time.perf_counter() - begin,
    }


def main() -> None:
    answers = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        answers.write(json.dumps(check(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
