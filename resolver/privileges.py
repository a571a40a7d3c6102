"""Gives every privilege up, for good, before the first hostile byte is read (invariant 6).

Owns the order: bounding set, groups, ids, capabilities, no_new_privs, seccomp. Never takes anything
back. Invariant: ``drop`` returns only if the kernel itself says that nothing is left.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
from pathlib import Path

from resolver.syscalls import load_filter

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 4, 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_EINVAL = 22


class PrivilegesKept(Exception):
    """Something could not be given up; the text says what. Do not serve."""


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def drop(uid: int, gid: int | None = None) -> bool:
    """Become ``uid`` without any capability; return whether seccomp could be loaded too.

    As root everything goes: the bounding set, supplementary groups, ids. Started by another user
    (a container), the ids are what they are and the rest goes. Raises ``PrivilegesKept``.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _raise_descriptors()
    _prctl(libc, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    if os.geteuid() == 0:
        _empty_bounding_set(libc)
        group = uid if gid is None else gid
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(uid, uid, uid)
    _empty_capabilities(libc)
    _prctl(libc, _PR_SET_DUMPABLE, 0)  # nobody of this uid looks into our memory
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    is_filtered = _filter_syscalls()
    _check(Path("/proc/self/status").read_text("ascii", "replace"))
    return is_filtered


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise PrivilegesKept(f"prctl({option}, {value}): {os.strerror(code)}")


def _empty_bounding_set(libc: ctypes.CDLL) -> None:
    for capability in range(64):
        if libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) != 0:
            code = ctypes.get_errno()
            if code == _EINVAL:
                return  # beyond the last one that this kernel knows
            raise PrivilegesKept(f"capability {capability} stays in the bounding set: {os.strerror(code)}")


def _empty_capabilities(libc: ctypes.CDLL) -> None:
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    if libc.capset(ctypes.byref(header), ctypes.byref((_CapData * 2)())) != 0:
        raise PrivilegesKept(f"capset: {os.strerror(ctypes.get_errno())}")


def _raise_descriptors() -> None:
    """Each open question and connection is a descriptor: take as many as the host lets us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _filter_syscalls() -> bool:
    """Load the filter where libseccomp's Python binding is installed."""
    try:
        seccomp = importlib.import_module("seccomp")
    except ImportError:
        return False
    load_filter(seccomp)
    return True


def _check(status: str) -> None:
    """Believe the kernel only."""
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        if int(fields[name], 16) != 0:
            raise PrivilegesKept(f"{name} is {fields[name].strip()} still")
    if fields["NoNewPrivs"].strip() != "1":
        raise PrivilegesKept("no_new_privs is not set")
    if "0" in fields["Uid"].split():
        raise PrivilegesKept("still root; say in dns.user who the resolver is to run as")
