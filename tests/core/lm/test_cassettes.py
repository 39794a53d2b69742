import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError
from sharpen.core.lm import LM, CassetteEngine, CassetteMiss, ChatRequest, Scripted


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tape.jsonl"


def counting() -> Scripted:
    left = iter(range(1000))
    return Scripted(lambda request: f"{next(left)}: {request.prompt}", model="m")


def test_what_was_recorded_is_played_without_the_model(file: Path) -> None:
    recorded = LM(CassetteEngine(file, counting(), "record"), max_tokens=9, system="S")
    said = [recorded("a"), recorded("b\nü")]
    played = LM(CassetteEngine(file), max_tokens=9, system="S")
    assert [played("a"), played("b\nü"), played("a")] == [said[0], said[1], said[0]]
    assert played.model == "m"
    assert LM(f"cassette:{file}", max_tokens=9, system="S")("a") == said[0]
    response = CassetteEngine(file).complete(played.request("a"))
    assert response.usage is not None
    assert response.usage.completion == 2


def test_the_file_is_lines_that_people_can_read(file: Path) -> None:
    LM(CassetteEngine(file, counting(), "record"))("größe")
    (line,) = file.read_text().splitlines()
    row = json.loads(line)
    assert row["request"]["messages"] == [{"role": "user", "content": "größe"}]
    assert row["response"]["texts"] == ["0: größe"]
    assert "größe" in line


def test_a_miss_shows_the_nearest_request_and_the_difference(file: Path) -> None:
    recorded = LM(CassetteEngine(file, counting(), "record"), max_tokens=9)
    recorded("What is the capital of France?")
    recorded("How warm is it?")
    played = CassetteEngine(file)
    with pytest.raises(CassetteMiss) as error:
        played.complete(ChatRequest("What is the capital of France?", max_tokens=10))
    assert '- "max_tokens": 9,\n+ "max_tokens": 10,' in str(error.value)
    assert "mode='auto'" in str(error.value)
    with pytest.raises(CassetteMiss, match=r'-\s+"content": "How warm') as error:
        played.complete(ChatRequest("How cold is it?", max_tokens=9))


def test_auto_asks_only_for_what_is_missing(file: Path) -> None:
    LM(CassetteEngine(file, counting(), "record"))("a")
    inner = counting()
    lm = LM(CassetteEngine(file, inner, "auto"))
    assert [lm("a"), lm("b"), lm("b")] == ["0: a", "0: b", "0: b"]
    assert [r.prompt for r in inner.requests] == ["b"]
    assert LM(CassetteEngine(file))("b") == "0: b"


def test_record_asks_again_and_the_last_counts(file: Path) -> None:
    lm = LM(CassetteEngine(file, counting(), "record"))
    assert [lm("a"), lm("a")] == ["0: a", "1: a"]
    assert LM(CassetteEngine(file))("a") == "1: a"


def test_draws_are_played_in_the_order_of_their_recording(file: Path) -> None:
    lm = LM(CassetteEngine(file, counting(), "record"), temperature=1.0)
    said = [lm("a"), lm("a"), lm("a", repeat=7)]
    played = LM(CassetteEngine(file), temperature=1.0)
    assert [played("a", repeat=7), played("a"), played("a")] == [said[2], said[0], said[1]]
    with pytest.raises(CassetteMiss):
        played("a")


def test_several_models_must_be_told_apart(file: Path) -> None:
    for name in ("one", "two"):
        script = Scripted(lambda request: f"{request.prompt}", model=name)
        LM(CassetteEngine(file, script, "record"))("a")
    with pytest.raises(ConfigError, match="name one with model=: one, two"):
        CassetteEngine(file)
    assert LM(f"cassette:{file}", options={"model": "two"})("a") == "a"


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [({"mode": "rec"}, ConfigError), ({"mode": "auto"}, ConfigError), ({}, MissingFileError)],
)
def test_what_cannot_be_done_is_refused(file: Path, arguments: Any, kind: Any) -> None:
    with pytest.raises(kind):
        CassetteEngine(file, **arguments)


@pytest.mark.parametrize("line", ["x", "{}", '{"key": "k", "request": {}, "response": {}}', "[]"])
def test_a_line_that_is_no_recording_is_named(file: Path, line: str) -> None:
    LM(CassetteEngine(file, counting(), "record"))("a")
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(FileFormatError, match="line 2"):
        CassetteEngine(file)


def test_half_a_line_is_left_out_and_then_cut_off(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lm = LM(CassetteEngine(file, counting(), "record"))
    lm.map(["a", "b"], concurrency=1)
    whole = file.read_bytes()
    for half in (whole[:-1], whole[:-40], whole + b'{"key": "' + b"x" * 10_000):
        file.write_bytes(half)
        with caplog.at_level(logging.WARNING):
            assert LM(CassetteEngine(file))("a") == "0: a"
        assert "ends inside of a line" in caplog.text
        LM(CassetteEngine(file, counting(), "auto"))("c")
        assert all(json.loads(line) for line in file.read_text().splitlines())
        assert LM(CassetteEngine(file))("c") == "0: c"
    file.write_bytes(b"half")
    LM(CassetteEngine(file, counting(), "auto"))("c")
    assert LM(CassetteEngine(file))("c") == "0: c"


def test_lone_surrogates_are_played_back(file: Path) -> None:
    LM(CassetteEngine(file, Scripted(lambda r: "x\ud800"), "record"))("a\ud800")
    assert LM(CassetteEngine(file))("a\ud800") == "x\ud800"


WORKER = """
import sys
from sharpen.core.lm import LM, CassetteEngine, Scripted
file, number, calls = sys.argv[1:]
script = Scripted(lambda request: "x" * 20_000 + request.prompt, model="m")
lm = LM(CassetteEngine(file, script, "auto"))
print("ready", flush=True)
for i in range(int(calls)):
    lm(f"{number} {i}")
"""


@pytest.mark.slow
def test_processes_record_into_one_file_even_if_some_are_killed(file: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(file)]
    # Those to be killed have more to do than they ever finish before.
    workers = [
        subprocess.Popen([*command, str(i), calls], stdout=subprocess.PIPE, text=True)
        for i, calls in enumerate(("1000000", "1000000", "300", "300"))
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers[:2]:
        time.sleep(0.05)
        worker.send_signal(signal.SIGKILL)
    codes = [worker.wait() for worker in workers]
    for worker in workers:
        worker.communicate()
    assert codes == [-9, -9, 0, 0]
    played = LM(CassetteEngine(file))
    for number in (2, 3):
        for i in range(300):
            assert played(f"{number} {i}") == "x" * 20_000 + f"{number} {i}"
