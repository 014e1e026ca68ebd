"""What ``deploy/`` says of komas is so: settings, files and versions."""

from __future__ import annotations

import plistlib
import re
import tomllib
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from komas.settings import FIELDS, SECRETS, Settings, load, secret_file_of, variable_of

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PAGES = ("operations.md", "windows-and-macos.md")
TEXTS = sorted([*(path for path in DEPLOY.rglob("*") if path.is_file()), *(ROOT / "docs" / page for page in PAGES)])
DOCKERFILE = (DEPLOY / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
CLUSTER: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.cluster.yml").read_text("utf-8"))
EACH_COMPOSE = pytest.mark.parametrize("compose", [COMPOSE, CLUSTER], ids=["one", "cluster"])
UNITS = ("komas.service", "komas@.service")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def _instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} +(.+)$", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_variable_that_is_named_is_a_setting(file: Path) -> None:
    """With another, komas refuses to start."""
    known = {*map(variable_of, FIELDS), *map(secret_file_of, SECRETS), "KOMAS_"}
    text = file.read_text("utf-8", errors="replace")
    assert set(re.findall(r"\bKOMAS_[A-Z_]*", text)) <= known
    for name, value in re.findall(r"\b(KOMAS_[A-Z_]+)(?:=|: )([^\s`,;)]+)", text):
        if not name.endswith("_FILE") and "$" not in value:
            load({}, {name: value}, folder=DEPLOY)


def test_the_image_s_python_may_run_komas() -> None:
    """One version for building and running: a virtual environment cannot move between two."""
    bases = {base.partition(" ")[0] for base in _instructions("FROM")}
    assert len(bases) == 1
    match = re.fullmatch(r"python:(\d+\.\d+)-slim-[a-z]+", bases.pop())
    assert match is not None
    assert match[1] in SpecifierSet(PROJECT["requires-python"])
    assert any(text.endswith(f":: {match[1]}") for text in PROJECT["classifiers"])


def test_what_the_image_copies_is_there_and_is_sent_to_the_engine() -> None:
    """All else is not: no secret, no history."""
    ignore = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    sent = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert "*" in ignore
    copied = {source for copy in _instructions("COPY") if not copy.startswith("--from") for source in copy.split()[:-1]}
    assert copied == sent
    assert all((ROOT / source).exists() for source in copied)
    assert {PROJECT["readme"], *PROJECT["license-files"]} <= copied


def test_the_image_installs_what_was_tested() -> None:
    """With the constraints, and the extra that a PostgreSQL server needs."""
    [command] = [run for run in _instructions("RUN") if " install " in run]
    assert "-c constraints.txt" in command
    [wanted] = re.findall(r"'(\..+)'", command)
    assert Requirement(wanted.replace(".", "komas", 1)).extras <= set(PROJECT["optional-dependencies"])


def test_nobody_is_root_in_the_image_and_nothing_secret_is_in_it() -> None:
    """Its settings are few, and every one is taken."""
    assert _instructions("USER")[-1] == "10001:10001"
    variables = dict(pair.split("=", 1) for line in _instructions("ENV") for pair in line.split())
    ours = {name: value for name, value in variables.items() if name.startswith("KOMAS_")}
    assert load({}, ours, folder=DEPLOY).bind == ("0.0.0.0:8000",)
    assert not {name for name in ours if name.removeprefix("KOMAS_").lower() in SECRETS}


def _komas_of(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in compose["services"].items() if service["image"].startswith("komas:")}


@pytest.mark.parametrize(
    ("compose", "keys"), [(COMPOSE, SECRETS - {"jwt_secret", "backplane"}), (CLUSTER, SECRETS)], ids=["one", "cluster"]
)
def test_compose_sets_what_there_is_and_keeps_secrets_in_files(compose: dict[str, Any], keys: frozenset[str]) -> None:
    """Which git and the engine's build do not see."""
    for service in _komas_of(compose).values():
        for key in keys:
            assert secret_file_of(key) in service["environment"]
            name = service["environment"][secret_file_of(key)].removeprefix("/run/secrets/")
            assert name in service["secrets"]
    for one in compose["services"].values():
        for name in one.get("secrets", ()):
            assert compose["secrets"][name]["file"] == f"./secrets/{name}"
    assert "/deploy/secrets/" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


