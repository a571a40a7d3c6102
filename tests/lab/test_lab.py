"""The lab does what the demo's steps rest on, before anything is enforced."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import enforcer
from enforcer.demo import places, zones
from enforcer.demo.folders import remove_leftovers
from enforcer.demo.processes import LONG_S, descendants, parent_of, wait_until
from enforcer.demo.scenes import Stage
from enforcer.demo.stub import Stub

pytestmark = pytest.mark.kernel


def test_pods_reach_every_site_over_both_families(open_stage: Stage) -> None:
    """Without Nameward TCP, UDP and both address families work from a pod to the outside."""
    for address in places.SITE_OF[places.CRM]:
        attempt = open_stage.crm.connect(address)
        assert attempt.said == f"{address} port 443 answers {open_stage.crm.addresses[':' in address]}"
        assert open_stage.crm.echo(address).ok


def test_the_name_server_follows_a_chain_into_another_zone(open_stage: Stage) -> None:
    """nsd answers a CNAME chain across its zones whole, over IPv4 and IPv6."""
    for server in (places.UPSTREAM4, places.UPSTREAM6):
        answer = Stub(open_stage.crm.space, server).ask(places.SHOP)
        assert answer.targets == ("shop.edge.example.org", "pool7.example.org")
        assert answer.addresses == (places.SITE_OF[places.SHOP][0],)


def test_500_addresses_come_over_tcp_after_truncation(open_stage: Stage) -> None:
    """The big answer is truncated over UDP and whole over TCP, every address of it alive."""
    assert open_stage.crm.stub.ask_udp(places.MANY, ("A",))[0].truncated
    assert sorted(open_stage.crm.stub.ask(places.MANY).addresses) == sorted(zones.many_addresses())
    assert all(open_stage.crm.connect(address).ok for address in zones.many_addresses()[::50])


def test_the_counters_see_every_packet_and_can_be_reset(open_stage: Stage) -> None:
    """A packet to the attacker, the metadata address or the name server moves its counter."""
    open_stage.lab.world.forget()
    assert open_stage.crm.connect(places.ATTACKER6).ok
    assert open_stage.crm.connect(places.METADATA, 80).ok
    open_stage.crm.stub.ask(places.CRM)
    counted = {name: open_stage.lab.world.counted(name) for name in ("attacker", "metadata", "upstream")}
    assert all(counted.values()), counted
    assert [arrival.local for arrival in open_stage.lab.world.attacker_heard()] == [places.ATTACKER6]
    open_stage.lab.world.forget()
    assert not open_stage.lab.world.counted("attacker")
    assert not open_stage.lab.world.attacker_heard()


def test_a_transfer_runs_until_its_end_and_is_counted_on_both_sides(open_stage: Stage) -> None:
    """A transfer moves octets both ways, until the pod closes it."""
    transfer = open_stage.crm.transfer(places.SITE_OF[places.CRM][1])
    assert transfer.grows(), transfer.error
    assert wait_until(lambda: open_stage.lab.world.uploaded(transfer.name) > 0, LONG_S)
    transfer.close()
    assert not transfer.running


def test_an_open_lab_lets_forged_sources_pass(open_stage: Stage) -> None:
    """Forging another pod's address works where nothing checks it: the attack in the demo is real."""
    with open_stage.ledger.space.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setsockopt(socket.IPPROTO_IP, 19, 1)
        opened.bind((open_stage.crm.addresses[0], 0))
        opened.sendto(b"borrowed", (places.SITE_OF[places.CRM][0], 443))
    assert wait_until(lambda: open_stage.lab.world.told("borrowed") == 1, LONG_S)


def test_an_open_lab_lets_a_forged_answer_reach_the_node(open_stage: Stage) -> None:
    """A datagram "from the name server" out of a pod arrives at the node where nothing checks it."""
    with (
        open_stage.lab.node.socket(socket.AF_INET, socket.SOCK_DGRAM) as victim,
        open_stage.ledger.space.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger,
    ):
        victim.bind((places.NODE4, 0))
        victim.settimeout(LONG_S)
        forger.setsockopt(socket.IPPROTO_IP, 19, 1)
        forger.bind((places.UPSTREAM4, 53))
        forger.sendto(b"lie", victim.getsockname())
        assert victim.recvfrom(16) == (b"lie", (places.UPSTREAM4, 53))


_ENDLESS = """
import signal, sys
from enforcer.demo import lab
with lab.running() as made:
    print(made.folder, flush=True)
    signal.pause()
"""


def test_a_killed_lab_takes_its_programs_along_and_its_folder_goes_next_time() -> None:
    """After kill -9 of the lab nsd and Nameward end by themselves; the next lab removes its folder."""
    root = str(Path(enforcer.__file__).parents[1])
    lab = subprocess.Popen(
        [sys.executable, "-c", _ENDLESS],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    with lab:
        assert lab.stdout is not None
        folder = Path(lab.stdout.readline().strip())
        programs = descendants(lab.pid)
        assert len(programs) > 4
        assert folder.is_dir()
        lab.send_signal(signal.SIGKILL)
    assert wait_until(lambda: all(parent_of(pid) is None for pid in programs), LONG_S)
    assert folder.name in remove_leftovers()
    assert not folder.exists()
