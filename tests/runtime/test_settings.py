"""The configuration of a node: what is accepted, and what a person is told of a mistake."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from policy.runtime import sections
from policy.runtime.account import DEFAULT_ID, AccountError, resolver_account
from policy.runtime.kinds import Rate, Wrong, parse_listen, parse_upstream
from policy.runtime.reader import leaves, variable
from policy.runtime.settings import (
    GovernedNamespaces,
    Settings,
    SettingsError,
    load_settings,
    restart_needed,
)

GOVERNED = "policy: {governedNamespaces: [obot-mcp]}\n"


@pytest.fixture
def write(tmp_path: Path):
    """Write a configuration; returns its path."""

    def written(text: str | bytes) -> Path:
        path = tmp_path / "nameward.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return written


def mistakes(path: Path, **environ: str) -> list[tuple[str, str, str]]:
    """What is said of a configuration that must be refused."""
    with pytest.raises(SettingsError) as refused:
        load_settings(path, environ)
    for line in str(refused.value).splitlines():
        assert line.startswith(str(path)), "each line says which file"
    return [tuple(problem) for problem in refused.value.problems]


def test_defaults_are_those_of_the_specification() -> None:
    """Without a file: every default as interfaces.md shows it."""
    settings = load_settings(None, {})
    assert settings.cluster == "default"
    assert settings.runtime_dir == "/run/nameward"
    assert settings.policy.manifests == ("/etc/nameward/manifests",)
    assert (settings.dns.max_ttl_s, settings.dns.hold_timeout_s, settings.dns.deadline_s) == (60.0, 1.0, 2.0)
    assert (settings.dns.blocked_reply, settings.dns.tunnel_action) == ("nxdomain", "block")
    assert settings.dns.capture is True
    assert settings.enforcement.grace_s == 60.0
    assert settings.enforcement.pod_interfaces == ("veth",)
    assert (settings.enforcement.unknown_pods, settings.enforcement.on_revoke) == ("deny", "cut")
    assert settings.limits.distinct_names == Rate(300, 600.0)
    assert settings.metrics.listen == "127.0.0.1:9153"
    assert settings.node != "", "the hostname"


def test_a_whole_file_as_the_specification_writes_it(write) -> None:
    """Every section, values in their own types and units."""
    path = write("""
node: node-a
cluster: prod
policy:
  source: files
  manifests: [/srv/manifests]
  governedNamespaces: {matchLabels: {nameward: "on"}}
  ceiling:
    denied: {names: ["*.pastebin.example"], cidrs: []}
    allowed: [{namespace: obot-mcp, names: ["*.example.com"]}]
    grant: [{namespace: obot-mcp, podNamePrefix: tool-preview-, names: [packages.example.com], ports: [443]}]
dns:
  listen: [192.0.2.1, "[2001:db8::1]:5353"]
  upstreams: [1.1.1.1, "tls://9.9.9.9#dns.quad9.net", "[2606:4700:4700::1111]:53"]
  queryTypes: [A, AAAA]
  maxTTL: 1m
  holdTimeout: 300ms
