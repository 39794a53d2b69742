import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sharpen.core.errors import ConfigError, FileFormatError
from sharpen.core.lm import LM, CachedEngine, ChatRequest, ReplyCache, Scripted


def counting() -> Scripted:
    return Scripted(lambda request: f"reply to {request.prompt}", model="counting")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "replies.sqlite"


def test_what_was_answered_is_not_asked_again(file: Path) -> None:
    first = counting()
    lm = LM(first, cache=file)
    assert [lm("a"), lm("b"), lm("a")] == ["reply to a", "reply to b", "reply to a"]
    assert [r.prompt for r in first.requests] == ["a", "b"]
    assert (lm.usage.calls, lm.usage.cache_hits) == (2, 1)
    later = counting()
    assert LM(later, cache=file)("b") == "reply to b"
    assert later.requests == []


def test_another_model_scope_or_parameter_is_another_request(file: Path) -> None:
    cache = ReplyCache(file)
    LM(counting(), cache=cache)("a")
    other = Scripted(lambda request: "other", model="other")
    assert LM(other, cache=cache)("a") == "other"
    for sampling in ({"max_tokens": 9}, {"seed": 1}, {"stop": ("x",)}, {"extra": {"top_k": 2}}):
        engine = counting()
        LM(engine, cache=cache)("a", **sampling)  # type: ignore[arg-type]
        assert len(engine.requests) == 1


def test_draws_are_kept_only_under_a_number(file: Path) -> None:
    engine = counting()
    lm = LM(engine, cache=file, temperature=1.0)
    lm("a"), lm("a")
    assert len(engine.requests) == 2
    lm("a", repeat=0), lm("a", repeat=0), lm("a", repeat=1)
    assert len(engine.requests) == 4


