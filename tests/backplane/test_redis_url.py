"""Where Redis is: what is understood, and that what is not is refused without being repeated."""

from __future__ import annotations

import pytest

from komas.backplane.redis_url import RedisUrl, parse_redis_url
from komas.errors import SettingError

PASSWORD = "s3cr:t/?#@x"
QUOTED = "s3cr%3At%2F%3F%23%40x"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("redis://localhost", RedisUrl(hosts=(("localhost", 6379),))),
        ("redis://10.0.0.1:7000/3", RedisUrl(hosts=(("10.0.0.1", 7000),), db=3)),
        ("redis://[::1]:7000/", RedisUrl(hosts=(("::1", 7000),))),
        ("redis://[::1]", RedisUrl(hosts=(("::1", 6379),))),
        (f"redis://:{QUOTED}@h", RedisUrl(hosts=(("h", 6379),), password=PASSWORD)),
        (f"redis://komas:{QUOTED}@h/1", RedisUrl(hosts=(("h", 6379),), username="komas", password=PASSWORD, db=1)),
        ("rediss://h", RedisUrl(hosts=(("h", 6379),), is_tls=True)),
        ("rediss://h?ca=/etc/ca.pem", RedisUrl(hosts=(("h", 6379),), is_tls=True, ca="/etc/ca.pem")),
        ("unix:///run/redis.sock", RedisUrl(path="/run/redis.sock")),
        ("unix:///run/my%20redis.sock?db=2", RedisUrl(path="/run/my redis.sock", db=2)),
        (f"unix://u:{QUOTED}@/run/r.sock", RedisUrl(path="/run/r.sock", username="u", password=PASSWORD)),
        (
            "redis+sentinel://a,b:1,[::1]:2/prices/4",
            RedisUrl(hosts=(("a", 26379), ("b", 1), ("::1", 2)), service="prices", db=4),
        ),
        (
            f"rediss+sentinel://u:{QUOTED}@a/prices?ca=x.pem",
            RedisUrl(hosts=(("a", 26379),), service="prices", username="u", password=PASSWORD, is_tls=True, ca="x.pem"),
        ),
    ],
)
def test_a_url_is_understood(text: str, url: RedisUrl) -> None:
    """Every form that the settings' text names."""
    assert parse_redis_url(text) == url
    assert PASSWORD not in f"{url} {url!r}"
    assert QUOTED not in f"{url} {url!r}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost:6379",
        "hunter2@localhost:6379",
        "http://:hunter2@localhost",
        "redis://",
        "redis://:hunter2@",
        "redis://:hunter2@h:port",
        "redis://:hunter2@h:0",
        "redis://:hunter2@a..b",
        "redis://:hunter2@h:65536",
        "redis://:hunter2@h:6379/zero",
        "redis://:hunter2@h/0/1",
        "redis://:hunter2@a,b",
        "redis://:hunter2@h?db=1",
        "redis://:hunter2@h?ca=x",
        "redis://:hunter2@h#x",
        "redis://:hunter2#@h",
        "redis://:hunter2/@h",
        "redis://:hunter2@x@h",
        "redis://:hunter2[@h",
        "redis://hunter2@h",
        "redis://:hunter2@h ",
        "redis://:hunter2@h\n",
        "redis://:hunter2@::1",
        "rediss://:hunter2@h?ca=",
        "rediss://:hunter2@h?ca=a&ca=b",
        "rediss://:hunter2@h?password=x",
        "unix://:hunter2@h/run/r.sock",
        "unix://:hunter2@",
        "unix:///",
        "unix:///run/r.sock?db=-1",
        "redis+sentinel://:hunter2@a",
        "redis+sentinel://:hunter2@a/",
        "redis+sentinel://:hunter2@a,/x",
        "redis+sentinel://:hunter2@a/x/y",
    ],
)
def test_a_wrong_url_is_refused_without_being_repeated(text: str) -> None:
    """What was written may hold a password in a place where none belongs."""
    with pytest.raises(SettingError) as refusal:
        parse_redis_url(text)
    assert "hunter2" not in str(refusal.value)
    assert "redis://[user:password@]host" in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_what_a_server_says_is_told_without_the_password() -> None:
    """A server that does not know ``HELLO`` repeats what it was told."""
    url = parse_redis_url(f"redis://:{QUOTED}@h")
    assert url.without_secrets(f"ERR unknown command 'HELLO' 3 AUTH default {PASSWORD}") == (
        "ERR unknown command 'HELLO' 3 AUTH default ***"
    )
    assert parse_redis_url("redis://h").without_secrets("no secret") == "no secret"
