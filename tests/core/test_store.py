import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sharpen.core import sqlite as database_module
from sharpen.core.errors import (
    BusyError,
    ConfigError,
    FileFormatError,
    MissingFileError,
    StorageError,
)
from sharpen.core.feedback import Feedback, TextFeedback, TracePoint
from sharpen.core.store import Claim, Store, open_store


def study(store: Store, name: str = "s") -> int:
    return store.create_study(
        name, space={"a": 1}, objectives=[], constraints=[], seed=3, spec={"optimizer": "random"}
    ).id


def begin(store: Store, study_id: int, x: float = 0.5, limit: int | None = None) -> Claim:
    claim = store.claim(study_id, limit=limit, lease_s=60)
    assert claim is not None
    if claim.config is None:
        assert store.start(claim, {"x": x}, f"hash {x}", "test")
    return claim


def test_a_told_trial_reads_back_bit_for_bit(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s.db")
    study_id = study(store)
    value = 0.1 + 0.2
    feedback = Feedback(
        objectives={"loss": value, "other": -1e-308},
        constraints={"memory": 2.0**53 + 2},
        std={"loss": 0.1},
        gradients={"loss": {"x": 3.5}},
        text=(TextFeedback(body="too long", kind="critique", score=0.5),),
        trace=(TracePoint(1, 2.0, 0.25), TracePoint(2, 1.0, 0.5)),
        cost={"seconds": 1.5},
        info={"note": "ü", "list": [1, 2]},
    )
    claim = begin(store, study_id, value)
    assert store.finish(claim, feedback)
    store.close()
    (trial,) = open_store(f"sqlite:///{tmp_path / 's.db'}", create=False).trials(study_id)
    assert trial.feedback == feedback
    assert trial.config == {"x": value}
    assert (trial.number, trial.state, trial.origin, trial.attempt) == (0, "ok", "test", 1)


def test_values_that_are_not_finite_survive(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s.db")
    study_id = study(store)
    for value in (float("nan"), float("inf")):
        claim = begin(store, study_id)
        store.finish(claim, Feedback(objectives={"y": value}, trace=(TracePoint(0, value),)))
    nan, infinite = (t.feedback for t in store.trials(study_id))
    assert nan is not None
    assert infinite is not None
    assert nan.objectives["y"] != nan.objectives["y"]
    assert nan.trace[0].value != nan.trace[0].value
    assert infinite.objectives["y"] == float("inf")
    assert (nan.status, infinite.status) == ("failed", "failed")


def test_the_limit_counts_each_number_once_and_cancelled_ones_give_their_place_back() -> None:
    store = open_store("sqlite://")
    study_id = study(store)
    claims = [begin(store, study_id, limit=3) for _ in range(3)]
    assert [c.number for c in claims] == [0, 1, 2]
    assert store.claim(study_id, limit=3, lease_s=60) is None
    store.finish(claims[0], Feedback(objectives={"y": 1.0}))
    assert store.claim(study_id, limit=3, lease_s=60) is None
    store.cancel(claims[1])
    assert begin(store, study_id, limit=3).number == 3
    store.finish(claims[2], Feedback(status="failed"))
    assert store.claim(study_id, limit=3, lease_s=60) is None
    assert store.study("s").counts == {"ok": 1, "cancelled": 1, "failed": 1, "running": 1}


def test_queued_configurations_go_first_and_keep_their_number() -> None:
    store = open_store("sqlite://")
    study_id = study(store)
    begin(store, study_id)
    assert store.enqueue(study_id, [({"x": 1}, "a"), ({"x": 2}, "b")]) == [1, 2]
    first = store.claim(study_id, limit=2, lease_s=60)
    assert first is not None
    assert (first.number, first.config, first.origin) == (1, {"x": 1}, "enqueued")
    assert store.claim(study_id, limit=2, lease_s=60) is None
    second = store.claim(study_id, limit=None, lease_s=60)
    assert second is not None
    assert second.number == 2
    assert begin(store, study_id).number == 3


def test_an_expired_lease_queues_the_trial_again_and_ends_it_after_three_attempts() -> None:
    store = open_store("sqlite://")
    study_id = study(store)
    claim = store.claim(study_id, limit=1, lease_s=-1)
    assert claim is not None
    again = store.claim(study_id, limit=1, lease_s=60)
    assert again is not None
    assert (again.number, again.config) == (0, None)
    assert not store.start(claim, {"x": 9}, "late", "test")
    assert store.start(again, {"x": 1}, "h", "test")
    for attempt in (2, 3):
        store.renew([again], lease_s=-1)
        retry = store.claim(study_id, limit=1, lease_s=60)
        assert retry is not None
        assert (retry.number, retry.attempt, retry.config) == (0, attempt, {"x": 1})
        again = retry
    store.renew([again], lease_s=-1)
    assert store.claim(study_id, limit=1, lease_s=60) is None
    (trial,) = store.trials(study_id)
    assert trial.state == "failed"
    assert trial.feedback is not None
    assert "died 3 times" in str(trial.feedback.error)


def test_a_renewed_lease_is_kept() -> None:
    store = open_store("sqlite://")
    study_id = study(store)
    claim = store.claim(study_id, limit=1, lease_s=0.05)
    assert claim is not None
    store.start(claim, {"x": 1}, "h", "test")
    store.renew([claim], lease_s=60)
    time.sleep(0.06)
    assert store.claim(study_id, limit=1, lease_s=60) is None
    store.renew([], lease_s=60)


def test_a_late_result_counts_if_it_is_the_first_and_is_kept_beside_if_not() -> None:
    store = open_store("sqlite://")
    study_id = study(store)
    claim = begin(store, study_id)
    store.renew([claim], lease_s=-1)
    other = begin(store, study_id)
    assert other.number == claim.number
    assert store.finish(claim, Feedback(objectives={"y": 1.0}))
    assert not store.finish(other, Feedback(objectives={"y": 2.0}))
    (trial,) = store.trials(study_id)
    assert trial.feedback is not None
    assert trial.feedback.objectives == {"y": 1.0}
    assert trial.feedback.info == {"late": [{"y": 2.0}]}


def test_a_released_trial_is_queued_and_its_attempt_does_not_count() -> None:
    store = open_store("sqlite://")
    study_id = study(store)
    claim = begin(store, study_id)
    store.add_trace(claim, [TracePoint(0, 1.0, 0.1)])
    asking = store.claim(study_id, limit=None, lease_s=60)
    assert asking is not None
    store.release([claim, asking])
    store.release([claim])
    number = store.claim(study_id, limit=2, lease_s=60)
    assert number is not None
    assert (number.number, number.config) == (1, None)
    again = store.claim(study_id, limit=2, lease_s=60)
    assert again is not None
    assert (again.number, again.attempt, again.config) == (0, 1, {"x": 0.5})
    store.finish(again, Feedback(objectives={"y": 0.0}))
    (trial,) = store.trials(study_id, after=0)
    assert trial.feedback is not None
    assert trial.feedback.trace == ()


def test_only_what_is_new_is_read() -> None:
    store = open_store("sqlite://")
    study_id = study(store)
    first, second = begin(store, study_id), begin(store, study_id)
    store.finish(second, Feedback(objectives={"y": 2.0}))
    seen = store.trials(study_id, after=0)
    assert [(t.number, t.state) for t in seen] == [(0, "running"), (1, "ok")]
    store.finish(first, Feedback(objectives={"y": 1.0}))
    assert [t.number for t in store.trials(study_id, after=seen[1].revision)] == [0]


def test_studies_are_listed_looked_up_and_deleted() -> None:
    store = open_store("sqlite://")
    chaos, other = study(store, "chaos"), study(store, "other")
    assert study(store, "chaos") == chaos
    store.finish(begin(store, chaos), Feedback(objectives={"y": 1.0}))
    claim = begin(store, other)
    assert [r.name for r in store.studies()] == ["chaos", "other"]
    record = store.study("chaos")
    assert (record.counts, record.seed, record.spec) == ({"ok": 1}, 3, {"optimizer": "random"})
    with pytest.raises(ConfigError, match="Did you mean 'chaos'"):
        store.study("chao")
    store.delete_study("other")
    assert not store.finish(claim, Feedback(objectives={"y": 1.0}))
    assert [r.name for r in store.studies()] == ["chaos"]
    found = store.same_config(chaos, "hash 0.5")
    assert found is not None
    assert found.number == 0
    assert store.same_config(chaos, "nothing") is None


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("mysql://host/db", ConfigError, "kind 'mysql' is not supported"),
        ("sqlite://s.db", ConfigError, "lacks a slash"),
        ("{folder}", ConfigError, "is a folder"),
        ("{folder}/none.db", MissingFileError, "no such store"),
        ("{folder}/text.db", FileFormatError, "damaged"),
        ("{folder}/other.db", FileFormatError, "another program"),
        ("{folder}/newer.db", FileFormatError, "newer version"),
        ("/dev/null/s.db", StorageError, "cannot create|Not a directory"),
    ],
)
def test_a_store_that_cannot_be_opened_says_why(
    tmp_path: Path, url: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "text.db").write_bytes(b"this is no database" * 100)
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("create table t (a)")
    other.close()
    open_store(tmp_path / "newer.db").close()
    newer = sqlite3.connect(tmp_path / "newer.db")
    newer.execute("pragma user_version = 99")
    newer.close()
    with pytest.raises(error, match=message):
        open_store(url.format(folder=tmp_path), create=url.startswith("/dev"))


