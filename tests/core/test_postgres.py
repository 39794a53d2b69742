"""The store in a real PostgreSQL server, started for these tests."""

import gc
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import sharpen as sh
from postgres import Server, find_programs, running_server
from sharpen.core import postgres as postgres_module
from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError, StorageError
from sharpen.core.feedback import Feedback, TracePoint
from sharpen.core.leases import this_process
from sharpen.core.problem import TrialContext
from sharpen.core.store import Claim, Store, open_store
from sharpen.core.study_view import load_study

pytestmark = pytest.mark.skipif(find_programs() is None, reason="PostgreSQL is not installed")
SPACE = sh.Space(x=sh.Float(-5, 5), y=sh.Float(-5, 5))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as found:
        yield found


@pytest.fixture
def url(server: Server, request: pytest.FixtureRequest) -> str:
    return server.new_database(f"d{abs(hash(request.node.name))}")


def study(store: Store) -> int:
    return store.create_study(
        "s", space={"a": 1}, objectives=[], constraints=[], seed=3, spec={"optimizer": "random"}
    ).id


def begin(store: Store, study_id: int, x: float = 0.5, lease_s: float = 60) -> Claim:
    claim = store.claim(study_id, limit=None, lease_s=lease_s)
    assert claim is not None
    if claim.config is None:
        assert store.start(claim, {"x": x}, f"hash {x}", "test", fidelity=0.1, context={"w": "ü"})
    return claim


def sql(url: str, statement: str) -> None:
    engine = sa.create_engine(url.replace("postgresql", "postgresql+pg8000"))
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def test_a_told_trial_reads_back_bit_for_bit(url: str) -> None:
    store = open_store(url)
    study_id = study(store)
    feedback = Feedback(
        objectives={"loss": 0.1 + 0.2, "other": -1e-308},
        constraints={"memory": 2.0**53 + 2},
        trace=(TracePoint(1, float("nan"), 0.25), TracePoint(2, float("-inf"), 0.5)),
        cost={"seconds": 1.5},
        info={"note": "ü\0", "list": [1, 2]},
    )
    claim = begin(store, study_id, 0.1)
    store.add_trace(claim, feedback.trace[:1])
    store.add_trace(claim, [TracePoint(1, 5.0, 0.25)])
    assert store.finish(claim, feedback)
    store.close()
    (trial,) = open_store(url, create=False).trials(study_id)
    assert repr(trial.feedback) == repr(feedback)
    assert (trial.config, trial.fidelity, trial.context) == ({"x": 0.1}, 0.1, {"w": "ü"})
    assert open_store(url).is_whole()


def test_an_error_text_that_no_database_takes_is_stored_nevertheless(url: str) -> None:
    store = open_store(url)
    claim = begin(store, study(store))
    store.finish(claim, Feedback(status="failed", error="half \ud800 and \0 nothing"))
    (trial,) = store.trials(1)
    assert trial.feedback is not None
    assert trial.feedback.error == "half ? and ␀ nothing"


def test_leases_expire_by_the_servers_clock_and_dead_owners_are_known(url: str) -> None:
    store = open_store(url)
    study_id = study(store)
    first = begin(store, study_id, lease_s=0.05)
    time.sleep(0.1)
    again = begin(store, study_id)
    assert (again.number, again.attempt, again.config) == (0, 2, {"x": 0.5})
    assert not store.start(first, {}, "", "late")
    assert store.finish(again, Feedback(objectives={"y": 1.0}))
    assert not store.finish(first, Feedback(objectives={"y": 2.0}))
    (trial,) = store.trials(study_id)
    assert trial.feedback is not None
    assert trial.feedback.objectives == {"y": 1.0}
    assert trial.feedback.info == {"late": [{"y": 2.0}]}
    held = begin(store, study_id, 1.0)
    store.renew([held], lease_s=1000)
    pid, ticks, place = this_process().split(" ", 2)
    for owner, lost in (
        (f"{pid} {int(ticks) - 1} {place}", True),  # this machine, another process
        (f"{pid} {ticks} another-machine/pid:[1]", False),
    ):
        sql(url, f"UPDATE sharpen.trial SET lease_owner = '{owner}' WHERE number = 1")
        taken = begin(store, study_id, 2.0)
        assert (taken.number == 1) == lost
        store.finish(taken, Feedback(objectives={"y": 1.0}))
        sql(url, "UPDATE sharpen.trial SET state = 'running' WHERE number = 1")


