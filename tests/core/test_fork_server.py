import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from sharpen.core.errors import ExecutionError
from sharpen.core.fork_server import ForkedProcess, start_process
from sharpen.core.huge_pages import worker_environment
from sharpen.core.stage import find_stage_type, stage_type_names

PRELOAD = ("forked", "no_such_module")
ARGUMENT = {"a": [1, None, "é" * 100_000]}


def told(**options: Any) -> dict[str, Any]:
    """What a process says of itself."""
    reader, writer = os.pipe()
    with os.fdopen(reader) as file:
        process = start_process(
            "forked:tell", ARGUMENT, descriptors=[writer], preload=PRELOAD, **options
        )
        os.close(writer)
        found: dict[str, Any] = json.load(file)
        assert process.wait(60) == 5
    assert found["pid"] == process.pid
    return found


def test_processes_are_copies_of_one_that_has_loaded_what_they_need() -> None:
    first, second = told(), told()
    assert first["argument"] == ARGUMENT
    assert first["loaded_by"] == second["loaded_by"]
    assert first["loaded_by"] in [child.pid for child in psutil.Process().children()]
    assert first["pid"] != second["pid"]
    for one, another in zip(first["drawn"], second["drawn"], strict=True):
        assert one != another
    assert first["input"] == ""
    assert first["interrupt"]
    assert first["open"] == [0, 1, 2, *first["open"][3:5]]  # the one it was given, and the list


def test_a_process_is_where_its_caller_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = told()
    assert here["folder"] == str(Path.cwd())
    assert here["variable"] is None
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORKED", "yes")
    there = told(own_group=True)
    assert there["folder"] == str(tmp_path)
    assert there["variable"] == "yes"
    assert there["group"] == there["pid"]
    assert here["group"] == os.getpgid(0)
    assert told(environment={"FORKED": "given"})["variable"] == "given"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        assert told()["files"] == soft - 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_output_goes_where_the_caller_says(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        told(output=file.fileno())
    told()
    assert (tmp_path / "out").read_text() == "printed\n"


@pytest.mark.parametrize(
    ("how", "code"), [("", 0), ("raise", 1), ("exit", 7), ("kill", -signal.SIGKILL)]
)
def test_its_end_is_told(how: str, code: int, capfd: pytest.CaptureFixture[str]) -> None:
    process = start_process("forked:end", how, preload=PRELOAD)
    assert process.wait(60) == code
    assert process.poll() == process.wait() == code
    assert ("RuntimeError: on purpose" in capfd.readouterr().err) == (how == "raise")


def _asleep() -> ForkedProcess:
    return start_process("forked:end", "sleep", preload=PRELOAD)


def test_it_runs_until_it_is_ended() -> None:
    process = _asleep()
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.terminate()
    assert process.wait(60) == -signal.SIGTERM
    process.kill()


def test_without_its_server_it_ends_and_the_next_gets_another() -> None:
    process = _asleep()
    server = psutil.Process(process.pid).parent()
    assert server is not None
    server.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert told()["loaded_by"] != server.pid


CALLER = """
import sys, time
sys.path.insert(0, {tests!r})
from sharpen.core.fork_server import start_process
processes = [start_process("forked:end", "sleep", preload=["forked"]) for _ in range(2)]
print(*[process.pid for process in processes], flush=True)
time.sleep(600)
"""


def test_processes_end_with_their_caller() -> None:
    tests = str(Path(__file__).parents[1])
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER.format(tests=tests)], stdout=subprocess.PIPE, text=True
    )
    with caller:
        assert caller.stdout is not None
        pids = [int(word) for word in caller.stdout.readline().split()]
        family = psutil.Process(caller.pid).children(recursive=True)
        assert {one.pid for one in family} > set(pids)
        caller.kill()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []


def test_a_forked_caller_has_servers_of_its_own() -> None:
    process = _asleep()
    pid = os.fork()
    if pid == 0:
        os._exit(told()["loaded_by"] == psutil.Process(process.pid).ppid())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert process.poll() is None
    process.kill()
    assert process.wait(60) == -signal.SIGKILL


def _start_for(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, seconds)
    start_process("forked:end", "sleep", preload=["slow_to_load"])


def test_an_interrupted_caller_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_to_load.py").write_text("import time\ntime.sleep(0.5)\n")
    monkeypatch.syspath_prepend(tmp_path)
    server = psutil.Process(told()["loaded_by"])

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    kept = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            _start_for(0.2)
    finally:
        signal.signal(signal.SIGALRM, kept)
    assert told()["loaded_by"] == server.pid
    assert psutil.wait_procs(server.children(), timeout=20)[1] == []


def test_no_server_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(ExecutionError, match="no process can be started: /bin/false"):
        told()


LOADED = """
import importlib, os, sys
for name in {names!r}:
    importlib.import_module(name)
import torch
assert len(os.listdir("/proc/self/task")) == 1
assert not torch.cuda.is_initialized()
print({{"torch._dynamo", "sympy", "pandas", "scipy"}} & set(sys.modules))
"""


def test_what_stages_load_survives_a_fork_and_leaves_out_what_is_slow() -> None:
    names = [name for stage in stage_type_names() for name in find_stage_type(stage).loads]
    assert "sharpen.train.run" in names
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(names=names)],
        env={**worker_environment(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")
