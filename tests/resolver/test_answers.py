"""Messages of upstreams: what is understood of them, whatever they hold."""

from __future__ import annotations

import dns.message
import dns.rrset
import pytest

from resolver.answers import UpstreamRefusal, read_answer
from resolver.messages import is_within
from resolver.records import WireError, read_name
from tests.resolver.corpus import read_samples

SAMPLES = read_samples("answers.txt")
NAME = b"\x03www\x07example\x03com\x00"


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.title)
def test_corpus(sample):
    """Of each message of the corpus exactly that is understood which stands beside it."""
    if sample.expected == ("error",):
        with pytest.raises(WireError):
            read_answer(sample.wire, NAME, 1, signed=False)
        return
    if sample.expected == ("refusal",):
        with pytest.raises(UpstreamRefusal):
            read_answer(sample.wire, NAME, 1, signed=False)
        return
    answer = read_answer(sample.wire, NAME, 1, signed=False)
    found = [f"records={len(answer.records)}"]
    if answer.chain:
        found.append(f"chain={len(answer.chain)}")
    if answer.soa:
        found.append("soa")
    assert tuple(found) == sample.expected


@pytest.mark.parametrize(
    ("rtype", "text", "expected"),
    [
        ("MX", "10 MAIL.Example.net.", b"\x00\x0a\x04mail\x07example\x03net\x00"),
        ("SRV", "1 2 443 DB.example.net.", b"\x00\x01\x00\x02\x01\xbb\x02db\x07example\x03net\x00"),
        ("PTR", "Host.example.net.", b"\x04host\x07example\x03net\x00"),
        ("TXT", '"a" "B"', b"\x01a\x01B"),
        ("CAA", '0 issue "ca.example"', b"\x00\x05issueca.example"),
    ],
)
def test_names_in_rdata_are_whole_and_lower(rtype, text, expected):
    """RDATAs are uncompressed and lower-case in their names (RFC 4034, 6.2), their text untouched."""
    response = dns.message.make_response(dns.message.make_query("www.example.com", rtype))
    response.answer.append(dns.rrset.from_text("www.example.com.", 60, "IN", rtype, text))
    rtype = dns.rdatatype.from_text(rtype)
    assert read_answer(response.to_wire(), NAME, rtype, signed=False).records == (expected,)


def test_broken_unusual_rdata_is_an_error():
    """An RDATA that dnspython cannot read is not passed on."""
    wire = b"\x00\x00\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" + NAME + b"\x00\x10\x00\x01"
    wire += b"\xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x3c\x00\x02\x05a"
    with pytest.raises(WireError):
        read_answer(wire, NAME, 16, signed=False)


def test_too_many_unusual_records_are_an_error():
    """A set of thousands of TXT records would hold up everybody else: it is not read."""
    record = b"\xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x3c\x00\x02\x01a"
    wire = b"\x00\x00\x81\x80\x00\x01\x0f\xa0\x00\x00\x00\x00" + NAME + b"\x00\x10\x00\x01" + record * 4000
    with pytest.raises(WireError):
        read_answer(wire, NAME, 16, signed=False)


def test_pointers_to_pointers_are_bounded():
    """A message of 64 kB whose every owner is a long chain of pointers is refused, not walked."""
    head = b"\x00\x00\x81\x80\x00\x01\xff\xff\x00\x00\x00\x00" + NAME + b"\x00\x01\x00\x01"
    pointers = b"\xc0\x0c" + b"".join((0xC000 | len(head) + 2 * i).to_bytes(2, "big") for i in range(4000))
    with pytest.raises(WireError):
        read_name(head + pointers, len(head) + 2 * 3999)
    with pytest.raises(WireError):
        read_answer(head + pointers, NAME, 1, signed=False)


@pytest.mark.parametrize(
    ("name", "zone", "within"),
    [
        (NAME, NAME, True),
        (NAME, b"\x07example\x03com\x00", True),
        (NAME, b"\x00", True),
        (NAME, b"\x06xample\x03com\x00", False),
        (b"\x03com\x00", NAME, False),
        (b"\x0bevil\x03com\x00aaaaa\x00", b"\x03com\x00", False),
    ],
)
def test_is_within_is_label_aligned(name, zone, within):
    """A zone is a suffix on label borders."""
    assert is_within(name, zone) is within


def test_compressed_records_cost_what_they_take():
    """Three thousand names of 250 octets fit into 64 KiB of message: the cache is told the whole of it."""
    owner = b"\x03www\x07example\x03com\x00"
    target = b"".join(b"\x3e" + bytes([97 + n]) * 62 for n in range(3)) + b"\xc0\x0c"
    question = owner + b"\x00\x02\x00\x01"
    first = b"\xc0\x0c\x00\x02\x00\x01\x00\x00\x00\x3c" + len(target).to_bytes(2, "big") + target
    at = 12 + len(question) + 12
    others = b"".join(
        b"\xc0\x0c\x00\x02\x00\x01\x00\x00\x00\x3c\x00\x06"
        + b"\x03"
        + n.to_bytes(3, "big")
        + (0xC000 | at).to_bytes(2, "big")
        for n in range(3000)
    )
    wire = b"\x00\x01\x81\x80\x00\x01" + (3001).to_bytes(2, "big") + bytes(4) + question + first + others
    answer = read_answer(wire, owner, 2, signed=False)
    assert len(wire) < 65536
    assert len(answer.records) > 2000, "some are equal in lower case"
    assert answer.size_bytes > sum(map(len, answer.records)) > 500_000