def test_a_lost_answer_does_not_take_or_tell_anything_twice(url: str) -> None:
    store = open_store(url)
    study_id = study(store)
    real: Any = store._database.patiently

    def lossy(do: Any) -> Any:
        """Everything is done, its answer is lost, and it is done again."""
        do(False)
        return real(lambda again: do(True))

    store._database.patiently = lossy  # type: ignore[method-assign]
    claim = begin(store, study_id)
    assert store.finish(claim, Feedback(objectives={"y": 1.0}, trace=[TracePoint(1, 2.0)]))
    trials = store.trials(study_id)
    assert [(t.number, t.state) for t in trials] == [(0, "ok")]
    assert trials[0].feedback is not None
    assert trials[0].feedback.info == {}


WORK = """
import sys
from sharpen.core.feedback import Feedback
from sharpen.core.store import open_store
store = open_store(sys.argv[1])
study_id = store.study("s").id
while (claim := store.claim(study_id, limit=int(sys.argv[2]), lease_s=60)) is not None:
    if claim.config is None:
        store.start(claim, {"x": claim.number}, str(claim.number), "t")
    store.finish(claim, Feedback(objectives={"y": float(claim.number)}))
    print("told", claim.number, flush=True)
"""


def test_processes_and_threads_divide_the_trials_and_take_none_twice(url: str) -> None:
    store = open_store(url)
    study_id = study(store)
    command = [sys.executable, "-c", WORK, url, "90"]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]

    def work() -> None:
        while (claim := store.claim(study_id, limit=90, lease_s=60)) is not None:
            store.start(claim, {"x": claim.number}, str(claim.number), "t")
            store.finish(claim, Feedback(objectives={"y": 1.0}))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    for thread in threads:
        thread.join()
    assert [worker.returncode for worker in workers] == [0, 0]
    told = [int(line.split()[1]) for output in outputs for line in output.splitlines()]
    assert len(told) == len(set(told))
    trials = store.trials(study_id)
    assert [t.number for t in trials] == list(range(90))
    assert {t.state for t in trials} == {"ok"}
    assert sorted(t.revision for t in trials) == list(range(1, 91))


def test_a_forked_child_uses_a_connection_of_its_own(url: str) -> None:
    store = open_store(url)
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
    states = [(t.number, t.state) for t in store.trials(study_id)]
    assert states == [(0, "running"), (1, "ok"), (2, "running")]


@sh.problem(SPACE, minimize="loss")
def bowl(config: dict[str, Any], trial: TrialContext) -> float:
    time.sleep(0.02)
    return float(config["x"] ** 2 + config["y"] ** 2)


@pytest.mark.filterwarnings("ignore:unclosed <socket")  # that the driver leaves
def test_a_study_outlives_its_server(server: Server, url: str) -> None:
    whole = sh.Study(bowl, optimizer="random", store="sqlite://", budget=sh.Budget(trials=60)).run()
    study = sh.Study(bowl, optimizer="random", store=url, workers=2)
    for trials, how in ((30, signal.SIGINT), (60, signal.SIGQUIT)):  # shut down; crashed
        study.budget = sh.Budget(trials=trials)
        stopper = threading.Thread(target=_restart, args=(server, how))
        stopper.start()
        study.run()
        stopper.join()
    found = load_study(url, "bowl").trials()
    assert [t.number for t in found] == list(range(60))
    assert [t.state for t in found] == ["ok"] * 60
    assert [t.config for t in found] == [t.config for t in whole.trials()]
    gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed <socket")  # that the driver leaves
