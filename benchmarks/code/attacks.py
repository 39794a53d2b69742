"""Programs that try to get out, to cheat, or to stop whoever runs them.

Each defines ``f``. It either ends in one of some statuses, or gives the list of what it got done,
which must be empty. None of them does harm where it succeeds.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ATTACKS", "Attack"]


@dataclass(frozen=True, slots=True)
class Attack:
    """A program and how it should end."""

    name: str
    """What it tries."""

    source: str
    """It."""

    ends: tuple[str, ...] = ("ok",)
    """Statuses that are right; with ``ok`` its output is the list of what it got done."""

    slow: bool = False
    """Whether it takes all of its time limit."""


def _stopped(name: str, body: str, *ends: str, slow: bool = False) -> Attack:
    return Attack(name, body, ends, slow)


_TRIES = """
import os, sys
done = []
def attempt(name, work):
    try:
        work()
    except (OSError, ImportError, ValueError, AttributeError):
        return
    done.append(name)
"""


def _tries(name: str, body: str) -> Attack:
    return Attack(name, f"{_TRIES}\ndef f():\n{body}\n    return done\n")


_LIBC = "    import ctypes\n    libc = ctypes.CDLL(None, use_errno=True)\n"

ATTACKS: tuple[Attack, ...] = (
    # ---- taking all there is
    _stopped(
        "fork bomb",
        "import os\ndef f():\n    while True:\n        try:\n            os.fork()\n"
        "        except OSError:\n            pass\n",
        *("timeout", "wall_timeout", "killed", "memory"),
        slow=True,
    ),
    _stopped("infinite loop", "def f():\n    while True: pass\n", "timeout", slow=True),
    _stopped(
        "loop that swallows BaseException",
        "def f():\n    while True:\n        try:\n            while True: pass\n"
        "        except BaseException: pass\n",
        "timeout",
        slow=True,
    ),
    _stopped(
        "signals ignored",
        "import signal\ndef f():\n"
        "    for number in range(1, signal.NSIG):\n"
        "        try: signal.signal(number, signal.SIG_IGN)\n"
        "        except (OSError, ValueError): pass\n"
        "    while True: pass\n",
        "timeout",
        slow=True,
    ),
    _stopped(
        "sleeping instead of computing",
        "import time\ndef f():\n    time.sleep(1000)\n",
        "wall_timeout",
        slow=True,
    ),
    _stopped(
        "work in threads",
        "import threading\ndef spin():\n    while True: pass\ndef f():\n"
        "    for _ in range(4): threading.Thread(target=spin, daemon=True).start()\n"
        "    spin()\n",
        "timeout",
        slow=True,
    ),
    _stopped(
        "threads that go on after the result",
        "import threading\ndef spin():\n    while True: pass\ndef f():\n"
        "    threading.Thread(target=spin).start()\n    return []\n",
        "ok",
    ),
    _stopped(
        "memory, page by page",
        "def f():\n    kept = []\n    while True: kept.append(bytearray(1 << 20))\n",
        *("memory", "killed"),
    ),
    _stopped("memory at once", "def f():\n    return len(b'x' * (1 << 40))\n", "memory"),
    _stopped(
        "memory in many processes",
        "import os, time\ndef f():\n    for _ in range(8):\n        if os.fork() == 0:\n"
        "            kept = []\n            while True: kept.append(bytearray(1 << 20))\n"
        "    time.sleep(1)\n    return []\n",
        *("memory", "ok", "killed", "wall_timeout", "timeout"),
    ),
    _stopped(
        "an integer of a hundred million digits",
        "def f():\n    return 10 ** 10 ** 8\n",
        *("timeout", "memory", "killed"),
        slow=True,
    ),
    _stopped(
        "a regular expression that backtracks",
        "import re\ndef f():\n    return re.match(r'(a+)+$', 'a' * 60 + 'b')\n",
        "timeout",
        slow=True,
    ),
    _stopped(
        "deep recursion",
        "import sys\ndef f():\n    sys.setrecursionlimit(10**9)\n    return f()\n",
        *("killed", "memory", "error", "timeout"),
    ),
    _stopped(
        "a parser's stack",
        "def f():\n    return eval('(' * 100_000 + ')' * 100_000)\n",
        *("error", "memory", "killed"),
    ),
    _stopped(
        "C stack, by a repr of nested lists",
        "import sys\ndef f():\n    sys.setrecursionlimit(10**9)\n    x = []\n"
        "    for _ in range(10**5): x = [x]\n    return repr(x)\n",
        *("error", "memory", "killed"),
    ),
    _stopped(
        "output flood",
        "def f():\n    while True: print('x' * 10_000)\n",
        "output_limit",
    ),
    _stopped(
        "error flood",
        "import os\ndef f():\n    while True: os.write(2, b'x' * 10_000)\n",
        "output_limit",
    ),
    _stopped(
        "a huge result",
        "def f():\n    return ['x' * (1 << 20)] * 80\n",
        *("output_limit", "memory"),
    ),
    _stopped(
        "a huge file",
        "def f():\n    with open('big', 'wb') as file:\n"
        "        while True: file.write(b'x' * (1 << 20))\n",
        *("output_limit", "error", "memory"),
    ),
    _stopped(
        "many files",
        "def f():\n    n = 0\n    while True:\n        open(f'f{n}', 'w').close()\n"
        "        n += 1\n",
        *("output_limit", "timeout", "error", "memory"),
        slow=True,
    ),
    _stopped(
        "all of the scratch folder",
        "def f():\n    n = 0\n    while True:\n        with open(f'f{n}', 'wb') as file:\n"
        "            file.write(b'x' * (1 << 20))\n        n += 1\n",
        *("output_limit", "error", "memory"),
    ),
    _stopped(
        "folders in folders",
        "import os\ndef f():\n    for _ in range(3000):\n        os.mkdir('d')\n"
        "        os.chdir('d')\n"
        "    return []\n",
        *("ok", "output_limit"),
    ),
    # ---- getting out
    _tries(
        "reads what is not its own",
        "    import glob\n"
        "    for path in ('/etc/passwd', '/etc/shadow', '/etc/hostname', '/root/.bashrc',\n"
        "                 '/proc/1/environ', '/proc/self/environ', '/proc/1/maps',\n"
        "                 f'/proc/{os.getppid()}/mem', f'/proc/{os.getppid()}/environ',\n"
        "                 f'/proc/{os.getppid()}/cmdline', '/sys/kernel/profiling'):\n"
        "        attempt(path, lambda: open(path, 'rb').read(1))\n"
        "    for path in ('/', '/etc', '/home', '/root', '/proc', '/var', '/sys', '/dev'):\n"
        "        attempt(path, lambda: os.listdir(path))",
    ),
    _tries(
        "finds secrets in the environment",
        "    known = {'PATH', 'PYTHONHASHSEED', 'LC_ALL', 'PWD', 'OMP_NUM_THREADS',\n"
        "             'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'}\n"
        "    done.extend(set(os.environ) - known)",
    ),
    _tries(
        "opens connections",
        "    import socket\n"
        "    def connect(kind, address):\n"
        "        with socket.socket(kind, socket.SOCK_STREAM) as s:\n"
        "            s.settimeout(1)\n            s.connect(address)\n"
        "    attempt('IPv4', lambda: connect(socket.AF_INET, ('127.0.0.1', 22)))\n"
        "    attempt('IPv6', lambda: connect(socket.AF_INET6, ('::1', 22)))\n"
        "    attempt('outside', lambda: connect(socket.AF_INET, ('1.1.1.1', 53)))\n"
        "    attempt('abstract', lambda: connect(socket.AF_UNIX, '\\0/tmp/.X11-unix/X0'))\n"
        "    attempt('any socket', lambda: socket.socket().close())\n"
        "    attempt('datagrams', lambda: socket.socket(type=socket.SOCK_DGRAM).close())\n"
        "    attempt('netlink', lambda: socket.socket(16, socket.SOCK_RAW).close())\n"
        "    attempt('vsock', lambda: socket.socket(40, socket.SOCK_STREAM).close())\n"
        "    attempt('pair', lambda: socket.socketpair(socket.AF_INET))\n"
        "    attempt('names', lambda: socket.getaddrinfo('example.com', 80))",
    ),
    _tries(
        "writes where programs are read from",
        "    import json, tempfile\n"
        "    places = [os.path.dirname(json.__file__), os.path.dirname(os.__file__), sys.prefix,\n"
        "              '/usr', '/usr/lib', '/var/tmp', '/dev/shm', '/', '/etc', '/root', '/home']\n"
        "    places += [p for p in sys.path if os.path.isdir(p)]\n"
        "    for folder in places:\n"
        "        attempt(folder, lambda: open(f'{folder}/written-by-a-job', 'w').close())\n"
        "    attempt('changes json', lambda: open(json.__file__, 'a').close())\n"
        "    attempt('removes json', lambda: os.unlink(json.__file__))\n"
        "    attempt('renames json', lambda: os.rename(json.__file__, json.__file__ + '2'))\n"
        "    attempt('links', lambda: os.link(json.__file__, 'linked'))\n"
        "    attempt('modes', lambda: os.chmod(json.__file__, 0o666))",
    ),
    _tries(
        "signals its supervisor",
        "    import signal\n"
        "    for number in (0, signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL):\n"
        "        attempt(f'kill {number}', lambda: os.kill(os.getppid(), number))\n"
        "    attempt('group', lambda: os.killpg(os.getpgid(os.getppid()), 0))\n"
        + _LIBC
        + "    if libc.syscall(200, os.getppid(), 0) == 0: done.append('tkill')\n"
        "    if libc.syscall(234, os.getppid(), os.getppid(), 0) == 0: done.append('tgkill')\n"
        "    try:\n        fd = os.pidfd_open(os.getppid())\n"
        "    except OSError:\n        return done\n"
        "    attempt('pidfd', lambda: signal.pidfd_send_signal(fd, 0))",
    ),
    _tries(
        "signals all processes",
        "    import signal\n"
        "    for pid in range(1, 400):\n"
        "        if pid != os.getpid() and (pid != 1 or os.getppid() != 1):\n"
        "            attempt(f'kill {pid}', lambda: os.kill(pid, 0))",
    ),
    _tries(
        "limits, processors and priority of its supervisor",
        "    import resource\n"
        "    parent = os.getppid()\n"
        "    attempt('prlimit', lambda: resource.prlimit(parent, resource.RLIMIT_CPU, (1, 1)))\n"
        "    attempt('read prlimit', lambda: resource.prlimit(parent, resource.RLIMIT_CPU))\n"
        "    attempt('affinity', lambda: os.sched_setaffinity(parent, {0}))\n"
        "    attempt('priority', lambda: os.setpriority(os.PRIO_PROCESS, parent, 19))\n"
        "    attempt('all priorities', lambda: os.setpriority(os.PRIO_USER, 0, 19))\n"
        "    attempt('scheduler', lambda: os.sched_setscheduler(\n"
        "        parent, os.SCHED_BATCH, os.sched_param(0)))",
    ),
    _tries(
        "kernel objects that outlive it",
        _LIBC + "    for name, call in (('shared memory', lambda: libc.shmget(7, 4096, 0o1666)),\n"
        "                       ('message queue', lambda: libc.msgget(7, 0o1666)),\n"
        "                       ('semaphore', lambda: libc.semget(7, 1, 0o1666)),\n"
        "                       ('posix queue', lambda: libc.syscall(240, b'q', 66, 438, 0)),\n"
        "                       ('key', lambda: libc.syscall(248, b'user', b'k', b'v', 1, -4))):\n"
        "        if call() >= 0: done.append(name)",
    ),
    _tries(
        "system calls that only a debugger or root needs",
        _LIBC
        + "    for name, number in (('ptrace', 101), ('process_vm_readv', 310), ('bpf', 321),\n"
        "                         ('perf_event_open', 298), ('userfaultfd', 323),\n"
        "                         ('unshare', 272), ('keyctl', 250), ('process_madvise', 440),\n"
        "                         ('mount', 165), ('io_uring_setup', 425), ('setns', 308),\n"
        "                         ('open_by_handle_at', 304), ('fsopen', 430), ('kcmp', 312),\n"
        "                         ('memfd_create', 319), ('memfd_secret', 447),\n"
        "                         ('x32 getpid', 0x40000000 + 39), ('syslog', 103)):\n"
        "        argument = 0x10000000 if name == 'unshare' else 0\n"
        "        if libc.syscall(number, argument, 0, 0, 0, 0) >= 0 or ctypes.get_errno() != 1:\n"
        "            done.append(name)\n"
        "    if libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0) >= 0: done.append('clone')\n"
        "    if libc.syscall(435, 0, 0) >= 0 or ctypes.get_errno() != 38: done.append('clone3')",
    ),
    _tries(
        "becomes another user",
        "    attempt('root', lambda: os.setuid(0))\n"
        "    attempt('group', lambda: os.setgroups([0]))\n"
        "    attempt('chroot', lambda: os.chroot('.'))\n"
        "    attempt('device', lambda: os.mknod('device', 0o60666, 0x801))\n"
        "    attempt('limits', lambda: __import__('resource').setrlimit(\n"
        "        __import__('resource').RLIMIT_CPU, (10**6, 10**6)))",
    ),
    _stopped(
        "a daemon that stays",
        "import os, signal, time\ndef f():\n    if os.fork() == 0:\n        os.setsid()\n"
        "        if os.fork() == 0:\n"
        "            for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)\n"
        "            for fd in range(64):\n"
        "                try: os.close(fd)\n                except OSError: pass\n"
        "            time.sleep(1000)\n"
        "        os._exit(0)\n    os.wait()\n    return []\n",
        "ok",
    ),
    # ---- cheating
    _stopped("sys.exit", "import sys\ndef f():\n    sys.exit(0)\n", "error"),
    _stopped("os._exit", "import os\ndef f():\n    os._exit(0)\n", "error"),
    _stopped("SystemExit", "def f():\n    raise SystemExit\n", "error"),
    _stopped("exits while it is loaded", "import os\nos._exit(0)\n", "error"),
    _stopped(
        "an exception that cannot be shown",
        "class E(Exception):\n    def __str__(self): raise SystemExit(0)\n    __repr__ = __str__\n"
        "def f():\n    raise E\n",
        "error",
    ),
    _stopped(
        "an exception that never ends to be shown",
        "class E(Exception):\n    def __str__(self):\n        while True: pass\n"
        "def f():\n    raise E\n",
        "timeout",
        slow=True,
    ),
    _stopped(
        "a forged result",
        "import os\ndef f():\n    for fd in range(3, 64):\n"
        "        try: os.write(fd, b'\\x01\\0\\0\\0\\0\\0\\0\\0N')\n"
        "        except OSError: pass\n    return []\n",
        *("violation", "error"),
    ),
    _stopped(
        "rubbish as a result",
        "import os\ndef f():\n    for fd in range(3, 64):\n"
        "        try: os.write(fd, os.urandom(1000))\n"
        "        except OSError: pass\n    os._exit(0)\n",
        "violation",
    ),
    _stopped(
        "a result twice",
        "import os\ndef f():\n    if os.fork() == 0:\n        return []\n    os.wait()\n"
        "    return []\n",
        "ok",
    ),
    _stopped(
        "an exit hook that prints a result",
        "import atexit\natexit.register(print, 'passed')\ndef f():\n    return []\n",
        "ok",
    ),
    _tries(
        "finds what is expected in frames and objects",
        "    import gc\n"
        "    word = '1937-eldeen'\n"
        "    frame = sys._getframe()\n"
        "    while frame is not None:\n"
        "        if word in repr(frame.f_locals)[::-1]: done.append('frame')\n"
        "        frame = frame.f_back\n"
        "    for thing in gc.get_objects():\n"
        "        try:\n"
        "            if type(thing) in (list, tuple, dict) and len(thing) < 50 and (\n"
        "                word in repr(thing)[::-1]):\n"
        "                done.append('object')\n"
        "        except Exception: pass",
    ),
    _stopped(
        "built-ins replaced",
        "import builtins, sys, time\n"
        "for name in ('len', 'isinstance', 'type', 'open', 'repr', 'bytes', 'memoryview', 'str'):\n"
        "    setattr(builtins, name, lambda *a, **k: None)\n"
        "time.time = time.monotonic = time.process_time = lambda: 0\n"
        "def f():\n    return []\n",
        *("ok", "error", "violation"),
    ),
    _tries(
        "looks for tests and projects",
        "    for folder in ('/work', '/home', '/root', '/srv', '/opt', '/mnt', '/tmp/..'):\n"
        "        for here, _, names in os.walk(folder):\n"
        "            done.extend(n for n in names if n.startswith('test_'))\n"
        "            if len(done) > 3: break",
    ),
    _stopped(
        "test frameworks replaced",
        "import sys, types, unittest\n"
        "unittest.TestCase.assertEqual = lambda *a: None\n"
        "fake = sys.modules['pytest'] = types.ModuleType('pytest')\n"
        "fake.raises = fake.approx = lambda *a: None\n"
        "def f():\n    return []\n",
        "ok",
    ),
    _stopped(
        "modules replaced",
        "import sys\nfor name in list(sys.modules): sys.modules[name] = None\n"
        "def f():\n    sys.modules.clear()\n    return []\n",
        *("ok", "error"),
    ),
    _stopped(
        "an import hook",
        "import sys\nclass Hook:\n    def find_spec(self, *a):\n        raise SystemExit(0)\n"
        "sys.meta_path.insert(0, Hook())\ndef f():\n    import asyncio\n    return []\n",
        "error",
    ),
    _stopped(
        "counters stopped",
        "import sys\ndef f():\n    sys.settrace(None)\n    sys.setprofile(None)\n    return []\n",
        "ok",
    ),
)
"""All of them; what takes its whole time limit is marked."""
