"""The table of special-purpose addresses: never given to a name by a permit of the public.

Owns the ranges, made by hand from the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC
6890 and its updates), the multicast registries and the clouds' metadata addresses. Never decides.
Python's ``ipaddress`` predicates are not used: they call multicast and 64:ff9b::a9fe:a9fe global.
Where the registries say neither true nor false of "globally reachable" (6to4, Teredo), the range
is guarded. The anycast pair 192.0.0.9 and .10 (PCP, TURN) stays guarded with its /24: it reaches
the nearest translator, not a public host. All IPv6 outside 2000::/3 is guarded except NAT64's
64:ff9b::/96, which is as special as the IPv4 address in it.
"""

from __future__ import annotations

METADATA: tuple[str, ...] = (
    "169.254.169.254",  # AWS, Azure, GCP, OpenStack and most others
    "169.254.170.2",  # AWS ECS task credentials
    "169.254.170.23",  # AWS EKS pod identity
    "169.254.42.42",  # Scaleway
    "100.100.100.200",  # Alibaba Cloud
    "192.0.0.192",  # Oracle Cloud (classic)
    "168.63.129.16",  # Azure wire server: global on paper
    "fd00:ec2::254",  # AWS
    "fd00:ec2::23",  # AWS EKS pod identity
    "fd20:ce::254",  # GCP
    "fd00:42::42",  # Scaleway
)
"""Addresses that hand out credentials or drive the fabric, each a guarded range of its own."""

IPV4: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "this-network"),
    ("10.0.0.0/8", "private-use"),
    ("100.64.0.0/10", "shared"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private-use"),
    ("192.0.0.0/24", "protocol-assignment"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "6to4-relay"),
    ("192.168.0.0/16", "private-use"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("255.255.255.255/32", "broadcast"),
)

IPV6: tuple[tuple[str, str], ...] = (
    ("::/3", "reserved"),
    ("::/96", "ipv4-compatible"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("::ffff:0:0/96", "ipv4-mapped"),
    ("::ffff:0:0:0/96", "ipv4-translated"),
    ("64:ff9b:1::/48", "local-nat64"),
    ("100::/64", "discard"),
    ("100:0:0:1::/64", "dummy"),
    ("2001::/23", "protocol-assignment"),
    ("2001::/32", "teredo"),
    ("2001:2::/48", "benchmarking"),
    ("2001:10::/28", "orchid"),
    ("2001:20::/28", "orchid"),
    ("2001:db8::/32", "documentation"),
    ("2002::/16", "6to4"),
    ("3fff::/20", "documentation"),
    ("4000::/2", "reserved"),
    ("5f00::/16", "segment-routing"),
    ("8000::/1", "reserved"),
    ("fc00::/7", "unique-local"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
)
"""A more specific range names an address; all of them guard it."""

GLOBAL_IPV6: tuple[str, ...] = ("64:ff9b::/96", "2001:3::/32", "2001:4:112::/48")
"""Parts of the ranges above that are globally reachable: NAT64, AMT, AS112."""

NAT64 = "64:ff9b::"
EMBEDDING_IPV6: tuple[tuple[str, int], ...] = (
    ("::/96", 96),
    ("::ffff:0:0/96", 96),
    ("::ffff:0:0:0/96", 96),
    ("64:ff9b::/96", 96),
    ("2002::/16", 16),
    ("2001::/32", 32),
)
"""Ranges that carry an IPv4 address and the bit where it begins (RFC 4291, 6052, 3056, 4380).

Teredo carries two: its server at bit 32 and, inverted, the client in the last 32 bits.
"""