def test_a_server_that_hangs_up_on_a_new_connection_is_asked_again(
    server: Server, url: str
) -> None:
    real = sa.make_url(url)
    listener = socket.create_server(("127.0.0.1", 0))
    hung_up = 0

    def pipe(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        target.close()

    def serve() -> None:
        nonlocal hung_up
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                if hung_up < 2:
                    hung_up += 1
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.close()  # a reset
                    continue
                behind = socket.create_connection(("127.0.0.1", real.port or 5432))
                for ends in ((client, behind), (behind, client)):
                    threading.Thread(target=pipe, args=ends, daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    through = real.set(host="127.0.0.1", port=listener.getsockname()[1], query={})
    store = open_store(through.render_as_string(hide_password=False))
    assert study(store) == 1
    assert hung_up == 2
    store.close()
    listener.close()
    gc.collect()


def _restart(server: Server, how: signal.Signals) -> None:
    time.sleep(0.3)
    server.stop(how)
    time.sleep(1.0)
    server.start()


SCRIPT = """
import sys, time
import sharpen as sh
space = sh.Space(x=sh.Float(-5, 5), y=sh.Float(-5, 5))
@sh.problem(space, minimize="v", name="killed")
def objective(config):
    print("begun", flush=True)
    time.sleep(0.02)
    return config["x"] ** 2
sh.Study(objective, optimizer="random", store=sys.argv[1], budget=sh.Budget(trials=40)).run()
"""


def test_killed_processes_lose_nothing(url: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command, rng = [sys.executable, str(script), url], random.Random(1)
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(rng.randint(2, 8)):
            assert process.stdout.readline() == "begun\n"
        time.sleep(rng.uniform(0, 0.03))
        process.kill()
        process.communicate()
    subprocess.run(command, check=True, capture_output=True)
    found = load_study(url, "killed")
    assert [t.number for t in found.trials()] == list(range(40))
    assert found.counts() == {"ok": 40}


def test_stores_that_cannot_be_opened_say_why(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "_FIRST_S", 0.3)
    with pytest.raises(MissingFileError, match="holds no studies"):
        open_store(url, create=False)
    with pytest.raises(ConfigError, match=r"does not exist.*createdb"):
        open_store(server.url("nowhere"))
    with pytest.raises(StorageError, match="Is the server running"):
        open_store("postgresql://sharpen:secret@127.0.0.1:1/x")
    with pytest.raises(ConfigError, match=r"nobody.*does not exist|does not let this user in"):
        open_store(url.replace("sharpen@", "nobody@"))
    with pytest.raises(ConfigError, match="is no URL"):
        open_store("postgresql://host:port/x")
    open_store(url).close()
    sql(url, "CREATE USER guest")
    with pytest.raises(ConfigError, match=r"permission denied.*right to create a schema"):
        open_store(url.replace("sharpen@", "guest@"))
    sql(url, "UPDATE sharpen.format SET version = 99")
    with pytest.raises(FileFormatError, match="newer version"):
        open_store(url)


def test_a_password_is_never_shown(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    store = open_store(url.replace("sharpen@", "sharpen:secret@"))
    assert "secret" not in store.url
    assert "secret" not in repr(load_study_error(store))


def load_study_error(store: Store) -> Exception:
    try:
        store.study("none")
    except ConfigError as error:
        return error
    raise AssertionError


def test_a_store_of_the_first_format_is_read_and_written_on(url: str) -> None:
    store = open_store(url)
    study_id = study(store)
    store.finish(begin(store, study_id), Feedback(objectives={"y": 1.0}))
    store.close()
    for column in ("fidelity", "context"):
        sql(url, f"ALTER TABLE sharpen.trial DROP COLUMN {column}")
    sql(url, "UPDATE sharpen.format SET version = 1")
    store = open_store(url)
    begin(store, study_id)
    assert [(t.state, t.fidelity) for t in store.trials(study_id)] == [
        ("ok", None),
        ("running", 0.1),
    ]


def test_command_line_studies_live_there_too(url: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        f"name: cli\nstore: {url}\n"
        "command: 'python program.py {x}'\n"
        "space: {x: {type: float, low: 0, high: 1}}\nminimize: y\noptimizer: random\n"
        "budget: {trials: 3}\n"
    )
    program = "import json, sys; print(json.dumps({'y': float(sys.argv[1])}))"
    (tmp_path / "program.py").write_text(program)
    main = [sys.executable, "-m", "sharpen.cli.main", "search"]
    subprocess.run([*main, "run", str(tmp_path / "s.yaml")], check=True, capture_output=True)
    shown = subprocess.run(
        [*main, "show", "cli", "--store", url, "--json"], check=True, capture_output=True, text=True
    )
    assert json.loads(shown.stdout)["trials"] == {"ok": 3}