def test_a_damaged_page_is_reported_when_it_is_met(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = open_store(path)
    study_id = study(store)
    for x in range(50):
        store.finish(begin(store, study_id, x), Feedback(objectives={"y": float(x)}))
    assert store.is_whole()
    store.close()
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start : start + 2048] = b"\xff" * 2048
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=r"is damaged .* Restore it"):
        open_store(path).trials(study_id)


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "_file_system", lambda path: "nfs4")
    with pytest.raises(ConfigError, match="network file system"):
        open_store(tmp_path / "s.db")


def test_the_file_system_is_that_of_the_longest_mount_point() -> None:
    assert database_module._file_system(Path("/proc/self/x")) == "proc"


def test_a_locked_store_is_busy_and_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_BUSY_S", 0.2)
    path = tmp_path / "s.db"
    store = open_store(path)
    study_id = study(store)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(BusyError, match="locked by another program"):
        store.claim(study_id, limit=1, lease_s=60)
    other.execute("rollback")
    other.close()
    second = Store(path)
    with (
        second._database._turn(),
        pytest.raises(BusyError, match="Is one of its processes stopped"),
    ):
        store.claim(study_id, limit=1, lease_s=60)
    assert store.claim(study_id, limit=1, lease_s=60) is not None


def test_a_read_only_store_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.db"
    open_store(path).close()
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    with pytest.raises(StorageError, match="no permission to write"):
        open_store(path)


