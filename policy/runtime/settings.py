"""Load one node's settings: the file, the environment over it, and the checks between keys.

Owns ``load_settings``; the keys are in ``policy.runtime.sections``. A ``Settings`` exists only if
everything in the file and the environment was understood; otherwise every mistake is listed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

import msgspec

from policy.runtime.reader import Problem, Reader, leaves, overlay, parse_yaml
from policy.runtime.redis_url import Kind as RedisKind
from policy.runtime.redis_url import parse_redis_url
from policy.runtime.resolvconf import HOST_FILES, host_upstreams
from policy.runtime.sections import (
    SHARED_KEYS,
    DnsSettings,
    EnforcementSettings,
    GovernedNamespaces,
    LimitSettings,
    LogSettings,
    MetricsSettings,
    PolicySettings,
    Settings,
)
from policy.runtime.state_section import RedisSettings

__all__ = [
    "DEFAULT_PATH",
    "DnsSettings",
    "EnforcementSettings",
    "GovernedNamespaces",
    "LimitSettings",
    "LogSettings",
    "MetricsSettings",
    "PolicySettings",
    "RedisSettings",
    "Settings",
    "SettingsError",
    "load_settings",
    "restart_needed",
]

DEFAULT_PATH = "/etc/nameward/nameward.yaml"
_SIZE_BYTES = 1 << 20


class SettingsError(Exception):
    """The configuration cannot be used; ``problems`` lists every mistake found."""

    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(source, problems)
        self.source = source
        self.problems = problems

    def __str__(self) -> str:
        """One line a mistake: where, what is wrong, what to do."""
        return "\n".join(f"{self.source}: {problem}" for problem in self.problems)


def load_settings(
    path: str | os.PathLike[str] | None,
    environ: Mapping[str, str],
    resolv_conf: Iterable[str] = HOST_FILES,
) -> Settings:
    """Read the file (None: defaults only) and the environment over it; ``resolv_conf`` gives defaults.

    Raises ``SettingsError`` with every mistake; an unreadable file is one.
    """
    source = "environment" if path is None else os.fspath(path)
    tree, problem = ({}, None) if path is None else _parsed(Path(path))
    if problem:
        raise SettingsError(source, (problem,))
    reader = Reader(SHARED_KEYS)
    tree = overlay({} if tree is None else tree, Settings, environ, reader)
    found = cast("Settings | None", reader.section(Settings, tree, ""))
    if found is None or reader.problems:
        raise SettingsError(source, tuple(reader.problems))
    settings = _completed(found, environ, resolv_conf)
    problems = tuple(_between(settings, from_file=path is not None))
    if problems:
        raise SettingsError(source, problems)
    return settings


def _parsed(path: Path) -> tuple[object, Problem | None]:
    try:
        with path.open("rb") as file:
            text = file.read(_SIZE_BYTES + 1).decode("utf-8")
    except OSError as error:
        return None, Problem("", f"cannot be read: {error.strerror}", "create it, or name another (--config)")
    except UnicodeDecodeError as error:
        return None, Problem("", f"is not UTF-8 (octet {error.start})", "save it as UTF-8")
    if len(text) > _SIZE_BYTES:
        return None, Problem("", "is larger than 1 MiB", "is it the configuration at all?")
    return parse_yaml(text)


def _completed(found: Settings, environ: Mapping[str, str], resolv_conf: Iterable[str]) -> Settings:
    """Fill in what the host says; in a pod of the cluster, resolv.conf has the cluster's own servers."""
    dns, policy = found.dns, found.policy
    is_in_pod = bool(environ.get("KUBERNETES_SERVICE_HOST")) and not policy.kubernetes.kubeconfig
    if policy.source == "kubernetes" and is_in_pod and not dns.cluster_upstreams:
        dns = msgspec.structs.replace(dns, cluster_upstreams=host_upstreams(resolv_conf))
    return msgspec.structs.replace(found, node=found.node or _hostname(), dns=dns)


def _hostname() -> str:
    return re.sub(r"[^a-z0-9.-]", "-", os.uname().nodename.lower()).strip(".-") or "localhost"


def _between(settings: Settings, *, from_file: bool) -> list[Problem]:
    """Check what no key can check alone."""
    found: list[Problem] = []

    def say(path: str, message: str, fix: str) -> None:
        found.append(Problem(path, message, fix))

    if settings.policy.kubernetes.context and not settings.policy.kubernetes.kubeconfig:
        say("policy.kubernetes.context", "has no kubeconfig beside it", "name the file, or remove it")
    if settings.state.redis is not None:
        found += _about_redis(settings.state.redis)
    if from_file and settings.policy.governed_namespaces == GovernedNamespaces():
        say("policy.governedNamespaces", "is missing, so nothing would be contained", "list namespaces there")
    if settings.dns.hold_timeout_s > settings.dns.deadline_s:
        say("dns.holdTimeout", "is longer than dns.deadline", "make it shorter")
    if bool(settings.metrics.cert_file) != bool(settings.metrics.key_file):
        say("metrics", "certFile and keyFile go together", "name both, or neither")
    if settings.limits.grants_per_pod > settings.limits.grants:
        say("limits.grantsPerPod", "is more than limits.grants", "make it smaller")
    return found


def _about_redis(redis: RedisSettings) -> list[Problem]:
    found: list[Problem] = []

    def say(key: str, message: str, fix: str) -> None:
        found.append(Problem(f"state.redis.{key}", message, fix))

    place = parse_redis_url(redis.url)
    if bool(redis.cert_file) != bool(redis.key_file):
        is_there, other = ("certFile", "keyFile") if redis.cert_file else ("keyFile", "certFile")
        say(is_there, f"has no {other} beside it", "name both, or neither")
    if not place.tls:
        for key, path in (("caFile", redis.ca_file), ("certFile", redis.cert_file)):
            if path:
                say(
                    key,
                    "is for TLS, and the URL has none",
                    "write rediss:// in state.redis.url, or remove it",
                )
    if place.user and not redis.password_file:
        say("passwordFile", "is missing for the user in the URL", "name a file with the password")
    if redis.sentinel_password_file and place.kind is not RedisKind.SENTINEL:
        say("sentinelPasswordFile", "is for redis+sentinel:// only", "remove it")
    if redis.previous_hmac_key_file == redis.hmac_key_file:
        say("previousHmacKeyFile", "is the same file as hmacKeyFile", "name the other key, or remove it")
    return found


def restart_needed(old: Settings, new: Settings) -> tuple[str, ...]:
    """Name the changed keys that a reload does not change, as in ``dns.listen``."""
    was, now = msgspec.to_builtins(old), msgspec.to_builtins(new)
    return tuple(
        ".".join(path)
        for path, field in leaves(Settings)
        if field.key is not None and field.key.restart and _at(was, path) != _at(now, path)
    )


def _at(tree: object, path: tuple[str, ...]) -> object:
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree
