"""What the operating system is asked to withhold from a reader's process. Imports nothing of ours.

Every measure is tried after it was taken, and only what then holds is reported: "none" where the kernel does not give it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import socket
import struct
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 1, 4, 22, 38, 39
"""Source: prctl(2)."""

CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
"""Source: unshare(2)."""

LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
LANDLOCK_FILES_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many kinds of access to files each version of Landlock's interface knows; later ones as the last.
Source: linux/landlock.h."""

LANDLOCK_READ = 1 << 2 | 1 << 3

SECCOMP_FILTER, SECCOMP_ALLOW, SECCOMP_ERRNO = 2, 0x7FFF0000, 0x00050000
EACCES = 13
X32 = 0x40000000
"""System calls from here on are those of the x32 interface, which would go around the list below."""

# socket, connect, bind, sendto, sendmsg, socketpair; execve, execveat; ptrace, process_vm_readv, process_vm_writev;
# io_uring_setup, which does most of these by another way; pidfd_getfd.
FORBIDDEN = {
    "x86_64": (0xC000003E, (41, 42, 49, 44, 46, 53, 59, 322, 101, 310, 311, 425, 438)),
    "aarch64": (0xC00000B7, (198, 203, 200, 206, 211, 199, 221, 281, 117, 270, 271, 425, 438)),
}
"""Per machine: its number for audits, and the system calls that no reader needs. Source: linux/audit.h, asm/unistd.h."""


def isolate(*, memory_bytes: int, open_files: int, readable: Iterable[str]) -> dict[str, str]:
    """Give up what a reader does not need, for good. Returns what of it holds.

    `readable` are the folders of the libraries, from which a module may still be imported. One thread only: a thread that was
    there before would keep what it had.
    """
    limits = {
        "memory": _limit("RLIMIT_AS", memory_bytes),
        "open_files": _limit("RLIMIT_NOFILE", open_files),
        "written_bytes": _limit("RLIMIT_FSIZE", 0),
    }
    _limit("RLIMIT_CORE", 0)
    holds = dict(limits)
    if sys.platform != "linux":
        return {**holds, "privileges": "none", "files": "none", "network": "none"}
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    without_privileges = libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1
    network = [name for name, holding in (("namespace", _leave_network(libc)), ("seccomp", _forbid_calls(libc))) if holding]
    return {
        **holds,
        "privileges": "no new ones" if without_privileges else "none",
        "files": "landlock" if _forbid_files(libc, readable) else "none",
        "network": ", ".join(network) or "none",
    }


def die_with_parent(parent_pid: int) -> bool:
    """Have this process killed when its parent dies. Returns whether the parent is still there."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent_pid


def allow_processor_time(seconds: int) -> None:
    """Let this process run for so long from now on; then it is killed with SIGXCPU."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    with suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        # The kernel counts whole seconds.
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds + 1, hard))


def _limit(name: str, value: int) -> str:
    kind = getattr(resource, name, None)
    if kind is None:
        return "none"
    with suppress(ValueError, OSError):
        resource.setrlimit(kind, (value, value))
    return str(value) if resource.getrlimit(kind) == (value, value) else "none"


def _leave_network(libc: ctypes.CDLL) -> bool:
    """Move into a network namespace of its own, in which there is nothing to connect to."""
    before = os.readlink("/proc/self/ns/net")
    # Without privileges it takes a user namespace, which some systems forbid; root may do without one.
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC) != 0:
        libc.unshare(CLONE_NEWNET)
    return os.readlink("/proc/self/ns/net") != before


def _forbid_calls(libc: ctypes.CDLL) -> bool:
    """Make the kernel refuse the calls that open a socket, start a program or look into another process."""
    known = FORBIDDEN.get(platform.machine())
    if known is None:
        return False
    machine, calls = known
    # Classic BPF over struct seccomp_data (nr at 0, arch at 4): (code, jump if true, jump if false, value).
    program = [(0x20, 0, 0, 4), (0x15, 0, len(calls) + 3, machine), (0x20, 0, 0, 0), (0x35, len(calls) + 1, 0, X32)]
    program += [(0x15, len(calls) - number, 0, call) for number, call in enumerate(calls)]
    program += [(0x06, 0, 0, SECCOMP_ALLOW), (0x06, 0, 0, SECCOMP_ERRNO | EACCES)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    libc.prctl(PR_SET_SECCOMP, SECCOMP_FILTER, header, 0, 0)
    try:
        socket.socket().close()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _forbid_files(libc: ctypes.CDLL, readable: Iterable[str]) -> bool:
    """Let nothing be opened any more but the libraries' own files, for reading; no TCP, no signals to others."""
    abi = libc.syscall(LANDLOCK_CREATE, None, 0, 1)
    if abi < 1:
        return False
    kinds = LANDLOCK_FILES_BY_ABI[min(abi, max(LANDLOCK_FILES_BY_ABI))]
    words = [(1 << kinds) - 1, *([3] if abi >= 4 else []), *([3] if abi >= 6 else [])]
    attributes = ctypes.create_string_buffer(struct.pack(f"{len(words)}Q", *words), 8 * len(words))
    rules = libc.syscall(LANDLOCK_CREATE, attributes, 8 * len(words), 0)
    if rules < 0:
        return False
    for name in readable:
        try:
            place = os.open(name, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        access = LANDLOCK_READ if os.path.isdir(name) else LANDLOCK_READ & ~(1 << 3)
        libc.syscall(LANDLOCK_ADD, rules, 1, ctypes.create_string_buffer(struct.pack("=Qi", access, place), 12), 0)
        os.close(place)
    libc.syscall(LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)
    try:
        os.close(os.open("/", os.O_RDONLY))
    except PermissionError:
        return True
    return False


def weakest(reports: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What held in every one of several processes."""
    merged: dict[str, str] = {}
    for report in reports:
        for name, value in report.items():
            merged[name] = value if merged.get(name, value) == value else "none"
    return merged
