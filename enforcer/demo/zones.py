"""What the outside world's name server serves, as text for nsd.

Owns zone files and nsd's configuration. Pure: makes strings, writes nothing. Invariant: the
attacker's zone is answered like any other, so that only Nameward can be the reason for a refusal.
"""

from __future__ import annotations

from pathlib import Path

from enforcer.demo import places

_HEAD = """$ORIGIN {origin}.
$TTL 60
@ IN SOA ns.{origin}. hostmaster.{origin}. 1 3600 600 86400 5
@ IN NS ns.{origin}.
ns IN A {upstream4}
ns IN AAAA {upstream6}
"""

ORIGINS = ("example.com", "example.net", "example.org", "cluster.local")
"""The last plays the cluster's own DNS, which answers the search-list expansions of pods."""


def _head(origin: str) -> str:
    return _HEAD.format(origin=origin, upstream4=places.UPSTREAM4, upstream6=places.UPSTREAM6)


def _pair(owner: str, ttl_s: int, addresses: tuple[str, str]) -> list[str]:
    return [f"{owner} {ttl_s} IN A {addresses[0]}", f"{owner} {ttl_s} IN AAAA {addresses[1]}"]


def _com() -> list[str]:
    label = {name: name.removesuffix(".example.com") for name in places.SITE_OF}
    lines: list[str] = []
    for name in (places.CRM, places.LEDGER, places.NEW, places.TEMP, places.NEXT, places.FILES):
        lines += _pair(label[name], 60, places.SITE_OF[name])
    lines += _pair(label[places.SHORT], places.SHORT_TTL_S, places.SITE_OF[places.SHORT])
    lines += _pair(f"*.{label[places.FILES]}", 60, places.SITE_OF[places.FILES])
    lines += _pair("@", 60, places.site(1))
    lines.append("shop 60 IN CNAME shop.edge.example.org.")
    lines += [f"many 30 IN A {address}" for address in many_addresses()]
    for poison in (places.METADATA, "127.0.0.1", "10.1.2.3"):
        lines.append(f"mixed 60 IN A {poison}")
    lines += [f"mixed 60 IN AAAA {poison}" for poison in ("::1", "fd12:3456::1", "::ffff:10.1.2.3")]
    lines += _pair("mixed", 60, places.SITE_OF[places.MIXED])
    for index in range(len(places.BULK_NAMES)):
        lines += _pair(f"n{index:03d}", 1, bulk_addresses(index))
    return lines


def many_addresses() -> tuple[str, ...]:
    """Return the 500 addresses of the big answer."""
    return tuple(f"44.31.{10 + index // 250}.{1 + index % 250}" for index in range(places.MANY_COUNT))


def bulk_addresses(index: int) -> tuple[str, str]:
    """Return the addresses of the ``index``-th of the 1,000 names."""
    return f"44.31.{100 + index // 250}.{1 + index % 250}", f"2a10:4000::2:{index:x}"


def zone(origin: str) -> str:
    """Return the zone file of one of ORIGINS."""
    if origin == "example.com":
        lines = _com()
    elif origin == "example.net":
        lines = [*_pair("drop", 60, (places.ATTACKER4, places.ATTACKER6)), '*.t 0 IN TXT "go on"']
    elif origin == "cluster.local":
        lines = ["kubernetes.default.svc 30 IN A 10.96.0.1"]
    else:
        lines = ["shop.edge 60 IN CNAME pool7.example.org."]
        lines += _pair("pool7", 60, places.SITE_OF[places.SHOP])
    return _head(origin) + "\n".join(lines) + "\n"


def configuration(folder: Path) -> str:
    """Return nsd's configuration; zone files ``ORIGIN.zone`` and all state lie in ``folder``.

    Its rate limit is off (one resolver asks for everybody), as are its control socket, its chroot
    and its change of user: it lives in a namespace that reaches nothing.
    """
    zones = "".join(f"zone:\n  name: {origin}\n  zonefile: {folder}/{origin}.zone\n" for origin in ORIGINS)
    return f"""server:
  ip-address: {places.UPSTREAM4}
  ip-address: {places.UPSTREAM6}
  port: 53
  server-count: 1
  username: ""
  chroot: ""
  database: ""
  zonesdir: "{folder}"
  pidfile: "{folder}/nsd.pid"
  logfile: "{folder}/nsd.log"
  zonelistfile: "{folder}/zone.list"
  xfrdfile: "{folder}/xfrd.state"
  xfrdir: "{folder}"
  rrl-ratelimit: 0
  minimal-responses: yes
  tcp-timeout: 30
remote-control:
  control-enable: no
{zones}"""
