"""What ``deploy/`` says of komas is so: settings, files and versions."""

from __future__ import annotations

import plistlib
import re
import tomllib
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


def test_compose_sets_what_there_is_and_keeps_secrets_in_files() -> None:
    """Which git and the engine's build do not see."""
    service = COMPOSE["services"]["komas"]
    for key in SECRETS - {"jwt_secret"}:
        assert secret_file_of(key) in service["environment"]
        name = service["environment"][secret_file_of(key)].removeprefix("/run/secrets/")
        assert name in service["secrets"]
    for one in COMPOSE["services"].values():
        for name in one.get("secrets", ()):
            assert COMPOSE["secrets"][name]["file"] == f"./secrets/{name}"
    assert "/deploy/secrets/" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


def test_compose_waits_for_what_can_say_that_it_is_ready() -> None:
    """And takes no image whose version anybody may change, and no file that is not there."""
    services = COMPOSE["services"]
    for name, service in services.items():
        assert re.fullmatch(r".+:v?\d[\w.-]*", service["image"]), name
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in services[other] or _instructions("HEALTHCHECK")
        for volume in service.get("volumes", ()):
            source, _, _ = volume.partition(":")
            assert (DEPLOY / source).is_dir() if source.startswith(".") else source in COMPOSE["volumes"]
    assert services["komas"]["image"] == f"komas:{PROJECT['version']}"
    assert (ROOT / services["komas"]["build"]["dockerfile"]).is_file()


def test_whoever_stops_komas_waits_for_it() -> None:
    """With the default settings, and ten seconds of drain delay."""
    unit = (DEPLOY / "komas.service").read_text("utf-8")
    [timeout_s] = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    grace = COMPOSE["services"]["komas"]["stop_grace_period"]
    for seconds in (int(timeout_s), int(grace.removesuffix("s"))):
        assert seconds >= 2 * (10 + Settings().graceful_timeout_s)


def test_launchd_is_told_what_there_is() -> None:
    """It has not been run: no macOS was at hand."""
    job = plistlib.loads((DEPLOY / "komas.plist").read_bytes())
    variables = {name: value for name, value in job["EnvironmentVariables"].items() if not name.endswith("_FILE")}
    assert load({}, variables, folder=DEPLOY).data_dir == Path("/usr/local/var/komas")
    assert job["ExitTimeOut"] >= 2 * (10 + Settings().graceful_timeout_s)