def test_a_failed_call_leaves_nothing_behind(file: Path) -> None:
    failing = Scripted([("", lambda request: 1 // 0 and "")], model="counting")
    with pytest.raises(ZeroDivisionError):
        LM(failing, cache=file)("a")
    engine = counting()
    assert LM(engine, cache=file)("a") == "reply to a"


def test_old_replies_are_asked_for_again(file: Path) -> None:
    LM(counting(), cache=file)("a")
    engine = counting()
    LM(engine, cache=ReplyCache(file, ttl_s=1000))("a")
    assert engine.requests == []
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE reply SET created = created - 2000")
    LM(engine, cache=ReplyCache(file, ttl_s=1000))("a")
    assert len(engine.requests) == 1
    LM(engine, cache=ReplyCache(file, ttl_s=1000))("a")
    assert len(engine.requests) == 1


def test_what_was_used_longest_ago_goes_when_there_is_too_much(file: Path) -> None:
    engine = Scripted(lambda request: "x" * 1000, model="counting")
    lm = LM(engine, cache=ReplyCache(file, max_bytes=5000))
    for i in range(4):
        lm(str(i))
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE reply SET used = used - 1000")
    lm("0")  # used again
    for i in range(4, 20):
        lm(str(i))
    stats = ReplyCache(file).stats()
    assert 3 <= stats.replies <= 4
    assert stats.bytes <= 5000
    with sqlite3.connect(file) as connection:
        (told,) = connection.execute("SELECT bytes FROM total").fetchone()
    assert told == stats.bytes
    lm("19")
    assert len(engine.requests) == 20
    lm("1")
    assert len(engine.requests) == 21


def test_a_reply_larger_than_the_cache_is_not_kept(file: Path) -> None:
    engine = Scripted(lambda request: "x" * 1000, model="counting")
    lm = LM(engine, cache=ReplyCache(file, max_bytes=500))
    lm("a"), lm("a")
    assert len(engine.requests) == 2
    assert ReplyCache(file).stats().replies == 0


def test_it_says_what_it_holds_and_forgets(file: Path) -> None:
    cache = ReplyCache(file)
    LM(counting(), cache=cache).map([str(i) for i in range(10)])
    stats = cache.stats()
    assert (stats.replies, stats.models, stats.file) == (10, {"counting": 10}, file)
    assert stats.oldest is not None
    assert stats.newest is not None
    assert stats.oldest <= stats.newest <= time.time()
    assert cache.clear() == 10
    assert cache.stats().replies == 0
    assert cache.stats().bytes == 0


def test_two_who_ask_the_same_at_once_pay_once(file: Path) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(request: ChatRequest) -> str:
        begun.set()
        assert go.wait(30)
        return "slow"

    engine = Scripted(slow, model="m")
    lm = LM(engine, cache=file)
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(lm, "a") for _ in range(5)]
        assert begun.wait(30)
        go.set()
        assert [one.result(30) for one in asked] == ["slow"] * 5
    assert len(engine.requests) == 1
    assert lm.usage.cache_hits == 4


def test_the_next_asks_where_the_first_gave_up(file: Path) -> None:
    cache = ReplyCache(file)
    assert cache.take("k") == "ask"
    assert cache.take("k") == "wait"
    cache.give_up("k")
    assert cache.take("k") == "ask"


def test_a_lease_that_is_held_too_long_is_taken_over(file: Path) -> None:
    assert ReplyCache(file, lease_s=1e-6).take("k") == "ask"
    assert ReplyCache(file).take("k") == "ask"


@pytest.mark.parametrize("name", ["ttl_s", "max_bytes", "lease_s"])
def test_values_out_of_range_are_refused(file: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}=0 must be positive"):
        ReplyCache(file, **{name: 0})  # type: ignore[arg-type]


def test_the_raw_answer_is_kept_only_where_it_was_asked_for(file: Path) -> None:
    from sharpen.core.lm import ChatResponse, ThreadedEngine

    class Raw(ThreadedEngine):
        model = "raw"

        def __init__(self) -> None:
            self.capabilities: set[str] = set()

        def complete(self, request: ChatRequest) -> ChatResponse:
            return ChatResponse(["x"], raw={"much": 1})

    engine = CachedEngine(Raw(), ReplyCache(file))
    for sampling in ({}, {"logprobs": 1}):
        engine.complete(ChatRequest("a", **sampling))  # type: ignore[arg-type]
    assert engine.complete(ChatRequest("a")).raw is None
    assert engine.complete(ChatRequest("a", logprobs=1)).raw == {"much": 1}


# -- damaged files ---------------------------------------------------------------------------------


def _damage_header(file: Path) -> None:
    file.write_bytes(b"nonsense " * 1000)


def _raise_version(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version=99")


def _damage_pages(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    file.write_bytes(data)


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


@pytest.mark.parametrize("damage", [_damage_header, _raise_version, _damage_pages, _truncate])
def test_a_file_that_cannot_be_read_is_set_aside_with_a_word(
    file: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    cache = ReplyCache(file)
    lm = LM(counting(), cache=cache)
    lm.map([f"{i} {'x' * 500}" for i in range(50)])
    cache.close()
    for end in ("-wal", "-shm"):
        file.with_name(file.name + end).unlink(missing_ok=True)
    damage(file)
    before = file.read_bytes()
    engine = counting()
    with caplog.at_level(logging.WARNING):
        again = LM(engine, cache=file)
        assert again("new") == "reply to new"
    aside = file.with_name(file.name + ".aside-1")
    assert "set aside" in caplog.text
    assert str(aside) in caplog.text
    assert aside.read_bytes()[:4096] == before[:4096]
    assert LM(engine, cache=file)("new") == "reply to new"
    assert len(engine.requests) == 1


def test_threads_that_meet_the_damage_at_once_set_the_file_aside_once(file: Path) -> None:
    cache = ReplyCache(file)
    LM(counting(), cache=cache).map([f"{i} {'x' * 500}" for i in range(50)])
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    _damage_pages(file)
    engine = counting()
    lm = LM(engine, cache=cache)
    prompts = [f"new {i}" for i in range(40)]
    assert lm.map(prompts * 2, concurrency=16) == [f"reply to {p}" for p in prompts * 2]
    aside = {path.name for path in file.parent.glob("*.aside-*")}
    assert "replies.sqlite.aside-1" in aside
    assert not any(name.startswith("replies.sqlite.aside-2") for name in aside)
    assert LM(engine, cache=file).map(prompts)
    assert len(engine.requests) <= 2 * len(prompts)


def test_many_threads_wait_for_the_file_and_none_fails(file: Path) -> None:
    engine = counting()
    lm = LM(engine, cache=file)
    prompts = [str(i % 50) for i in range(500)]
    assert lm.map(prompts, concurrency=64) == [f"reply to {p}" for p in prompts]
    assert len(engine.requests) == 50


def test_a_reply_is_given_even_if_it_cannot_be_kept(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ReplyCache(file)
    lm = LM(counting(), cache=cache)
    lm("a")
    with sqlite3.connect(file) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    with cache._database.read() as connection:  # as on a disk that is full
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    big = "x" * 100_000
    assert lm(big) == f"reply to {big}"
    assert "could not be kept" in caplog.text
    assert lm("a") == "reply to a"


def test_files_of_others_are_refused_and_left_alone(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("my notes\n" * 1000)
    theirs = tmp_path / "theirs.sqlite"
    with sqlite3.connect(theirs) as connection:
        connection.execute("CREATE TABLE mine (x)")
    for file in (notes, theirs):
        before = file.read_bytes()
        with pytest.raises(FileFormatError, match="is no cache of replies"):
            ReplyCache(file)
        assert file.read_bytes() == before


def test_a_reply_that_cannot_be_read_is_asked_for_again(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    LM(counting(), cache=file)("a")
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE reply SET response = '{}'")
    engine = counting()
    assert LM(engine, cache=file)("a") == "reply to a"
    assert len(engine.requests) == 1
    assert "asked for again" in caplog.text


# -- processes -------------------------------------------------------------------------------------

WORKER = """
import os, random, sys, time
from sharpen.core.lm import LM, Scripted
folder, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
calls = os.open(folder + "/calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def reply(request):
    os.write(calls, f"begin {request.prompt}\\n".encode())
    time.sleep(0.01)
    os.write(calls, f"end {request.prompt}\\n".encode())
    return f"reply to {request.prompt}"
lm = LM(Scripted(reply, model="m"), cache=folder + "/replies.sqlite")
prompts = [str(i) for i in range(count)]
random.Random(seed).shuffle(prompts)
print("ready", flush=True)
for prompt in prompts:
    assert lm(prompt) == f"reply to {prompt}"
print("done", flush=True)
"""


def _start(folder: Path, seed: int, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WORKER, str(folder), str(seed), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_eight_processes_pay_for_each_reply_once(tmp_path: Path) -> None:
    workers = [_start(tmp_path, seed, 100) for seed in range(8)]
    for worker in workers:
        assert worker.communicate()[0] == "ready\ndone\n"
    calls = (tmp_path / "calls").read_text().splitlines()
    assert sorted(calls) == sorted(f"{w} {i}" for w in ("begin", "end") for i in range(100))


@pytest.mark.slow
def test_killed_processes_lose_at_most_what_was_under_way(tmp_path: Path) -> None:
    kills = 6
    workers = [_start(tmp_path, seed, 150) for seed in range(8)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for i in range(kills):
        time.sleep(0.1)
        workers[i].send_signal(signal.SIGKILL)
    for worker in workers[kills:]:
        assert worker.communicate()[0] == "done\n"
    for worker in workers[:kills]:
        worker.communicate()
    last = _start(tmp_path, 99, 150)
    assert last.communicate()[0] == "ready\ndone\n"
    calls = (tmp_path / "calls").read_text().splitlines()
    begun = [line for line in calls if line.startswith("begin")]
    ended = [line for line in calls if line.startswith("end")]
    assert set(ended) == {f"end {i}" for i in range(150)}
    # A call under way when its process dies may be paid for again, once for each kill.
    assert 150 <= len(begun) <= 150 + kills
    with sqlite3.connect(tmp_path / "replies.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = connection.execute("SELECT response FROM reply").fetchall()
    assert {json.loads(row[0])["texts"][0] for row in rows} == {f"reply to {i}" for i in range(150)}