enforcement: {podInterfaces: [veth, "cali*"], clusterCIDRs: [10.244.0.0/16, fd00::/64], grace: 24h}
limits: {distinctNames: 10/1m}
metrics: {listen: ""}
log: {level: debug, format: console}
""")
    settings = load_settings(path, {})
    assert settings.policy.governed_namespaces == GovernedNamespaces(match_labels={"nameward": "on"})
    assert settings.policy.ceiling.denied.names == ("*.pastebin.example",)
    assert settings.policy.ceiling.grant[0].pod_name_prefix == "tool-preview-"
    assert settings.dns.listen == ("192.0.2.1:53", "[2001:db8::1]:5353")
    assert settings.dns.upstreams == (
        "1.1.1.1",
        "tls://9.9.9.9#dns.quad9.net",
        "[2606:4700:4700::1111]:53",
    )
    assert settings.dns.hold_timeout_s == 0.3
    assert settings.enforcement.grace_s == 86400.0
    assert settings.limits.distinct_names == Rate(10, 60.0)
    assert settings.metrics.listen == ""


@pytest.mark.parametrize(
    ("text", "path", "message", "fix"),
    [
        ("dns: {maxTtl: 60s}", "dns.maxTtl", "unknown key", "did you mean maxTTL?"),
        ("dnss: {}", "dnss", "unknown key", "did you mean dns?"),
        ("dns: {max_ttl: 60s}", "dns.max_ttl", "unknown key", "did you mean maxTTL?"),
        ("quux: 1", "quux", "unknown key", "known here: node, cluster, policy"),
        ("dns: {maxTTL: 60}", "dns.maxTTL", "60 has no unit", "write 60s"),
        ("dns: {maxTTL: forever}", "dns.maxTTL", "a duration from 1s to 1h", "write a number and its unit"),
        ("dns: {maxTTL: 2h}", "dns.maxTTL", "out of bounds", "from 1s to 1h"),
        ("dns: {maxTTL: -5s}", "dns.maxTTL", "found the text '-5s'", "write a number"),
        ("dns: []", "dns", "expected a mapping, found a list", "indented"),
        ("dns: {blockedReply: nxdomian}", "dns.blockedReply", "'nxdomian'", "did you mean nxdomain?"),
        ("dns: {capture: 1}", "dns.capture", "found the number 1", "true or false"),
        ("dns: {queryTypes: [A, AAAAA]}", "dns.queryTypes", "item 1", "did you mean AAAA?"),
        ("dns: {queryTypes: []}", "dns.queryTypes", "the list is empty", "at least 1"),
        ("dns: {upstreams: [dns.google]}", "dns.upstreams", "'dns.google' is not an IP address", "IPv4"),
        ("dns: {upstreams: ['tls://9.9.9.9']}", "dns.upstreams", "no name", "tls://9.9.9.9#NAME"),
        ("dns: {upstreams: ['https://9.9.9.9/q']}", "dns.upstreams", "unknown scheme 'https'", "tls://"),
        ("dns: {upstreams: ['9.9.9.9:0']}", "dns.upstreams", "0 is out of bounds", "1 to 65535"),
        ("dns: {clusterDomain: 'a..b'}", "dns.clusterDomain", "not a domain name", "cluster.local"),
        ("dns: {peers: [10.0.0.7/24]}", "dns.peers", "beyond its prefix", "10.0.0.0/24"),
        ("dns: {peers: ['::/0']}", "dns.peers", "::/0 is everywhere", "addresses"),
        ("dns: {peers: [node-b]}", "dns.peers", "'node-b' is not an IP address", "IPv4"),
        ("dns: {holdTimeout: 3s}", "dns.holdTimeout", "longer than dns.deadline", "shorter"),
        ("dns: {user: 'no such'}", "dns.user", "is not a user's name", "write"),
        (
            "enforcement: {podCIDRs: [10.0.0.7/24]}",
            "enforcement.podCIDRs",
            "beyond its prefix",
            "10.0.0.0/24",
        ),
        ("enforcement: {podCIDRs: [10.0.0.7]}", "enforcement.podCIDRs", "no prefix length", "10.0.0.7/32"),
        ("enforcement: {podInterfaces: []}", "enforcement.podInterfaces", "the list is empty", "at least 1"),
        ("enforcement: {nflogGroup: 70000}", "enforcement.nflogGroup", "out of bounds", "0 to 65535"),
        ("limits: {grants: 0}", "limits.grants", "out of bounds", "1 to 8000000"),
        ("limits: {grants: lots}", "limits.grants", "the text 'lots'", "whole number"),
        ("limits: {distinctNames: 300}", "limits.distinctNames", "a rate such as 300/10m", "COUNT/DURATION"),
        ("limits: {grants: 5, grantsPerPod: 6}", "limits.grantsPerPod", "more than limits.grants", "smaller"),
        ("metrics: {listen: '127.0.0.1'}", "metrics.listen", "has no port", "ADDRESS:PORT"),
        ("node: 12", "node", "found the number 12", "quotes"),
        ("node: 'a b'", "node", "is not a node's name", "write a node's name"),
        ("runtimeDir: run", "runtimeDir", "not an absolute path", "write an absolute path"),
        ("runtimeDir: /" + "x" * 90, "runtimeDir", "not an absolute path of at most 80", "write"),
        ("state: {redis: {hmacKeyFile: /k}}", "state.redis.url", "is missing", "add url"),
        ("state: {redis: {url: 'redis://h'}}", "state.redis.hmacKeyFile", "is missing", "add hmacKeyFile"),
        (
            "state: {redis: {url: 'http://h', hmacKeyFile: /k}}",
            "state.redis.url",
            "unknown scheme",
            "redis://",
        ),
        (
            "state: {redis: {url: 'redis://u:secret@h', hmacKeyFile: /k}}",
            "state.redis.url",
            "there is a password in the URL",
            "passwordFile",
        ),
        (
            "state: {redis: {url: 'redis://u@h', hmacKeyFile: /k}}",
            "state.redis.passwordFile",
            "is missing for the user",
            "name a file",
        ),
        (
            "state: {redis: {url: 'redis://h', hmacKeyFile: /k, caFile: /ca}}",
            "state.redis.caFile",
            "the URL has none",
            "rediss://",
        ),
        (
            "state: {redis: {url: 'rediss://h', hmacKeyFile: /k, keyFile: /key}}",
            "state.redis.keyFile",
            "has no certFile beside it",
            "name both",
        ),
        (
            "state: {redis: {url: 'redis://h', hmacKeyFile: /k, previousHmacKeyFile: /k}}",
            "state.redis.previousHmacKeyFile",
            "the same file",
            "the other key",
        ),
        (
            "state: {redis: {url: 'redis://h', hmacKeyFile: /k, sentinelPasswordFile: /p}}",
            "state.redis.sentinelPasswordFile",
            "redis+sentinel:// only",
            "remove it",
        ),
        (
            "state: {redis: {url: 'redis://h', hmacKeyFile: /k, pendingRecords: 5}}",
            "state.redis.pendingRecords",
            "out of bounds",
            "1000",
        ),
        ("log: {level: verbose}", "log.level", "one of debug, info", "write one of"),
    ],
)
def test_a_mistake_is_named_with_path_and_fix(write, text: str, path: str, message: str, fix: str) -> None:
    """Where it stands, what is wrong, what to write instead: exactly one problem for one mistake."""
    [(where, what, instead)] = mistakes(write(GOVERNED + text))
    assert where == path
    assert message in what
    assert fix in instead


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (
            "{kubernetes: {context: a}, governedNamespaces: [a]}",
            "policy.kubernetes.context",
            "no kubeconfig beside it",
        ),
        ("{source: file, governedNamespaces: [a]}", "policy.source", "one of files, kubernetes"),
        (
            "{manifests: [etc], governedNamespaces: [a]}",
            "policy.manifests",
            "item 0: 'etc' is not an absolute",
        ),
        ("{}", "policy.governedNamespaces", "nothing would be contained"),
        ("{governedNamespaces: []}", "policy.governedNamespaces", "the list is empty"),
        ("{governedNamespaces: {matchlabels: {a: b}}}", "policy.governedNamespaces", "matchLabels"),
        ("{governedNamespaces: {matchLabels: {a: 1}}}", "policy.governedNamespaces", "a label's value"),
        (
            "{governedNamespaces: [a], ceiling: {allowed: [{names: [x.example]}]}}",
            "policy.ceiling.allowed[0].namespace",
            "is missing",
        ),
        (
            "{governedNamespaces: [a], ceiling: {denied: {names: ['**.x.example']}}}",
            "policy.ceiling.denied.names",
            "item 0: ",
        ),
        (
            "{governedNamespaces: [a], ceiling: {denied: {name: [x]}}}",
            "policy.ceiling.denied.name",
            "unknown key",
        ),
    ],
)
def test_a_mistake_under_policy(write, text: str, path: str, message: str) -> None:
    """The same for the section that decides who is contained."""
    [(where, what, _)] = mistakes(write(f"policy: {text}"))
    assert where == path
    assert message in what


def test_every_mistake_is_listed_at_once(write) -> None:
    """Nobody has to start five times to find five mistakes."""
    found = mistakes(write(GOVERNED + "node: 1\ndns: {maxTTL: 1, x: 2}\nlog: 3\n"), NAMEWARD_CLUSTER="A B")
    assert [path for path, _, _ in found] == ["node", "dns.maxTTL", "dns.x", "log", "cluster"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "line 1, column 5"),
        ("node: a\nnode: b\n", "line 2, column 1: node is written twice"),
        ("1: a", "a key is not text"),
        ("- a", "expected a mapping"),
        (b"node: \xff", "not UTF-8"),
        ("x" * (1 << 20) + "y", "larger than 1 MiB"),
        ("&a [*a]", "expected a mapping"),
        ("[" * 5000, "not YAML"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
    ],
)
def test_what_is_no_configuration_at_all(write, text: str | bytes, said: str) -> None:
    """Broken YAML says the line; nothing in a file is ever executed."""
    [(_, message, fix)] = mistakes(write(text))
    assert said in message
    assert fix


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """One sentence with the path and the way out."""
    [(_, message, fix)] = mistakes(tmp_path / "absent.yaml")
    assert message == "cannot be read: No such file or directory"
    assert "--config" in fix


def test_an_empty_section_means_its_defaults(write) -> None:
    """`dns:` with nothing under it is no mistake."""
    assert load_settings(write(GOVERNED + "dns:\nlog:\n  level:\n"), {}).log.level == "info"


class TestEnvironment:
    """Each key as a variable, over the file."""

    def test_a_variable_wins_over_the_file(self, write) -> None:
        """Text, number, duration, list and YAML forms."""
        path = write(GOVERNED + "node: a\ndns: {maxTTL: 30s}\n")
        settings = load_settings(
            path,
            {
                "NAMEWARD_DNS_MAXTTL": "10s",
                "NAMEWARD_NODE": "123",
                "NAMEWARD_LIMITS_GRANTS": "20000",
                "NAMEWARD_DNS_CAPTURE": "false",
                "NAMEWARD_DNS_UPSTREAMS": "1.1.1.1, tls://9.9.9.9#dns.quad9.net",
                "NAMEWARD_POLICY_GOVERNEDNAMESPACES": '{matchLabels: {a: "b"}}',
                "NAMEWARD_POLICY_CEILING_DENIED_NAMES": "a.example,b.example",
                "NAMEWARD_CONFIG": "elsewhere",
                "NAMEWARD_CLUSTER_BIN": "/opt/cluster/bin",
                "PATH": "/bin",
            },
        )
        assert settings.dns.max_ttl_s == 10.0
        assert settings.node == "123"
        assert settings.limits.grants == 20000
        assert settings.dns.capture is False
        assert settings.dns.upstreams == ("1.1.1.1", "tls://9.9.9.9#dns.quad9.net")
        assert settings.policy.governed_namespaces.match_labels == {"a": "b"}
        assert settings.policy.ceiling.denied.names == ("a.example", "b.example")

    def test_a_misspelt_variable_is_a_mistake(self, write) -> None:
        """With the nearest right one."""
        [(where, _, fix)] = mistakes(write(GOVERNED), NAMEWARD_DNS_MAXTLL="1s")
        assert where == "NAMEWARD_DNS_MAXTLL"
        assert fix == "did you mean NAMEWARD_DNS_MAXTTL?"

    def test_what_kubernetes_adds_for_a_service_is_none(self) -> None:
        """Service links of a Service called nameward or nameward-metrics are not settings."""
        load_settings(
            None,
            {
                "NAMEWARD_SERVICE_HOST": "10.96.0.9",
                "NAMEWARD_SERVICE_PORT_METRICS": "9153",
                "NAMEWARD_METRICS_PORT": "tcp://10.96.0.9:9153",
                "NAMEWARD_METRICS_PORT_9153_TCP_ADDR": "10.96.0.9",
            },
        )

    def test_every_key_has_a_variable_of_its_own(self) -> None:
        """No two keys share a name."""
        names = [variable(path) for path, _ in leaves(Settings)]
        assert len(names) == len(set(names))
        assert "NAMEWARD_RUNTIMEDIR" in names


def test_every_default_reads_as_it_is_shown() -> None:
    """read(show(default)) == default, so that the documentation can be copied."""
    for path, field in leaves(Settings):
        value: object = load_settings(None, {"NAMEWARD_NODE": "n"})
        for name in field_attributes(path):
            value = getattr(value, name, None)
        if value in (None, "", ()) or field.key is None or path[-1] == "governedNamespaces":
            continue
        shown = field.key.kind.show(value)
        assert field.key.kind.read(shown if not shown.startswith("[") else shown[1:-1]) == value, path


def field_attributes(path: tuple[str, ...]) -> list[str]:
    """The attributes that lead to a key."""
    names, section = [], Settings
    for name in path:
        field = next(field for field in sections_fields(section) if field.name == name)
        names.append(field.attribute)
        section = field.section or section
    return names


def sections_fields(section):
    """The keys of a section."""
    from policy.runtime.reader import fields

    return fields(section)


def test_every_key_says_what_it_means_and_why() -> None:
    """Two paragraphs under each key of each section: they are its documentation."""
    tree = ast.parse(inspect.getsource(sections))
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or not node.name.endswith("Settings"):
            continue
        for key, text in zip(node.body, [*node.body[1:], None], strict=True):
            if not isinstance(key, ast.AnnAssign) or "Settings" in ast.unparse(key.annotation):
                continue
            assert isinstance(text, ast.Expr), ast.unparse(key.target)
            assert "\n\n" in ast.literal_eval(text.value), ast.unparse(key.target)


def test_a_reload_names_what_only_a_restart_changes(write) -> None:
    """maxTTL reloads; node and runtimeDir do not."""
    old = load_settings(write(GOVERNED), {"NAMEWARD_NODE": "a"})
    new = load_settings(
        write(GOVERNED + "dns: {maxTTL: 5s}\nruntimeDir: /run/other\n"), {"NAMEWARD_NODE": "b"}
    )
    assert restart_needed(old, old) == ()
    assert restart_needed(old, new) == ("node", "runtimeDir")


def test_upstreams_and_listening_addresses_split() -> None:
    """Ports by default: 53, over TLS 853; IPv6 in brackets where a port follows."""
    assert parse_upstream("1.1.1.1") == ("1.1.1.1", 53, False, "")
    assert parse_upstream("[2001:db8::1]:5300") == ("2001:db8::1", 5300, False, "")
    assert parse_upstream("2001:db8::1") == ("2001:db8::1", 53, False, "")
    assert parse_upstream("[fe80::1%eth0]:53") == ("fe80::1%eth0", 53, False, "")
    assert parse_upstream("tls://9.9.9.9#Dns.Quad9.net") == ("9.9.9.9", 853, True, "dns.quad9.net")
    assert parse_upstream("tls://[2620:fe::fe]:8853#dns.quad9.net") == (
        "2620:fe::fe",
        8853,
        True,
        "dns.quad9.net",
    )
    assert parse_listen("[::1]:53") == ("::1", 53)
    with pytest.raises(Wrong):
        parse_upstream("tls://dns.quad9.net#dns.quad9.net")


def test_the_resolver_never_runs_as_root() -> None:
    """By name or number; an unknown name says so; the default needs no user on the host."""
    assert resolver_account("").uid in (DEFAULT_ID, resolver_account("").uid)
    assert resolver_account("70000") == (70000, 70000)
    for user in ("root", "0"):
        with pytest.raises(AccountError, match="privileges of root"):
            resolver_account(user)
    with pytest.raises(AccountError, match="there is no user nobody-here"):
        resolver_account("nobody-here")


def test_in_a_pod_the_clusters_servers_stand_in_resolv_conf(tmp_path: Path) -> None:
    """The kubelet writes them there; outside of a pod that file says nothing of the cluster."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("search svc.cluster.local\nnameserver 10.96.0.10\n")
    file = tmp_path / "nameward.yaml"
    inside = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}

    def servers(more: str, environ: dict[str, str], source: str = "kubernetes") -> tuple[str, ...]:
        file.write_text(f"policy: {{source: {source}, governedNamespaces: [a]}}\n{more}")
        return load_settings(file, environ, [str(resolv)]).dns.cluster_upstreams

    assert servers("", inside) == ("10.96.0.10",)
    assert servers("", {}) == ()
    assert servers("", inside, "files") == ()
    assert servers("dns: {clusterUpstreams: [10.0.0.10]}", inside) == ("10.0.0.10",)
    away = inside | {"NAMEWARD_POLICY_KUBERNETES_KUBECONFIG": "/etc/nameward/kubeconfig"}
    assert servers("", away) == ()
