"""Programs to show to our runner and to others: cheats, and harmless attempts to get out.

The right answer of a cheat is a failed test; one that passes has fooled its runner. An attempt
gives the list of what it got done, and its test passes where that is empty. They do nothing that
lasts, since some runners do not hold them: a file of this benchmark's own is written, a process of
its own sleeps for some seconds.
"""

from __future__ import annotations

__all__ = ["ATTEMPTS", "CHEATS", "EXPECTED", "SLEEP_S"]

EXPECTED = 7391
"""What ``f(1)`` should give."""

SLEEP_S = "20.7391"
"""How long the process that stays behind sleeps, by which it is found and ended."""

CHEATS = {
    "an object equal to all": """
class A:
    def __eq__(self, other): return True
def f(x): return A()
""",
    "an int equal to all": """
class A(int):
    def __eq__(self, other): return True
def f(x): return A(0)
""",
    "the answer read from the caller": """
import sys
def f(x):
    frame = sys._getframe(1)
    while frame is not None:
        if "expected" in frame.f_locals:
            return frame.f_locals["expected"][0]
        numbers = [c for c in frame.f_code.co_consts if type(c) is int]
        if frame.f_code.co_name == "check" and numbers:
            return max(numbers)
        frame = frame.f_back
""",
    "the verdict written by the program": """
import posix, sys
def f(x):
    frame = sys._getframe(1)
    while frame is not None:
        known = frame.f_locals
        if "result" in known and hasattr(known["result"], "append"):
            known["result"].append("passed")
            posix._exit(0)
        if "stat" in known and "details" in known:
            known["details"][0] = True
            known["progress"].value = 1
            known["stat"].value = 0
            posix._exit(0)
        frame = frame.f_back
""",
    "sys.exit(0)": "import sys\ndef f(x): sys.exit(0)\n",
    "os._exit(0)": "import os\ndef f(x): os._exit(0)\n",
    "a loop that swallows the time-out": """
def f(x):
    while True:
        try:
            while True: pass
        except BaseException: pass
""",
}

_HEAD = """
import io, posix, sys
done = []
def attempt(name, work):
    try:
        work()
    except (OSError, ImportError, ValueError, AttributeError, TypeError):
        return
    done.append(name)
"""

ATTEMPTS = {
    "reads a file of the machine": f"""{_HEAD}
def f():
    attempt("read", lambda: io.open("/etc/passwd").read(1))
    return done
""",
    "writes a file of the user": f"""{_HEAD}
def f():
    attempt("write", lambda: io.open("@FOLDER@/written-by-a-program", "w").close())
    return done
""",
    "finds a secret in the environment": f"""{_HEAD}
def f():
    if b"BENCH_SECRET" in posix.environ: done.append("secret")
    return done
""",
    "connects to a port of this machine": f"""{_HEAD}
import socket
def f():
    attempt("connect", lambda: socket.create_connection(("127.0.0.1", @PORT@), 1).close())
    return done
""",
    "may signal the process that runs it": f"""{_HEAD}
def f():
    attempt("signal", lambda: posix.kill(posix.getppid(), 0))
    return done
""",
    "may change the process that runs it": f"""{_HEAD}
def f():
    parent = posix.getppid()
    attempt("affinity", lambda: posix.sched_setaffinity(
        parent, posix.sched_getaffinity(parent)))
    return done
""",
    "leaves a process behind": f"""{_HEAD}
def f():
    if posix.fork() == 0:
        posix.setsid()
        if posix.fork() == 0:
            for fd in range(3): posix.close(fd)
            posix.execv("/bin/sleep", ["/bin/sleep", "{SLEEP_S}"])
        posix._exit(0)
    posix.wait()
    return done
""",
}
