"""Inside of a bare interpreter: processor time of a sandboxed job, with parts of it left out.

    python -I -S fork_parts.py FOLDER_OF_OUR_SOURCE SCRATCH ROUNDS

Prints ``{part: [ms, ...]}``. Runs without our packages, whose memory would be forked too, so that
they are stood in for by empty ones that have the same folders. Each part is what it takes beyond
the one before; all are measured in turns.
"""

import importlib
import json
import os
import resource
import socket
import sys
import types

SOURCE, SCRATCH, ROUNDS = sys.argv[1], sys.argv[2], int(sys.argv[3])
JOBS = 100
LIMITS = {"cpu_s": 10.0, "wall_s": 30.0, "address_bytes": 4 << 30, "file_bytes": 16 << 20}
LIMITS |= {"open_files": 64, "processes": 16, "result_bytes": 64 << 20, "output_bytes": 1 << 20}
LIMITS |= {"scratch_bytes": 64 << 20}


def processor_s():
    """Of this process and of its children that ended."""
    used = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


def fork_and_wait():
    """A child that ends at once."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def spent_ms(work):
    """Milliseconds of processor time of one call."""
    begin = processor_s()
    for _ in range(JOBS):
        work()
    return (processor_s() - begin) / JOBS * 1e3


def main():
    """Measure all parts in turns."""
    found = {"bare": [spent_ms(fork_and_wait) for _ in range(ROUNDS)]}
    for name in ("sharpen", "sharpen.core", "sharpen.core.sandbox"):
        package = types.ModuleType(name)
        package.__path__ = [f"{SOURCE}/{name.replace('.', '/')}"]
        sys.modules[name] = package
    inside = importlib.import_module("sharpen.core.sandbox.inside.supervisor")
    codec = importlib.import_module("sharpen.core.sandbox.inside.codec")
    _, control = socket.socketpair()
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(SCRATCH, 65_533, 65_533)
    config = {"control": control.fileno(), "tier": 1, "role": "program", "scratch": SCRATCH}
    config |= {"read": ["/usr", "/lib", "/lib64", sys.base_prefix], "sys_path": [], "packages": []}
    config |= {"user": 65_533 if is_root else None, "reads_all": is_root, "tasks": None}
    config |= {"first_of_namespace": False, "has_keeper": False, "most_landlock": 99}
    supervisor = inside.Supervisor(config, control)
    supervisor.prepare()
    job = {"source": "def f(x):\n    return x + 1\n", "entry": "f", "names": codec.encode({})}
    job |= {"inputs": [(codec.encode((1,)), codec.encode({}))], "catch": False, "mutated": False}
    job |= {"clock": None, "call_limit": None, "digests": False, "limits": LIMITS}

    def whole():
        report = supervisor.run(job, [])
        assert report["exit_code"] == 0, report

    run_calls, become_job = inside.run_calls, inside.Supervisor._become_job

    def without_program():
        inside.run_calls = lambda job, fd: None
        whole()
        inside.run_calls = run_calls

    def outside_alone():
        inside.Supervisor._become_job = lambda *given: os._exit(0)
        whole()
        inside.Supervisor._become_job = become_job

    parts = {"modules": fork_and_wait, "outside": outside_alone}
    parts |= {"rights": without_program, "program": whole}
    for name in parts:
        found[name] = []
    for turn in range(ROUNDS):
        for name in parts if turn % 2 else reversed(parts):
            found[name].append(spent_ms(parts[name]))
    print(json.dumps(found))


main()
