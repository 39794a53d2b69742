"""A filter of system calls, as the bytes of a classic BPF program (``<linux/seccomp.h>``).

A call with another architecture's numbers ends the process; so does none of this one's, but x32
numbers, which name the same calls a second time on x86-64, are refused. Refused calls fail with
``EPERM``. What this closes is what file rules and namespaces leave open: tracing and reading other
processes, kernel modules, mounts, sockets, kernel objects that outlive a job, and changes to the
limits, processors and priorities of processes outside.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass

from sharpen.core.sandbox.inside.linux import LIBC, syscall

__all__ = [
    "ARCHITECTURES",
    "DENIED",
    "install",
    "own_signals_filter",
    "program_filter",
    "supported",
]

# Numbers of a call: x86-64, arm64 (from 424 on they are the same).
DENIED: dict[str, tuple[int | None, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "listmount": (458, 458),
    "lookup_dcookie": (212, 18),
    "memfd_create": (319, 279),  # memory that no limit of a process counts
    "memfd_secret": (447, 447),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "msgget": (68, 186),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "semget": (64, 190),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "setpriority": (141, 140),
    "settimeofday": (164, 170),
    "shmget": (29, 194),
    "socket": (41, 198),
    "statmount": (457, 457),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
_OF_ITSELF = {  # their first argument, a process, must be 0: the caller
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
}
_SIGNALS = {
    "kill": (62, 129),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "tgkill": (234, 131),
}
_SIGNALS_DENIED = {"pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "tkill": (200, 130)}
_CLONE, _CLONE3, _IOCTL, _SOCKETPAIR, _SECCOMP = (56, 220), 435, (16, 29), (53, 199), (317, 277)

_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_AF_UNIX, _TIOCSTI, _TIOCLINUX = 1, 0x5412, 0x541C
_X32 = 0x40000000

# <linux/audit.h>; the place of an architecture's numbers in the tables
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

# <linux/bpf_common.h>
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_REFUSE, _UNKNOWN = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS


@dataclass(frozen=True, slots=True)
class _Step:
    """An instruction; where it jumps on, as a number of instructions that are passed over."""

    code: int
    value: int
    if_true: int = 0
    if_false: int = 0

    def packed(self) -> bytes:
        return struct.pack("=HBBI", self.code, self.if_true, self.if_false, self.value)


def _argument(index: int) -> _Step:
    """Load the low half of an argument: the kernel reads these as 32-bit numbers."""
    return _Step(_LOAD, _ARGUMENTS + 8 * index)


def _head(machine: str) -> list[_Step]:
    architecture, place = ARCHITECTURES[machine]
    steps = [
        _Step(_LOAD, _ARCHITECTURE),
        _Step(_EQUAL, architecture, 1),
        _Step(_RETURN, _KILL_PROCESS),
        _Step(_LOAD, _NUMBER),
    ]
    if place == 0:
        steps += [_Step(_AT_LEAST, _X32, 0, 1), _Step(_RETURN, _REFUSE)]
    return steps


def _refuse(number: int) -> list[_Step]:
    return [_Step(_EQUAL, number, 0, 1), _Step(_RETURN, _REFUSE)]


def _when(number: int, body: list[_Step]) -> list[_Step]:
    """Steps for one call alone; the last of them returns."""
    return [_Step(_EQUAL, number, 0, len(body)), *body]


def _first_is(number: int, allowed: tuple[int, ...]) -> list[_Step]:
    """Allow a call only when its first argument is one of some."""
    tests = [_Step(_EQUAL, value, len(allowed) - i) for i, value in enumerate(allowed)]
    body = [_argument(0), *tests, _Step(_RETURN, _REFUSE), _Step(_RETURN, _ALLOW)]
    return _when(number, body)


def program_filter(machine: str) -> bytes:
    """The filter of a sandbox and all its jobs.

    Args:
        machine: as ``os.uname().machine`` says.
    """
    place = ARCHITECTURES[machine][1]
    steps = _head(machine)
    for numbers in DENIED.values():
        number = numbers[place]
        if number is not None:
            steps += _refuse(number)
    for numbers in _OF_ITSELF.values():
        steps += _first_is(numbers[place], (0,))
    steps += _first_is(_SOCKETPAIR[place], (_AF_UNIX,))
    body = [
        _argument(0),
        _Step(_ANY_BIT, _NEW_NAMESPACES, 0, 1),
        _Step(_RETURN, _REFUSE),
        _Step(_RETURN, _ALLOW),
    ]
    steps += _when(_CLONE[place], body)
    # Its flags are in memory, out of a filter's sight; libraries fall back to clone.
    steps += _when(_CLONE3, [_Step(_RETURN, _UNKNOWN)])
    body = [
        _argument(1),
        _Step(_EQUAL, _TIOCSTI, 1),
        _Step(_EQUAL, _TIOCLINUX, 0, 1),
        _Step(_RETURN, _REFUSE),
        _Step(_RETURN, _ALLOW),
    ]
    steps += _when(_IOCTL[place], body)
    return b"".join(s.packed() for s in [*steps, _Step(_RETURN, _ALLOW)])


def own_signals_filter(machine: str, pid: int) -> bytes:
    """A second filter for a job where signals are not scoped: only itself may be signalled.

    Args:
        machine: as ``os.uname().machine`` says.
        pid: of the job.
    """
    place = ARCHITECTURES[machine][1]
    steps = _head(machine)
    for numbers in _SIGNALS_DENIED.values():
        steps += _refuse(numbers[place])
    for numbers in _SIGNALS.values():
        steps += _first_is(numbers[place], (0, pid))
    return b"".join(s.packed() for s in [*steps, _Step(_RETURN, _ALLOW)])


def supported() -> bool:
    """Whether this machine's calls are known and its kernel has filters."""
    machine = os.uname().machine
    if machine not in ARCHITECTURES:
        return False
    action = struct.pack("=I", _KILL_PROCESS)
    number = _SECCOMP[ARCHITECTURES[machine][1]]
    try:
        syscall(number, ctypes.c_uint(2), ctypes.c_uint(0), action)  # GET_ACTION_AVAIL
    except OSError:
        return False
    return True


def install(program: bytes) -> None:
    """Take a filter on, for all threads of this process; ``no_new_privileges`` comes first.

    Raises:
        OSError: the kernel refuses.
    """
    held = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(held))
    number = _SECCOMP[ARCHITECTURES[os.uname().machine][1]]
    set_filter, all_threads = ctypes.c_uint(1), ctypes.c_uint(1)
    result = int(LIBC.syscall(ctypes.c_long(number), set_filter, all_threads, header))
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"seccomp: {os.strerror(code)}")
