"""Settings: who beats whom, and one clear line for what cannot be used."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypercorn.config import Config

from komas.errors import SettingError
from komas.model.kinds import Venue
from komas.settings import ALIASES, FIELDS, SECRETS, Settings, load
from komas.venues.binance.hosts import Hosts, complete, rest_beside

ROOT = Path(__file__).parents[1]


def test_option_beats_variable_beats_file_beats_default(tmp_path: Path) -> None:
    """Each source in its turn."""
    (tmp_path / "komas.toml").write_text("linger_s = 1\nheartbeat_s = 1\nmax_sse = 1\n")
    environment = {"KOMAS_HEARTBEAT_S": "2", "KOMAS_MAX_SSE": "2"}
    settings = load({"max_sse": "3", "linger_s": None}, environment, folder=tmp_path)
    assert (settings.linger_s, settings.heartbeat_s, settings.max_sse, settings.max_symbols) == (1, 2, 3, 200)


def test_types_of_the_file_are_read(tmp_path: Path) -> None:
    """Lists, booleans, numbers and texts."""
    (tmp_path / "komas.toml").write_text(
        'bind = ["127.0.0.1:1", "[::1]:2"]\ndemo = true\ndefault_symbols = "btcusdt, ethusdt"\njournal = 100\n'
    )
    settings = load({}, {}, folder=tmp_path)
    assert settings.bind == ("127.0.0.1:1", "[::1]:2")
    assert (settings.demo, settings.default_symbols, settings.journal) == (True, ("BTCUSDT", "ETHUSDT"), 100)


@pytest.mark.parametrize(
    ("options", "environment", "words"),
    [
        ({"heartbeat_s": "99"}, {}, "--heartbeat-s: got '99'; accepted: 0.1 to 30"),
        ({"heartbeat_s": "nan"}, {}, "accepted: 0.1 to 30"),
        ({}, {"KOMAS_MAX_SSE": "many"}, "KOMAS_MAX_SSE: got 'many'; accepted: 1 to 1000000"),
        ({"bind": "8000"}, {}, "accepted: host:port"),
        ({"bind": "localhost:99999"}, {}, "accepted: host:port"),
        ({"bind": "unix:komas.sock"}, {}, "accepted: host:port or unix:/path"),
        ({"bind": "unix:"}, {}, "accepted: host:port or unix:/path"),
        ({"bind": "unix:@komas"}, {}, "accepted: host:port or unix:/path"),
        ({"bind": "unix:/run/komas.sock:8000"}, {}, "unix:/path (which has no port)"),
        ({"unix_socket_mode": "888"}, {}, "accepted: 600 to 777"),
        ({"unix_socket_mode": "060"}, {}, "accepted: 600 to 777"),
        ({"unix_socket_mode": "rw"}, {}, "accepted: 600 to 777"),
        ({"upstream": "https://x"}, {}, "accepted: ws://host:port or wss://host:port"),
        ({"upstream": "wss://user:secret@x"}, {}, "accepted: ws://"),
        ({"upstream": "ws://a b"}, {}, "accepted: ws://"),
        ({"upstream": "wss://a..b"}, {}, "accepted: ws://"),
        ({"upstream": "ws://x/stream"}, {}, "accepted: ws://"),
        ({"rest_upstream": "ws://x"}, {}, "accepted: http://"),
        ({"cors_origins": "example.com"}, {}, "accepted: * or origins"),
        ({"trusted_proxies": "nginx"}, {}, "accepted: IP addresses"),
        ({"trusted_proxies": "10.0.0.1/8"}, {}, "accepted: IP addresses and networks"),
        ({"default_symbols": "BTC_USDT"}, {}, "accepted: symbols"),
        ({"default_symbols": ","}, {}, "accepted: symbols"),
        ({"log_level": "LOUD"}, {}, "accepted: DEBUG INFO"),
        ({"demo": "perhaps"}, {}, "accepted: true or false"),
        ({"jwt_algorithm": "none"}, {}, "accepted: HS256 RS256 ES256 EdDSA"),
        ({"jwt_jwks_url": "http://issuer.example/jwks"}, {}, "accepted: https://"),
        ({"jwt_jwks_url": "https://user:pass@issuer.example/jwks"}, {}, "accepted: https://"),
        ({"jwt_leeway_s": "-1"}, {}, "accepted: 0 to 300"),
        ({"database_url": "sqlite:///:memory:"}, {}, "accepted: sqlite:///file"),
        ({"database_url": "sqlite://"}, {}, "accepted: sqlite:///file"),
        ({"database_url": "sqlite:///x.db?mode=ro"}, {}, "accepted: sqlite:///file"),
        ({"database_url": "postgresql+psycopg://h:port/db"}, {}, "accepted: sqlite:///file"),
        ({"signal_types": "Mexc DEX"}, {}, "accepted: words"),
        ({"max_sockets": "0"}, {}, "accepted: 1 to 1000000"),
        ({"data_dir": "~nobody-of-that-name/x"}, {}, "accepted: a folder"),
    ],
)
def test_a_wrong_value_is_one_line(
    options: dict[str, str | None], environment: dict[str, str], words: str, tmp_path: Path
) -> None:
    """Which names the key, what was given and what is accepted."""
    with pytest.raises(SettingError) as caught:
        load(options, environment, folder=tmp_path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_secret_is_not_repeated(tmp_path: Path) -> None:
    """Not even a wrong one."""
    with pytest.raises(SettingError) as caught:
        load({}, {"KOMAS_ADMIN_TOKEN": "hunter2"}, folder=tmp_path)
    assert str(caught.value).startswith("KOMAS_ADMIN_TOKEN: 7 characters given; accepted: at least 16")
    for name in ("KOMAS_JWT_SECRET", "KOMAS_DATABASE_URL"):
        with pytest.raises(SettingError) as caught:
            load({}, {name: "hunter2"}, folder=tmp_path)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("key", sorted(SECRETS))
def test_a_secret_may_be_in_a_file(key: str, tmp_path: Path) -> None:
    """As Docker and systemd hand it over; a variable is seen by whoever may look at the process."""
    file, named = tmp_path / "secret", f"KOMAS_{key.upper()}_FILE"
    urls = {"database_url": "postgresql+psycopg://komas:hunter2@db/komas", "backplane": "redis://:hunter2@redis/0"}
    secret = urls.get(key, "s" * 40)
    file.write_text(f"{secret}\n")
    assert getattr(load({}, {named: str(file)}, folder=tmp_path), key) == secret
    assert getattr(load({key: f"{secret}2"}, {named: str(file)}, folder=tmp_path), key) == f"{secret}2"
    with pytest.raises(SettingError, match="are the same setting: give one of them") as caught:
        load({}, {named: str(file), f"KOMAS_{key.upper()}": secret}, folder=tmp_path)
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\n", "is empty"),
        (b"\xff\xfe", "cannot be read: it is no text"),
        (b"hunter2", "7 characters given; accepted: at least 16"),
    ],
)
def test_a_file_without_a_secret_is_one_line(content: bytes | None, words: str, tmp_path: Path) -> None:
    """Which names the variable, and not what is in the file."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingError, match=words) as caught:
        load({}, {"KOMAS_ADMIN_TOKEN_FILE": str(file)}, folder=tmp_path)
    assert str(caught.value).startswith("KOMAS_ADMIN_TOKEN")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(SettingError, match=r"KOMAS_BIND_FILE: unknown setting"):
        load({}, {"KOMAS_BIND_FILE": str(file)}, folder=tmp_path)


