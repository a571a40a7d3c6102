"""The system calls that the resolver may make, as an allow-list for seccomp.

Owns the list. What is not on it fails with EPERM (never kills: an unusual libc call must not end the
resolver, and none of those left out is needed). Invariant: no process, no program, no thread,
no listening, no file written, no socket but UNIX, IPv4 and IPv6; nothing that reaches another process.
"""

from __future__ import annotations

import errno
import os
import socket
from types import ModuleType

_ALLOWED = (
    # memory
    "brk", "mmap", "munmap", "mprotect", "mremap", "madvise",
    # descriptors that are open already, and looking at files
    "read", "readv", "pread64", "write", "writev", "close", "close_range", "lseek", "dup", "dup2", "dup3",
    "fcntl", "ioctl", "stat", "fstat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2",
    "getcwd", "readlink", "readlinkat", "getdents64", "pipe2", "eventfd2", "socketpair",
    # sockets
    "bind", "connect", "accept", "accept4", "getsockname", "getpeername", "getsockopt", "setsockopt",
    "shutdown", "recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg", "sendmmsg",
    # waiting and time
    "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select",
    "pselect6", "futex", "sched_yield", "nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres",
    "gettimeofday", "time", "restart_syscall",
    # itself
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "getpid", "getppid", "gettid", "getuid",
    "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups", "getrandom", "getrusage", "times",
    "uname", "sysinfo", "sched_getaffinity", "getrlimit", "rseq", "set_robust_list", "tgkill", "exit",
    "exit_group",
)  # fmt: skip


def load_filter(seccomp: ModuleType) -> None:
    """Load the filter for this process; ``seccomp`` is libseccomp's Python binding.

    Names that this architecture or libseccomp does not know are left out, that is: not allowed.
    """
    arg = seccomp.Arg
    filtered = seccomp.SyscallFilter(defaction=seccomp.ERRNO(errno.EPERM))
    for name in _ALLOWED:
        _allow(seccomp, filtered, name)
    for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
        _allow(seccomp, filtered, "socket", arg(0, seccomp.EQ, int(family)))
    read_only = (seccomp.MASKED_EQ, os.O_ACCMODE | os.O_CREAT | os.O_TRUNC, os.O_RDONLY)
    _allow(seccomp, filtered, "openat", arg(2, *read_only))
    _allow(seccomp, filtered, "open", arg(1, *read_only))
    _allow(seccomp, filtered, "prlimit64", arg(2, seccomp.EQ, 0))  # to look, not to set
    filtered.load()


def _allow(seccomp: ModuleType, filtered: object, name: str, *conditions: object) -> None:
    try:
        number = seccomp.resolve_syscall(seccomp.Arch(), name)
    except (RuntimeError, ValueError):
        return
    if number >= 0:
        filtered.add_rule(seccomp.ALLOW, name, *conditions)  # type: ignore[attr-defined]