FULL = """
import resource, sys
from sharpen.core.errors import StorageError
from sharpen.core.feedback import Feedback
from sharpen.core.store import open_store
store = open_store(sys.argv[1])
study_id = store.create_study("s", space={}, objectives=[], constraints=[], seed=0, spec={}).id
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
told = 0
try:
    while told < 3000:
        claim = store.claim(study_id, limit=None, lease_s=60)
        store.start(claim, {"x": "v" * 300}, str(told), "t")
        store.finish(claim, Feedback(objectives={"y": float(told)}))
        told += 1
except StorageError as error:
    print(told, error)
"""


def test_a_full_disk_is_a_clear_error_and_loses_no_told_trial(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True
    )
    told, _, message = done.stdout.partition(" ")
    assert "Is the disk full? Free space" in message
    store = open_store(path)
    ended = [t for t in store.trials(store.study("s").id) if t.state == "ok"]
    assert len(ended) == int(told) > 10
    assert store.is_whole()


WORK = """
import sys
from sharpen.core.feedback import Feedback
from sharpen.core.store import open_store
store = open_store(sys.argv[1])
study_id = store.study("s").id
while (claim := store.claim(study_id, limit=int(sys.argv[2]), lease_s=60)) is not None:
    if claim.config is None:
        store.start(claim, {"x": claim.number}, str(claim.number), "t")
    print("begun", claim.number, flush=True)
    store.finish(claim, Feedback(objectives={"y": float(claim.number)}))
    print("told", claim.number, flush=True)
"""


