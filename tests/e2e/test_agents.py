"""Agents as commands: play, look at what was done, imitate it; find instructions; bad input."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from e2e.command import document, sharpen

INSTRUCT = ("align", "instruct", "--world", "worlds.py:Doors", "--lm", "scripted:doors.yaml")


@pytest.fixture
def work(tmp_path: Path, repository: Path) -> Path:
    for name in ("worlds.py", "doors.yaml"):
        shutil.copy(repository / "examples/align" / name, tmp_path)
    return tmp_path


@pytest.mark.slow
def test_what_succeeded_is_imitated(work: Path) -> None:
    call = ("align", "play", "--model", "tiny", "--world", "worlds.py:Letters", "--tasks", "30")
    call += ("--max-tokens", "4", "--draws", "2", "--save", "played.jsonl", "--json")
    played = document(sharpen(*call, cwd=work))
    looked = document(sharpen("align", "inspect", "played.jsonl", "-m", "tiny", "--json", cwd=work))
    assert (looked["kind"], looked["rows"]) == ("trajectory", 60)
    good = looked["balance"]["successful"]
    assert 0 < good < 60
    call = ("align", "sft", "--model", "tiny", "--data", "played.jsonl", "--steps", "30")
    call += ("--lr", "1e-3", "--json")
    done = sharpen(*call, cwd=work)
    assert done.returncode == 0, done.stderr
    told = document(done)
    assert told["summary"]["align"]["rows"] == good
    assert told["summary"]["align"]["dropped"] == {"failed episode": 60 - good}
    call = ("align", "play", "--model", told["model"], "--world", "worlds.py:Letters")
    call += ("--tasks", "60", "--max-tokens", "4", "--json")
    after = document(sharpen(*call, cwd=work))
    assert after["success"]["value"] > played["success"]["value"] + 0.1


@pytest.mark.parametrize(
    ("changes", "code", "told"),
    [
        (("--world", "romms"), 2, "Did you mean 'rooms'"),
        (("--world", "none.py:Doors"), 2, "no file"),
        (("--lm", "scripted:none.yaml"), 2, "no such file: none.yaml"),
        (("--optimizer", "opr"), 2, "Did you mean 'opro'"),
        (("--instructions", "@none.txt"), 2, "instructions: no such file"),
        (("--max-calls", "1"), 1, "max_calls=1 is used up"),
    ],
)
def test_bad_input_is_named(changes: tuple[str, ...], code: int, told: str, work: Path) -> None:
    done = sharpen(*INSTRUCT, *changes, "--json", cwd=work)
    assert done.returncode == code, done.stdout
    assert told in document(done)["error"]["message"]
