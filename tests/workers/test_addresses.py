"""Where workers listen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from komas.errors import SettingError
from komas.settings import MOST_WORKERS, Settings
from komas.workers.addresses import NAME_LENGTH, addresses, check, nginx_upstream, node_name

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
SHARED = Settings(backplane="redis://127.0.0.1", workers=2)


@pytest.mark.parametrize(
    ("binds", "expected"),
    [
        (["127.0.0.1:8000"], [("127.0.0.1:8000",), ("127.0.0.1:8001",)]),
        (["[::1]:8000"], [("[::1]:8000",), ("[::1]:8001",)]),
        (["unix:/run/komas/komas.sock"], [("unix:/run/komas/komas.0.sock",), ("unix:/run/komas/komas.1.sock",)]),
        (["unix:/run/komas"], [("unix:/run/komas.0",), ("unix:/run/komas.1",)]),
        (["unix:/run/a.b.sock"], [("unix:/run/a.b.0.sock",), ("unix:/run/a.b.1.sock",)]),
        (["localhost:65534", "unix:/k"], [("localhost:65534", "unix:/k.0"), ("localhost:65535", "unix:/k.1")]),
    ],
)
def test_each_worker_has_addresses_of_its_own(binds: list[str], expected: list[tuple[str, ...]]) -> None:
    """The next port, or a file with its number."""
    assert addresses(binds, 2) == expected


@pytest.mark.parametrize(
    ("binds", "words"),
    [
        (["127.0.0.1:0"], "a proxy must know the ports"),
        (["127.0.0.1:65535"], "there is no port 65536"),
        (["127.0.0.1:8000", "127.0.0.1:8001"], "127.0.0.1:8001 would be the address of two workers"),
        (["unix:/k", "unix:/k"], "unix:/k.0 would be the address of two workers"),
    ],
)
def test_addresses_that_cannot_be_are_refused(binds: list[str], words: str) -> None:
    """Before any process is started."""
    with pytest.raises(SettingError, match=f"workers: .*{words}") as caught:
        addresses(binds, 2)
    assert caught.value.field == "workers"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(workers=2), "give --backplane"),
        (Settings(workers=2, demo=True, backplane="redis://127.0.0.1"), "the demo is one process"),
        (Settings(workers=2, bind=("127.0.0.1:0",), backplane="redis://127.0.0.1"), "must know the ports"),
    ],
)
def test_workers_that_could_share_nothing_are_refused(settings: Settings, words: str) -> None:
    """N feeds of one exchange, with N epochs, would look as if they worked."""
    with pytest.raises(SettingError, match=words):
        check(settings)
    check(SHARED)


def test_nginx_sends_newcomers_to_the_emptiest_worker() -> None:
    """Counted by all of its processes together, and nobody is left out for a while because it was restarted."""
    settings = Settings(backplane="redis://127.0.0.1", workers=2, bind=("0.0.0.0:8000", "unix:/k.sock"))
    lines = nginx_upstream(settings)
    block = "\n".join(lines)
    assert "least_conn;" in block
    assert "zone komas_workers " in block
    assert "server 127.0.0.1:8000 max_fails=0;" in block
    assert "server 127.0.0.1:8001 max_fails=0;" in block
    assert "KOMAS_TRUSTED_PROXIES" in block
    by_file = nginx_upstream(Settings(backplane="redis://127.0.0.1", workers=2, bind=("unix:/k.sock",)))
    assert "    server unix:/k.1.sock max_fails=0;" in by_file
    assert "KOMAS_TRUSTED_PROXIES" not in "".join(by_file)
    assert "server [::1]:9 max_fails=0;" in "".join(nginx_upstream(Settings(workers=1, bind=("[::]:9",))))


def test_the_document_shows_what_is_printed() -> None:
    """To the letter: it is what people copy."""
    [block] = re.findall(r"```nginx\n(.*?)\n```", PAGE.read_text("utf-8"), re.DOTALL)
    settings = Settings(backplane="redis://127.0.0.1", workers=4, bind=("unix:/run/komas/komas.sock",))
    assert block.split("\n") == nginx_upstream(settings)


def test_a_worker_is_called_as_its_machine_and_its_number() -> None:
    """Whatever the machine is called; a name that no node may have is refused."""
    assert node_name("host.example", 3) == "host.example-3"
    assert node_name("my host", 0) == "my-host-0"
    longest = "a" * (NAME_LENGTH - len(f"-{MOST_WORKERS - 1}"))
    assert len(node_name(longest, MOST_WORKERS - 1)) == NAME_LENGTH
    with pytest.raises(SettingError, match="too long"):
        node_name(longest + "a", MOST_WORKERS - 1)
