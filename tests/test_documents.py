"""What the documents name is there."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import komas

ROOT = Path(__file__).parents[1]
PAGES = sorted(page.relative_to(ROOT).as_posix() for page in (*ROOT.glob("*.md"), *ROOT.glob("*/**/*.md")))
PAGES = [page for page in PAGES if page.split("/")[0] in ("docs", "examples", "benchmarks") or "/" not in page]


@pytest.mark.parametrize("page", PAGES)
def test_every_public_name_of_a_document_exists(page: str) -> None:
    """``komas.Name`` in the text, as a reader would write it."""
    text = (ROOT / page).read_text("utf-8")
    names = re.findall(r"\bkomas\.([A-Z]\w+)", text) + re.findall(r"from komas import (\w+)", text)
    assert [name for name in names if name not in komas.__all__] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_option_of_a_client_in_a_document_exists(page: str) -> None:
    """``name=komas.Something(...)`` is an option of both clients, and what it makes can be made."""
    for name, call in re.findall(r"`(\w+)=(komas\.\w+\([^`]*\))`", (ROOT / page).read_text("utf-8")):
        for client in (komas.open_binance, komas.BinanceWebSocket):
            assert name in inspect.signature(client).parameters
        made = ast.parse(call, mode="eval").body
        assert isinstance(made, ast.Call)
        assert isinstance(made.func, ast.Attribute)
        options = {str(word.arg): ast.literal_eval(word.value) for word in made.keywords}
        assert getattr(komas, made.func.attr)(**options)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_to_a_file_leads_to_one(page: str) -> None:
    """From the folder of the page."""
    text = (ROOT / page).read_text("utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text) + re.findall(r'<img src="(?!https?:)([^"]+)"', text)
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def commands(page: str) -> list[list[str]]:
    """The code of each block, without its comments: those are in the reader's language."""
    blocks = re.findall(r"```\w+\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    return [[re.sub(r"\s+# .*", "", line) for line in block.splitlines()] for block in blocks]


def test_the_russian_readme_has_the_commands_of_the_english_one() -> None:
    """What changes in one changes in both; each leads to the other."""
    english, russian = commands("README.md"), commands("README.ru.md")
    assert [block for block in russian if block not in english] == []
    shells = [
        block for block in english if block[0].startswith(("python3 -m venv", "komas serve", "export KOMAS_TOKEN"))
    ]
    assert len(shells) == 4
    assert [block for block in shells if block not in russian] == []
    assert "](README.ru.md)" in (ROOT / "README.md").read_text("utf-8")
    assert "](README.md)" in (ROOT / "README.ru.md").read_text("utf-8")


def test_no_picture_makes_a_page_slow_to_open() -> None:
    """Each is shown somewhere, and is small."""
    pictures = sorted((ROOT / "docs" / "pictures").iterdir())
    shown = "".join((ROOT / page).read_text("utf-8") for page in PAGES)
    assert [picture.name for picture in pictures if f"pictures/{picture.name}" not in shown] == []
    assert [picture.name for picture in pictures if picture.stat().st_size > 150_000] == []


def test_every_place_that_the_architecture_names_exists() -> None:
    """Files, and methods of classes: the walks through the code lead somewhere."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    sources = {path: path.read_text("utf-8") for path in (ROOT / "komas").rglob("*.py")}
    for file in re.findall(r"`([\w/]+\.py)`", page):
        assert (ROOT / file).exists() or any(str(path).endswith(f"/{file}") for path in sources), file
    named = re.findall(r"`([A-Z]\w+)\.(\w+)`", page)
    assert len(named) > 20
    for owner, method in named:
        owners = [text for text in sources.values() if re.search(rf"^class {owner}\b", text, re.MULTILINE)]
        assert any(re.search(rf"def {method}\b|^    {method}:", text, re.MULTILINE) for text in owners), method