@EACH_COMPOSE
def test_compose_waits_for_what_can_say_that_it_is_ready(compose: dict[str, Any]) -> None:
    """And takes no image whose version anybody may change, and no file that is not there."""
    services = compose["services"]
    for name, service in services.items():
        assert re.fullmatch(r".+:v?\d[\w.-]*", service["image"]), name
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in services[other] or _instructions("HEALTHCHECK")
        for volume in service.get("volumes", ()):
            source, _, _ = volume.partition(":")
            assert (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"]
    for service in _komas_of(compose).values():
        assert service["image"] == f"komas:{PROJECT['version']}"
        assert (ROOT / service["build"]["dockerfile"]).is_file()


def test_the_cluster_s_proxy_knows_every_process_by_an_address_that_stays() -> None:
    """And each of them knows the proxy, or all clients would count as one."""
    text = (DEPLOY / "nginx.cluster.conf").read_text("utf-8")
    processes = _komas_of(CLUSTER)
    assert re.findall(r"^ +server (\S+):8000 max_fails=0;$", text, re.MULTILINE) == list(processes)
    [subnet] = [ip_network(each["subnet"]) for each in CLUSTER["networks"]["inside"]["ipam"]["config"]]
    addresses = [ip_address(service["networks"]["inside"]["ipv4_address"]) for service in processes.values()]
    assert (
        len(set(addresses))
        == len(processes)
        == len({each["environment"]["KOMAS_NODE_NAME"] for each in processes.values()})
    )
    assert all(address in subnet for address in addresses)
    for service in processes.values():
        assert service["environment"]["KOMAS_TRUSTED_PROXIES"] == str(subnet)
        assert service["depends_on"].keys() == {"redis", "postgres"}


def test_the_cluster_s_proxy_is_set_up_as_the_one_that_is_tested() -> None:
    """Only where it listens, where it sends to, and who has TLS is another."""
    lines = [_lines(name) for name in ("nginx.conf", "nginx.cluster.conf")]
    only_one, only_cluster = lines[0] - lines[1], lines[1] - lines[0]
    assert all(
        re.match(r"server |server_name|listen|ssl_|return 301|proxy_set_header X-Forwarded-Proto", x) for x in only_one
    )
    assert {"least_conn;", "proxy_set_header X-Forwarded-Proto $komas_scheme;", "listen 8000;"} <= only_cluster


def _lines(name: str) -> set[str]:
    lines = (line.partition(" #")[0].strip() for line in (DEPLOY / name).read_text("utf-8").splitlines())
    return {line for line in lines if line and not line.startswith("#")}


def test_whoever_stops_komas_waits_for_it() -> None:
    """With the default settings, and ten seconds of drain delay."""
    waits = [service["stop_grace_period"] for each in (COMPOSE, CLUSTER) for service in _komas_of(each).values()]
    for name in UNITS:
        unit = (DEPLOY / name).read_text("utf-8")
        waits += re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert len(waits) == 4 + len(UNITS)
    for wait in waits:
        assert int(wait.removesuffix("s")) >= 2 * (10 + Settings().graceful_timeout_s)
    assert "KillMode=mixed" in (DEPLOY / "komas.service").read_text("utf-8")  # workers are asked by their supervisor


def test_both_units_are_hardened_alike() -> None:
    """What is tightened in one is in the other."""
    one, template = (set((DEPLOY / name).read_text("utf-8").partition("# It serves")[2].splitlines()) for name in UNITS)
    assert one == template


def test_launchd_is_told_what_there_is() -> None:
    """It has not been run: no macOS was at hand."""
    job = plistlib.loads((DEPLOY / "komas.plist").read_bytes())
    variables = {name: value for name, value in job["EnvironmentVariables"].items() if not name.endswith("_FILE")}
    assert load({}, variables, folder=DEPLOY).data_dir == Path("/usr/local/var/komas")
    assert job["ExitTimeOut"] >= 2 * (10 + Settings().graceful_timeout_s)
