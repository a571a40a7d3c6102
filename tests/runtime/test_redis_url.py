"""Where Redis is: every form of URL, and what is said of a wrong one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.runtime.kinds import Wrong
from policy.runtime.redis_url import Address, Kind, RedisPlace, RedisUrl, parse_redis_url

SINGLE, SENTINEL, CLUSTER = Kind.SINGLE, Kind.SENTINEL, Kind.CLUSTER


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://redis", RedisPlace(SINGLE, (Address("redis", 6379),))),
        ("redis://10.0.0.9:7000/3", RedisPlace(SINGLE, (Address("10.0.0.9", 7000),), db=3)),
        ("redis://nameward@h", RedisPlace(SINGLE, (Address("h", 6379),), user="nameward")),
        ("rediss://nw@h:6379/0", RedisPlace(SINGLE, (Address("h", 6379),), user="nw", tls=True)),
        ("redis://[2001:db8::1]", RedisPlace(SINGLE, (Address("2001:db8::1", 6379),))),
        ("redis://[fe80::1%eth0]:1/", RedisPlace(SINGLE, (Address("fe80::1%eth0", 1),))),
        ("unix:///run/redis.sock", RedisPlace(SINGLE, (Address("", 0, "/run/redis.sock"),))),
        ("unix://me@/run/r?db=2", RedisPlace(SINGLE, (Address("", 0, "/run/r"),), user="me", db=2)),
        (
            "redis+sentinel://u@a,b:1,[::1]/mymaster/2",
            RedisPlace(
                SENTINEL,
                (Address("a", 26379), Address("b", 1), Address("::1", 26379)),
                user="u",
                db=2,
                master="mymaster",
            ),
        ),
        (
            "rediss+sentinel://a/m",
            RedisPlace(SENTINEL, (Address("a", 26379),), tls=True, master="m"),
        ),
        ("redis+cluster://a,b:7001", RedisPlace(CLUSTER, (Address("a", 6379), Address("b", 7001)))),
        ("rediss+cluster://a/0", RedisPlace(CLUSTER, (Address("a", 6379),), tls=True)),
        ("redis+cluster://a,a", RedisPlace(CLUSTER, (Address("a", 6379),))),
    ],
)
def test_a_url_is_a_place(url: str, place: RedisPlace) -> None:
    """Ports by default: 6379, Sentinel's 26379; IPv6 in brackets."""
    assert parse_redis_url(url) == place
    assert RedisUrl().read(url) == url
    assert RedisUrl().show(url) == url


@pytest.mark.parametrize(
    ("url", "message", "fix"),
    [
        ("redis://user:sesame@h", "password in the URL", "passwordFile"),
        ("redis://:sesame@h/0", "password in the URL", "passwordFile"),
        ("redis://user:ses@ame@h", "password in the URL", "passwordFile"),
        ("rediss+sentinel://u:sesame@a,b/m", "password in the URL", "passwordFile"),
        ("unix://u:sesame@/run/r", "password in the URL", "passwordFile"),
        ("redis://", "no host", "redis://"),
        ("redis://@h", "the user in the URL is no name", "leave it out"),
        ("redis://h:", "no port after its colon", "HOST:PORT"),
        ("redis://h:0", "port 0 is out of bounds", "1 to 65535"),
        ("redis://h:99999", "port 99999 is out of bounds", "1 to 65535"),
        ("redis://2001:db8::1", "is not HOST:PORT", "brackets"),
        ("redis://h/one", "is not a database's number", "such as 0"),
        ("redis://h/1/2", "is not a database's number", "such as 0"),
        ("redis://a,b", "several hosts need", "how they stand together"),
        ("redis://h?ssl=1", "has a ?query", "leave it out"),
        ("unix://run/redis.sock", "absolute path", "unix:///run"),
        ("unix:///r?database=1", "only ?db=DB", "?db=1"),
        ("unix:///" + "x" * 110, "more than 107 octets", "shorter"),
        ("redis+sentinel://a,b", "the master's name is missing", "/MASTER"),
        ("redis+cluster://a/1", "one database only", "leave out"),
        ("redis+cluster://" + ",".join(f"h{n}" for n in range(33)), "33 hosts are too many", "at most 32"),
        ("http://h", "unknown scheme 'http'", "redis://"),
        ("redis+x://h", "unknown scheme 'redis+x'", "redis://"),
        ("redis:h", "no URL of Redis", "redis://"),
        ("", "no URL of Redis", "redis://"),
        ("redis://h\n", "blanks", "redis://"),
        ("redis://hôte", "beyond ASCII", "redis://"),
    ],
)
def test_a_wrong_one_says_what_to_write(url: str, message: str, fix: str) -> None:
    """And never repeats a password."""
    with pytest.raises(Wrong) as refused:
        parse_redis_url(url)
    assert message in refused.value.message
    assert fix in refused.value.fix
    assert "sesame" not in refused.value.message + refused.value.fix


def test_what_is_no_text_or_too_long() -> None:
    """As for every other setting."""
    for value in (5, None, ["redis://h"], "redis://" + "h" * 3000):
        with pytest.raises(Wrong):
            RedisUrl().read(value)


@given(st.text(st.characters(codec="ascii"), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing else is raised; what is read has a host and a port, or a path."""
    for url in (text, f"redis://{text}", f"unix://{text}", f"redis+sentinel://{text}"):
        try:
            place = parse_redis_url(url)
        except Wrong:
            continue
        else:
            assert all(bool(one.path) != bool(one.host) for one in place.addresses)


def test_a_place_is_shown_as_people_write_it() -> None:
    """IPv6 in brackets, a socket by its path."""
    assert str(Address("h", 1)) == "h:1"
    assert str(Address("::1", 1)) == "[::1]:1"
    assert str(Address("", 0, "/run/r")) == "/run/r"
