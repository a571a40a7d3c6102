"""The host's resolv.conf as the default of upstreams and search domains."""

from __future__ import annotations

import pytest

from policy.runtime.resolvconf import host_search_domains, host_upstreams


@pytest.fixture
def files(tmp_path):
    """Write the given texts as files; return their paths."""

    def write(*texts):
        paths = []
        for number, text in enumerate(texts):
            path = tmp_path / f"resolv{number}.conf"
            path.write_text(text)
            paths.append(str(path))
        return paths

    return write


def test_servers_come_in_their_order_once(files):
    """Every ``nameserver`` line counts, repetitions and nonsense do not."""
    paths = files(
        "# nameserver 9.9.9.9\nnameserver 1.1.1.1\nnameserver 2606:4700::1111\nnameserver x\n"
        "nameserver\nnameserver 1.1.1.1\n;nameserver 8.8.8.8\noptions ndots:5\n"
    )
    assert host_upstreams(paths) == ("1.1.1.1", "2606:4700::1111")


def test_a_stub_is_skipped_for_the_file_behind_it(files):
    """systemd-resolved's stub is not an upstream; its own servers are."""
    paths = files("nameserver 127.0.0.53\nsearch lan\n", "nameserver 192.0.2.1\nnameserver fe80::1%eth0\n")
    assert host_upstreams(paths) == ("192.0.2.1", "fe80::1%eth0")


def test_without_files_there_is_nothing(tmp_path):
    """A missing file names no server and no suffix."""
    assert host_upstreams([str(tmp_path / "none")]) == ()
    assert host_search_domains([str(tmp_path / "none")]) == ()


def test_search_domains_are_the_last_search_line(files):
    """As resolv.conf(5): the last ``search`` counts, ``domain`` where there is none."""
    assert host_search_domains(files("search a.example\nsearch Lan. corp.example.\n")) == (
        "lan",
        "corp.example",
    )
    assert host_search_domains(files("domain home.example\n")) == ("home.example",)
