"""Plays a scenario: a script of queries, upstream answers, grants and time against the real core.

Owns the script's words, which README.md beside it lists. Invariant: every effect of the core is
asked for by a step, or the scenario fails.
"""

from __future__ import annotations

from pathlib import Path

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from policy.addresses import from_packed, to_packed
from policy.authority import GrantAnswered
from resolver.core import AskUpstream, Client, Core, CoreSettings
from resolver.hits import STREAM
from tests.scenarios.stage import Stage
from tests.scenarios.worlds import read_world


class Failed(AssertionError):
    """A step did not find what it expected; the text starts with file and line."""


class Script:
    """One scenario file, step by step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stage = Stage()

    def play(self) -> None:
        """Play every step; raises Failed with file and line."""
        lines = [line.split(";")[0].rstrip() for line in self.path.read_text().splitlines()]
        at = 0
        while at < len(lines):
            number = at + 1
            words = lines[at].split()
            at += 1
            if not words:
                continue
            body = []
            while at < len(lines) and (not lines[at] or lines[at][0] == " "):
                if lines[at].strip():
                    body.append(lines[at].strip())
                at += 1
            try:
                getattr(self, f"step_{words[0].lower()}")(words[1:], body)
            except (AssertionError, StopIteration, KeyError, AttributeError, IndexError) as error:
                raise Failed(
                    f"{self.path.name}:{number}: {lines[number - 1]}\n{error!r}\n{self.state()}"
                ) from error
        self.check_nothing_left()

    def state(self) -> str:
        stage = self.stage
        replies = "\n".join(f"{k}: {dns.message.from_wire(v).to_text()}" for k, v in stage.replies.items())
        return f"upstream {stage.upstream}\ngrants {stage.grants}\nrecords {stage.records}\n{replies}"

    def check_nothing_left(self) -> None:
        stage = self.stage
        if stage.upstream or stage.grants or stage.records or stage.replies:
            raise Failed(f"{self.path.name}: effects that no step expected\n{self.state()}")

    def step_settings(self, words: list[str], body: list[str]) -> None:
        """``key=value …``: other settings than the defaults."""
        changes: dict[str, object] = {}
        for word in words:
            key, _, text = word.partition("=")
            old = getattr(self.stage.settings, key)
            if isinstance(old, tuple):
                changes[key] = tuple(text.split(","))
            elif isinstance(old, bool):
                changes[key] = text == "true"
            else:
                changes[key] = type(old)(text)
        old_fields = {name: getattr(self.stage.settings, name) for name in CoreSettings.__struct_fields__}
        self.stage.settings = CoreSettings(**old_fields | changes)
        if self.stage.generation:
            self.stage.take(self.stage.core.settings_changed(self.stage.settings, self.stage.now))
        else:
            self.stage.core = Core(self.stage.settings)

    def step_snapshot(self, words: list[str], body: list[str]) -> None:
        """Publish a world of the next generation."""
        stage = self.stage
        stage.publish(read_world(body, stage.generation + 1))

    def step_query(self, words: list[str], body: list[str]) -> None:
        """``LABEL SOURCE NAME TYPE [options]``: a client asks."""
        label, source, name, qtype, *options = words
        given = dict(option.partition("=")[::2] for option in options)
        if "raw" in given:
            wire = bytes.fromhex(given["raw"])
        else:
            edns = 0 if {"edns", "do", "size", "version"} & set(given) else -1
            message = dns.message.make_query(
                name, qtype, rdclass=given.get("class", "IN"), use_edns=int(given.get("version", edns)),
                payload=int(given.get("size", "1232")), want_dnssec="do" in given,
                id=int(given.get("id", str(len(self.stage.clients) + 1))),
            )  # fmt: skip
            message.set_opcode(int(given.get("opcode", "0")))
            wire = message.to_wire()
            if "mixed" in given:
                wire = wire[:12] + wire[12:16].upper() + wire[16:]
        self.send(label, source, wire, given)

    def send(self, label: str, source: str, wire: bytes, given: dict[str, str]) -> None:
        stage = self.stage
        transport = "tcp" if "tcp" in given else "udp"
        client = Client(
            to_packed(source), int(given.get("port", "40000")), to_packed(given.get("aimed", "10.96.0.10")),
            transport, int(given.get("via", "1")),
        )  # fmt: skip
        stage.clients[label] = (client, wire)
        stage.replies.pop(label, None)
        source = client.source if transport == "udp" else client.source + STREAM
        prepared = stage.core.hit(wire, source, stage.now)
        if prepared is not None:
            stage.take_reply(client, prepared, "hit")
            stage.records += [record for record, _ in stage.core.take_counted()]
        else:
            stage.take(stage.core.query_received(wire, client, stage.now))

    def step_repeat(self, words: list[str], body: list[str]) -> None:
        """``LABEL AS OLD``: the same message of the same client once more, under a new label."""
        client, wire = self.stage.clients[words[2]]
        given = {"port": str(client.port), "via": str(client.via)}
        if client.transport == "tcp":
            given["tcp"] = ""
        self.send(words[0], from_packed(client.source), wire, given)

    def step_upstream(self, words: list[str], body: list[str]) -> None:
        """``NAME TYPE [GROUP] [rcode=R] [raw]``: an upstream answers what it was asked."""
        ask = self.asked(words)
        given = dict(word.partition("=")[::2] for word in words[2:])
        if "raw" in given:
            header = b"\x00\x00\x81\x80\x00\x01"
            counts = bytes.fromhex(body[0].replace(" ", ""))
            question = ask.name + ask.qtype.to_bytes(2, "big") + b"\x00\x01"
            wire = header + counts + question + bytes.fromhex("".join(body[1:]).replace(" ", ""))
        else:
            wire = self.upstream_message(ask, given, body)
        self.stage.take(self.stage.core.upstream_answered(ask.id, wire, self.stage.now))

    def upstream_message(self, ask: AskUpstream, given: dict[str, str], body: list[str]) -> bytes:
        message = dns.message.QueryMessage(id=7)
        message.flags = dns.flags.QR | dns.flags.RD | dns.flags.RA
        if "tc" in given:
            message.flags |= dns.flags.TC
        message.set_rcode(dns.rcode.from_text(given.get("rcode", "NOERROR")))
        name = dns.name.from_wire(ask.name, 0)[0]
        message.question.append(dns.rrset.RRset(name, dns.rdataclass.IN, ask.qtype))
        for line in body:
            section, owner, ttl, rtype, rest = line.split(None, 4)
            rdatas = [item.strip() for item in rest.split("|")]
            rrset = dns.rrset.from_text(owner, int(ttl), "IN", rtype, *rdatas)
            getattr(message, section).append(rrset)
        return message.to_wire(max_size=65535)

    def step_fail(self, words: list[str], body: list[str]) -> None:
        """``NAME TYPE EDE``: the upstreams are silent (22) or unreachable (23)."""
        ask = self.asked(words[:2])
        self.stage.take(self.stage.core.upstream_failed(ask.id, int(words[2]), self.stage.now))

    def asked(self, words: list[str]) -> AskUpstream:
        """Take the pending upstream question, check its name, type and group."""
        wire = dns.name.from_text(words[0]).to_wire()
        ask = next(
            ask
            for ask in self.stage.upstream
            if (ask.name, ask.qtype) == (wire, dns.rdatatype.from_text(words[1]))
        )
        group = words[2] if len(words) > 2 and words[2] in ("outside", "cluster") else "outside"
        assert ask.group == group, f"asked {ask.group}, not {group}"
        self.stage.upstream.remove(ask)
        return ask

    def step_check_upstream(self, words: list[str], body: list[str]) -> None:
        """``none``, or how many questions are under way."""
        count = 0 if words[0] == "none" else int(words[0])
        assert len(self.stage.upstream) == count, f"{len(self.stage.upstream)} upstream questions"

    def step_late(self, words: list[str], body: list[str]) -> None:
        """``NAME TYPE``: forget a question that the core has given up; its answer comes too late."""
        ask = self.asked(words)
        assert self.stage.core.upstream_answered(ask.id, b"\x00" * 12, self.stage.now) == []

    def step_check_grants(self, words: list[str], body: list[str]) -> None:
        """``none``, or ``SOURCE NAME TTL ADDRESS…`` of the oldest request that was not checked."""
        if words == ["none"]:
            assert not self.stage.grants, f"{len(self.stage.grants)} grant requests"
            return
        source, name, ttl, *addresses = words
        request = next(
            item.request for item in self.stage.grants if from_packed(item.request.source) == source
        )
        assert (request.name, request.ttl_s) == (name, int(ttl)), f"{request.name} {request.ttl_s}"
        asked = [from_packed(address) for address in request.addresses]
        if addresses and addresses[0].startswith("count="):
            assert len(asked) == int(addresses[0][6:]), f"{len(asked)} addresses"
        else:
            assert sorted(asked) == sorted(addresses), f"{asked}"
        pod = next(pod for pod in self.stage.world.pods if source in pod.addresses)
        assert request.pod_uid == pod.uid
        assert request.generation == self.stage.generation

    def step_realize(self, words: list[str], body: list[str]) -> None:
        """``[remaining=S] [generation=G] [lasting=no] [all=OUTCOME] [ADDRESS=OUTCOME…]``: answer all."""
        given = dict(word.partition("=")[::2] for word in words)
        stage = self.stage
        pending, stage.grants = stage.grants, []
        for item in pending:
            request = item.request
            outcomes = tuple(
                given.get(from_packed(address), given.get("all", "realized")) for address in request.addresses
            )
            remaining_s = float(given.get("remaining", request.ttl_s + stage.settings.grace_s))
            for address, outcome in zip(request.addresses, outcomes, strict=True):
                if outcome == "realized":
                    key = (request.source, address)
                    stage.open[key] = max(stage.open.get(key, 0.0), stage.now + remaining_s)
            answer = GrantAnswered(
                request.id, int(given.get("generation", stage.generation)), outcomes, remaining_s,
                given.get("reason", "").replace("_", " "), lasting=given.get("lasting") != "no",
            )  # fmt: skip
            stage.take(stage.core.grants_answered(answer, stage.now))

    def step_ignore_grants(self, words: list[str], body: list[str]) -> None:
        """The authority never answers what was asked until now."""
        assert self.stage.grants, "nothing was asked"
        self.stage.grants.clear()

    def step_authority(self, words: list[str], body: list[str]) -> None:
        """``lost`` or ``back``."""
        core, now = self.stage.core, self.stage.now
        self.stage.take(core.authority_lost(now) if words[0] == "lost" else core.authority_back(now))

    def step_close(self, words: list[str], body: list[str]) -> None:
        """``VIA``: a TCP connection ends."""
        self.stage.core.connection_closed(int(words[0]), self.stage.now)

    def step_time_passes(self, words: list[str], body: list[str]) -> None:
        """``SECONDS``."""
        self.stage.let_pass(float(words[0]))

    def step_check_answer(self, words: list[str], body: list[str]) -> None:
        """``LABEL RCODE [hit|long] [tc] [no-ede]``, and in the body the records and EDEs it must hold."""
        label, rcode, *flags = words
        wire = self.stage.replies.pop(label)
        message = dns.message.from_wire(wire)
        assert dns.rcode.to_text(message.rcode()) == rcode, dns.rcode.to_text(message.rcode())
        assert bool(message.flags & dns.flags.TC) == ("tc" in flags), "TC"
        for path in ("hit", "long"):
            assert path not in flags or self.stage.paths[label] == path, f"came by {self.stage.paths[label]}"
        found = [f"ede {option.code} {option.text or ''}".rstrip() for option in message.options
                 if option.otype == dns.edns.EDE]  # fmt: skip
        for section in ("answer", "authority"):
            for rrset in getattr(message, section):
                kind = dns.rdatatype.to_text(rrset.rdtype)
                if kind == "SOA" and rrset[0].mname.to_text() == "nameward.invalid.":
                    found.append(f"{section} SOA {rrset.ttl}")
                    continue
                found += [f"{section} {rrset.name} {rrset.ttl} {kind} {rdata}" for rdata in rrset]
        assert not message.additional, "additional records"
        expected = [line for line in body if not line.startswith("count ")]
        for line in body:
            if line.startswith("count "):
                found = [item for item in found if f" {line.split()[1]} " not in item] + [
                    f"count {line.split()[1]} {sum(f' {line.split()[1]} ' in item for item in found)}"
                ]
                expected.append(line)
        assert sorted(found) == sorted(expected), "\n".join(["found:", *found, "expected:", *expected])

    def step_check_silence(self, words: list[str], body: list[str]) -> None:
        """``[LABEL]``: no reply yet."""
        waiting = words or list(self.stage.replies)
        assert not set(waiting) & set(self.stage.replies), "there is a reply"

    def step_check_record(self, words: list[str], body: list[str]) -> None:
        """``VERDICT NAME TYPE POD POLICY/RULE|- [TEXT…]``: the oldest record, its reason holding TEXT."""
        record = self.stage.records.pop(0)
        verdict, name, qtype, pod, rule, *text = words
        found = f"{record.policy}/{record.rule}" if record.policy else "-"
        assert (record.verdict, record.name, record.qtype) == (verdict, name, qtype), record
        assert (f"{record.namespace}/{record.pod}", found) == (pod, rule), record
        assert " ".join(text) in record.reason, record

    def step_check_records(self, words: list[str], body: list[str]) -> None:
        """``COUNT VERDICT``: so many records of one verdict, and take them."""
        count = sum(record.verdict == words[1] for record in self.stage.records)
        assert count == int(words[0]), f"{count} records"
        self.stage.records = [record for record in self.stage.records if record.verdict != words[1]]

    def step_check_in_flight(self, words: list[str], body: list[str]) -> None:
        """``COUNT`` exchanges are under way."""
        assert self.stage.core.in_flight == int(words[0]), str(self.stage.core.in_flight)

    def step_flood(self, words: list[str], body: list[str]) -> None:
        """``COUNT SOURCE NAME TYPE [RCODE]``: so many queries, ``#`` in NAME their number."""
        count, source, name, qtype, *rcode = words
        stage = self.stage
        for number in range(int(count)):
            wire = dns.message.make_query(name.replace("#", str(number)), qtype, id=number).to_wire()
            client = Client(to_packed(source), 50000 + number % 10000, to_packed("10.96.0.10"), "udp", 1)
            label = f"flood-{source}-{number}"
            stage.clients[label] = (client, wire)
            stage.take(stage.core.query_received(wire, client, stage.now))
            reply = stage.replies.pop(label, None)
            if rcode:
                assert reply is not None, f"no reply to query {number}"
                assert dns.rcode.to_text(dns.message.from_wire(reply).rcode()) == rcode[0], number
            else:
                assert reply is None, f"a reply to query {number}"

    def step_check_flood(self, words: list[str], body: list[str]) -> None:
        """``COUNT RCODE``: so many queries of floods were answered by now, all with RCODE."""
        labels = [label for label in self.stage.replies if label.startswith("flood-")]
        codes = {dns.message.from_wire(self.stage.replies.pop(label)).rcode() for label in labels}
        assert (len(labels), codes) == (int(words[0]), {dns.rcode.from_text(words[1])}), (len(labels), codes)

    def step_forget_upstream(self, words: list[str], body: list[str]) -> None:
        """``COUNT``: so many upstream questions are under way and will never be answered."""
        assert len(self.stage.upstream) == int(words[0]), f"{len(self.stage.upstream)} upstream questions"
        self.stage.upstream.clear()
