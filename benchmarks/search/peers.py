"""Other optimizers behind one ask and tell, in a process of their own.

Run by an interpreter that has them, so that what the peers need is installed beside Sharpen's
environment and not in it. It reads one JSON document a line and answers each::

    {"do": "start", "method": "ax", "space": [...], "constraints": 2, "seed": 0, "budget": 50}
    {"do": "ask"}                      -> {"x": [...], "seconds": 0.01}
    {"do": "tell", "value": 1.5, "constraints": [...]}
    {"do": "recommend"}                -> {"x": [...] or null}

A space is a list of ``["float", low, high]``, ``["int", low, high]``, ``["choice", [values]]`` and
``["bool"]``, each followed by its options where it has any: ``{"log": true}``, and
``{"if": [3, ["a", "b"]]}`` where it is there only when the fourth parameter, which comes before it,
has one of these values. x is a list of values in that order, null for what is not there; a method
that takes no conditions gives all values each time. With ``"default": x`` at the start, that is the
first configuration evaluated, by the means the package has for it.

Seconds are the processor's on the peer's own work: what a suggestion takes, tells included.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from peers_base import Parameter, Player, Start
from peers_bayesian import AxPeer, BotorchPeer, HeboPeer, SmacPeer
from peers_optuna import OptunaPeer
from peers_plain import CmaPeer, NevergradPeer, RandomPeer

warnings.filterwarnings("ignore")

PEERS: dict[str, Callable[[Start], Player]] = {
    "ax": AxPeer,
    "botorch-loop": BotorchPeer,
    "cma": CmaPeer,
    "hebo": HeboPeer,
    "nevergrad": NevergradPeer,
    "optuna-cmaes": OptunaPeer,
    "optuna-gp": OptunaPeer,
    "optuna-tpe": OptunaPeer,
    "random": RandomPeer,
    "smac": SmacPeer,
}


def _start(given: dict[str, Any]) -> Player:
    start = Start(
        method=given["method"],
        space=[Parameter.read(i, entry) for i, entry in enumerate(given["space"])],
        constraints=given["constraints"],
        seed=given["seed"],
        budget=given["budget"],
        default=given.get("default"),
    )
    return PEERS[start.method](start)


def main() -> None:
    """Answer until the input ends."""
    answer_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what peers print does not mix with the answers
    peer: Any = None
    spent = 0.0
    for line in sys.stdin:
        given = json.loads(line)
        begin = time.process_time()
        answer: dict[str, Any] = {}
        if given["do"] == "start":
            try:
                peer = _start(given)
                spent = 0.0
            except ValueError as error:
                answer["refused"] = str(error)
        elif given["do"] == "ask":
            answer["x"] = peer.ask()
            answer["seconds"] = spent + time.process_time() - begin
            spent = 0.0
        elif given["do"] == "tell":
            peer.tell(given["value"], given["constraints"])
            spent = time.process_time() - begin
        else:
            answer["x"] = peer.recommend()
        answer_to.write(json.dumps(answer) + "\n")
        answer_to.flush()


if __name__ == "__main__":
    main()