def test_processes_that_share_a_store_divide_the_trials_and_take_none_twice(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s.db"
    study_id = study(open_store(path))
    command = [sys.executable, "-c", WORK, str(path), "120"]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    lines = [line for output in outputs for line in output.splitlines()]
    told = [int(line.split()[1]) for line in lines if line.startswith("told")]
    assert sorted(told) == list(range(120))
    trials = open_store(path).trials(study_id)
    assert [t.number for t in trials] == list(range(120))
    assert {t.state for t in trials} == {"ok"}


def test_threads_of_one_process_may_share_a_store(tmp_path: Path) -> None:
    for url in (tmp_path / "s.db", "sqlite://"):
        store = open_store(url)
        study_id = study(store)

        def work(store: Store = store, study_id: int = study_id) -> None:
            while (claim := store.claim(study_id, limit=40, lease_s=60)) is not None:
                store.start(claim, {"x": claim.number}, str(claim.number), "t")
                store.finish(claim, Feedback(objectives={"y": 1.0}))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [t.number for t in store.trials(study_id)] == list(range(40))


def test_a_forked_child_uses_a_connection_of_its_own(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s.db")
    study_id = study(store)
    begin(store, study_id)
    child = os.fork()
    if child == 0:
        try:
            store.finish(begin(store, study_id, 7.0), Feedback(objectives={"y": 7.0}))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    begin(store, study_id)
    assert [(t.number, t.state) for t in store.trials(study_id)] == [
        (0, "running"),
        (1, "ok"),
        (2, "running"),
    ]
    assert store.is_whole()


@pytest.mark.slow
def test_kills_at_random_moments_lose_no_told_trial(tmp_path: Path) -> None:
    import random

    path = tmp_path / "s.db"
    study_id = study(open_store(path))
    rng, told, kills = random.Random(0), set[int](), 0
    command = [sys.executable, "-c", WORK, str(path), "2000"]  # more than 8 x 0.05 s are enough for
    for _ in range(8):
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert worker.stdout is not None
        worker.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.05))
        worker.send_signal(signal.SIGKILL)
        lines = worker.communicate()[0].splitlines()
        kills += worker.returncode == -signal.SIGKILL
        # The last line may be cut; a whole one was printed after the trial was told.
        told |= {int(line.split()[1]) for line in lines[:-1] if line.startswith("told")}
        store = open_store(path)
        states = {t.number: t.state for t in store.trials(study_id)}
        assert told <= {number for number, state in states.items() if state == "ok"}
        assert store.is_whole()
        store.close()
    assert kills >= 5
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout
    trials = open_store(path).trials(study_id)
    assert [t.number for t in trials] == list(range(2000))
    assert {t.state for t in trials} <= {"ok", "failed"}
    assert sum(t.state == "ok" for t in trials) >= 1999
    for trial in trials:
        if trial.state == "ok":
            assert trial.feedback is not None
            assert trial.feedback.objectives == {"y": float(trial.number)}
