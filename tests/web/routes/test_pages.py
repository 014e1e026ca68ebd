"""The page and its files: types, caches, and a policy that lets nothing in."""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import subprocess
import tarfile
from base64 import b64encode
from pathlib import Path

import pytest
import trio.testing

from komas.web.routes.pages import CHART, chart_script
from tests.web.harness import web_harness

STATIC = Path(__file__).parents[3] / "komas" / "web" / "static"
FILES = sorted(path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.is_file())
CHART_HASH = "sha384-ExNwjbclSLY2LS3S2c6aDJDjpBHGZLct23WX65fLzj0ob1bRrCh9H90WThES5wQA"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "worker-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types komas"
)


async def test_the_page_is_html_under_a_policy_without_exceptions(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Nothing inline, nothing from elsewhere, nothing as HTML."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call("GET", "/")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["content-security-policy"] == POLICY


async def test_the_page_of_the_api_is_found_with_a_slash_too(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Below ``/docs/`` its relative addresses would lead nowhere; behind a prefix the step up stays within it."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call("GET", "/docs")
        assert (answer.status, answer.headers["content-security-policy"]) == (200, POLICY)
        moved = await harness.call("GET", "/docs/")
        assert (moved.status, moved.headers["location"]) == (308, "../docs")


@pytest.mark.parametrize("name", [*FILES, CHART])
async def test_each_file_has_its_type_and_is_kept_until_it_changes(
    name: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """A browser runs no module of another type, and asks again each time; a worker has the policy of its script."""
    kinds = {
        "js": "text/javascript",
        "css": "text/css",
        "html": "text/html",
        "ts": "text/plain",
        "svg": "image/svg+xml",
    }
    async with web_harness(tmp_path) as harness:
        answer = await harness.call("GET", f"/static/{name}")
        assert answer.status == 200
        assert answer.headers["content-type"].partition(";")[0] == kinds[name.rpartition(".")[2]]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["cache-control"] == "no-cache"
        known = [("Host", "localhost"), ("If-None-Match", answer.headers["etag"])]
        again = await harness.call("GET", f"/static/{name}", headers=known)
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == answer.headers["etag"]


async def test_a_file_is_packed_for_a_browser_that_unpacks(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """The first view is small on the line; a cache keeps both forms apart, and from other origins' answers."""
    async with web_harness(tmp_path) as harness:
        plain = await harness.call("GET", f"/static/{CHART}")
        accepts = [("Host", "localhost"), ("Accept-Encoding", "gzip, br")]
        packed = await harness.call("GET", f"/static/{CHART}", headers=accepts)
        assert gzip.decompress(packed.body) == plain.body
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.headers["etag"] != plain.headers["etag"]
        for answer in (plain, packed):
            assert {name.strip() for name in answer.headers["vary"].split(",")} == {"Accept-Encoding", "Origin"}
        refused = [("Host", "localhost"), ("Accept-Encoding", "gzip;q=0, identity")]
        assert "content-encoding" not in (await harness.call("GET", f"/static/{CHART}", headers=refused)).headers


@pytest.mark.parametrize("name", ["nothing.js", "../routes/pages.py", "..%2froutes%2fpages.py", "%2fetc%2fpasswd", "."])
async def test_no_other_file_is_given(name: str, autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Only what is in the folder, by its exact name."""
    async with web_harness(tmp_path) as harness:
        assert (await harness.call("GET", f"/static/{name}")).status == 404


@pytest.mark.parametrize("name", FILES)
def test_no_file_asks_for_an_absolute_address(name: str) -> None:
    """The page may be shown under a prefix."""
    assert not re.search(r"""["'`(](?:https?:)?/+(?:api|ws|static)\b""", (STATIC / name).read_text("utf-8"))


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".html")])
def test_no_page_has_anything_inline(name: str) -> None:
    """The policy forbids it, and a browser leaves it out without a word to the reader."""
    text = (STATIC / name).read_text("utf-8")
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", text)


def test_the_chart_is_the_one_whose_hash_pages_name() -> None:
    """A page that names another hash shows no chart."""
    digest = hashlib.sha384(chart_script().read_bytes()).digest()
    assert f"sha384-{b64encode(digest).decode()}" == CHART_HASH


def test_the_chart_is_byte_for_byte_npms(tmp_path: Path) -> None:
    """The package that carries it is another's than TradingView's."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    command = ["npm", "pack", "--silent", "lightweight-charts@5.1.0", "--pack-destination", str(tmp_path)]
    packed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if packed.returncode:
        pytest.skip(f"npm does not bring lightweight-charts: {packed.stderr.strip()[-200:]}")
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as package:
        published = package.extractfile("package/dist/lightweight-charts.standalone.production.js")
        assert published is not None
        assert published.read() == chart_script().read_bytes()


def test_the_client_is_as_small_as_its_document_says() -> None:
    """On the line; the numbers stand in docs/browser.md."""
    source = (STATIC / "komas.js").read_bytes()
    page = (Path(__file__).parents[3] / "docs" / "browser.md").read_text("utf-8")
    assert f"`komas.js` has {round(len(source) / 1000)} KB" in page
    assert f"gzip leaves {round(len(gzip.compress(source, mtime=0)) / 1000)} KB" in page
