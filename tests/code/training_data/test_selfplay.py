"""Pairs that a model makes itself, with a script in its place."""

import json
from pathlib import Path

import pytest

from sharpen.code.training_data import Pair, self_play
from sharpen.core.errors import ConfigError
from sharpen.core.lm import LM, Scripted

SLOW = """\
def solve(xs):
    found = []
    for x in xs:
        if x not in found:
            found.append(x)
    return found


def inputs():
    return [([],), ([1, 1],), (list(range(300)) * 2,), (list(range(1500)),)]
"""
FAST = "def solve(xs):\n    return list(dict.fromkeys(xs))\n"
SAME = SLOW.replace("found", "seen").replace("1500", "1400")
OTHER = """\
def solve(n):
    return sum([i * i for i in range(n)])

def inputs():
    return [0, 3, 100000]
"""
CHANCE = "import random\ndef solve(n):\n    return random.random()\ndef inputs():\n    return [1]\n"


def fenced(program: str) -> str:
    return f"```python\n{program}```"


def test_pairs_that_hold_are_kept(tmp_path: Path) -> None:
    invented = [SLOW, SAME, CHANCE, "def solve(n): return n\n", OTHER, OTHER.replace("* i", "+ 1")]
    faster = [FAST, "def solve(n):\n    return 7\n", OTHER.replace("* i", "+ 1")]
    out = tmp_path / "pairs.jsonl"
    inventor = Scripted([fenced(one) for one in invented])
    found = self_play(
        LM(inventor),
        out,
        programs=6,
        examples=[Pair(slow="def shown(): ...", fast="")],
        optimizer=LM(Scripted([fenced(one) for one in faster])),
    )
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert row["slow"].strip() == SLOW.strip()
    assert row["fast"] == FAST
    assert row["speedup"] > 3
    assert row["slow_s"] / row["fast_s"] == pytest.approx(row["speedup"])
    assert found == {
        "pairs": 1,
        "dropped": {
            "does what another does": 1,
            "fails or depends on chance": 1,
            "no program": 1,
            "the faster program is wrong": 1,
            "not faster": 1,
        },
    }
    assert "def shown" in inventor.requests[0].prompt


def test_numbers_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="programs=0"):
        self_play(LM(Scripted([])), tmp_path / "x", programs=0)