def test_a_demo_keeps_its_signals_apart(tmp_path: Path) -> None:
    """No simulated signal among real ones, unless a folder was named."""
    assert load({"demo": "true"}, {}, folder=tmp_path).data_dir != load({}, {}, folder=tmp_path).data_dir
    assert load({"demo": "true", "data_dir": str(tmp_path)}, {}, folder=tmp_path).data_dir == tmp_path


def test_a_misspelt_variable_is_refused(tmp_path: Path) -> None:
    """With what was meant; variables of other programs are none of ours."""
    with pytest.raises(SettingError, match=r"KOMAS_MAX_SSES: unknown setting; did you mean KOMAS_MAX_SSE\?"):
        load({}, {"KOMAS_MAX_SSES": "3"}, folder=tmp_path)
    with pytest.raises(SettingError, match=r"KOMAS_data_dir: unknown setting; did you mean KOMAS_DATA_DIR\?"):
        load({}, {"KOMAS_data_dir": "x"}, folder=tmp_path)
    with pytest.raises(SettingError, match=r"KOMAS_BINDD: unknown setting; did you mean KOMAS_BIND\?"):
        load({}, {"KOMAS_BINDD": "x"}, folder=tmp_path)
    with pytest.raises(SettingError, match=r"KOMAS_WEATHER: unknown setting; docs/operations\.md lists"):
        load({}, {"KOMAS_WEATHER": "fine"}, folder=tmp_path)
    others = (
        "KOMAS_WEB_SERVICE_HOST",
        "KOMAS_WEB_PORT_80_TCP_PROTO",
        "KOMAS_TOKEN",
        "KOMAS_SERVICE_HOST",
        "KOMAS_SERVICE_PORT",
        "KOMAS_PORT",
        "KOMAS_PORT_8000_TCP_ADDR",
    )
    assert load({}, dict.fromkeys(others, "x"), folder=tmp_path) == load({}, {}, folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("heartbeats = 1", "komas.toml: heartbeats: unknown setting; did you mean heartbeat_s?"),
        ("zzz = 1", "known keys: bind"),
        ("heartbeat_s = [1]", "heartbeat_s is a list"),
        ("heartbeat_s = ", "komas.toml cannot be read"),
    ],
)
def test_a_wrong_file_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    """With a guess at what was meant."""
    (tmp_path / "komas.toml").write_text(text)
    with pytest.raises(SettingError, match=words.replace("?", r"\?")):
        load({}, {}, folder=tmp_path)


@pytest.mark.parametrize(("name", "value"), [("PORT", "9000"), ("HOST", "127.0.0.1"), ("LISTEN", ":9000")])
def test_what_other_servers_call_it_is_hinted_at(name: str, value: str, tmp_path: Path) -> None:
    """As a variable and as a key; a port that Kubernetes wrote is no setting of ours."""
    with pytest.raises(SettingError, match=rf"KOMAS_{name}: unknown setting; did you mean KOMAS_BIND\?"):
        load({}, {f"KOMAS_{name}": value}, folder=tmp_path)
    (tmp_path / "komas.toml").write_text(f'{name.lower()} = "{value}"')
    with pytest.raises(SettingError, match=r"unknown setting; did you mean bind\?"):
        load({}, {}, folder=tmp_path)
    (tmp_path / "komas.toml").unlink()
    assert load({}, {"KOMAS_PORT": "tcp://10.0.0.1:8000"}, folder=tmp_path).bind == Settings().bind


def test_every_setting_can_be_read_and_is_documented() -> None:
    """No field without its row, no row without its field, no default that the page tells wrong."""
    assert set(FIELDS) == set(Settings.__struct_fields__)
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    for key, field in FIELDS.items():
        default = getattr(Settings(), key)
        shown = (
            ",".join(default)
            if isinstance(default, tuple)
            else f"{default:g}"
            if isinstance(default, float)
            else default
        )
        shown = str(shown).lower() if isinstance(default, bool) else str(shown)
        cell = "" if shown in ("", "None") else f"`{shown}`"
        assert f"| `{key}` | {cell} | {field.accepts} | {field.meaning} |" in page


@pytest.mark.parametrize(
    ("upstream", "rest"),
    [
        ("wss://stream.binance.com:9443", "https://api.binance.com"),
        ("wss://stream.binance.com", "https://api.binance.com"),
        ("wss://data-stream.binance.vision", "https://data-api.binance.vision"),
        ("ws://127.0.0.1:9443", "http://127.0.0.1:9443"),
        ("wss://double.test", "https://double.test"),
    ],
)
def test_the_rest_host_follows_the_stream_host(upstream: str, rest: str) -> None:
    """Binance's own pairs; anything else is a double, which serves both on one port."""
    assert rest_beside(upstream) == rest


def test_a_setting_that_was_renamed_is_read_by_both_names(tmp_path: Path) -> None:
    """From every source; one that is given twice is refused, and an option beats a variable, however called."""
    assert set(ALIASES.values()) <= set(FIELDS)
    for older, key in ALIASES.items():
        url = "https://x.test" if "rest" in key else "wss://x.test"
        for given in (older, key):
            assert getattr(load({given: url}, {}, folder=tmp_path), key) == url
            assert getattr(load({}, {f"KOMAS_{given.upper()}": url}, folder=tmp_path), key) == url
        with pytest.raises(SettingError, match="are the same setting"):
            load({older: url, key: url}, {}, folder=tmp_path)
    (tmp_path / "komas.toml").write_text('upstream = "wss://file.test"\n')
    assert load({}, {}, folder=tmp_path).binance_upstream == "wss://file.test"
    variables = {"KOMAS_BINANCE_UPSTREAM": "wss://variable.test"}
    assert load({}, variables, folder=tmp_path).binance_upstream == "wss://variable.test"
    assert load({"upstream": "wss://option.test"}, variables, folder=tmp_path).binance_upstream == "wss://option.test"


def test_hosts_that_are_not_named_follow_those_that_are() -> None:
    """Binance's own belong together; a double serves every market on one port."""
    spot, usdm = Venue.BINANCE, Venue.BINANCE_USDM
    known = complete({spot: Hosts(), usdm: Hosts()})
    assert known[spot] == Hosts("wss://stream.binance.com:9443", "https://api.binance.com")
    assert known[usdm] == Hosts("wss://fstream.binance.com", "https://fapi.binance.com")
    double = complete({spot: Hosts("ws://127.0.0.1:1"), usdm: Hosts()})
    assert set(double.values()) == {Hosts("ws://127.0.0.1:1", "http://127.0.0.1:1")}
    testnet = complete({spot: Hosts("wss://stream.testnet.binance.vision"), usdm: Hosts()})
    assert testnet[usdm] == Hosts("wss://fstream.binancefuture.com", "https://testnet.binancefuture.com")
    named = complete({spot: Hosts(rest="https://r.test"), usdm: Hosts("wss://f.test", "https://fr.test")})
    assert (named[spot].rest, named[usdm]) == ("https://r.test", Hosts("wss://f.test", "https://fr.test"))


def test_the_data_folder_may_be_this_one(tmp_path: Path) -> None:
    """``.`` is a folder like any other; without one, it is the user's."""
    assert load({"data_dir": "."}, {}, folder=tmp_path).data_dir == Path()
    assert "komas" in str(load({}, {}, folder=tmp_path).data_dir)


def test_hypercorn_knows_every_key_of_its_file() -> None:
    """Hypercorn ignores a misspelt one without a word; and a second process would be a second connection."""
    known = {key for key in dir(Config) if not key.startswith("_")}
    table = tomllib.loads((ROOT / "hypercorn.toml").read_text("utf-8"))
    assert set(table) <= known
    assert (table["worker_class"], table["workers"], table["alpn_protocols"]) == ("trio", 0, ["http/1.1"])
