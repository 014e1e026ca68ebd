"""Installs are repeatable: one file pins what was tested, and both commands of the README use it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def test_every_dependency_is_pinned_at_a_version_that_is_allowed() -> None:
    """A dependency that was added or raised without renewing the constraints would install as something untested."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    for text in (*project["dependencies"], *extras["test"], *extras["postgresql"], *extras["redis"]):
        wanted = Requirement(text)
        found = [pin for pin in pins if canonicalize_name(pin.name) == canonicalize_name(wanted.name)]
        assert found, f"{wanted.name} is not in constraints.txt; its head says how to renew it"
        for pin in found:
            (exact,) = pin.specifier
            assert exact.operator == "=="
            assert exact.version in wanted.specifier, f"{pin} is not {wanted}"


def test_the_readme_shows_nginx_set_up_as_it_is_tested() -> None:
    """The block is the file."""
    readme = (ROOT / "README.md").read_text("utf-8")
    [block] = re.findall(r"<!-- nginx -->\n```nginx\n(.*?)```", readme, re.DOTALL)
    assert block == (ROOT / "deploy" / "nginx.conf").read_text("utf-8")


def test_both_commands_of_the_readme_install_what_was_tested() -> None:
    """Exactly two blocks, and each installs with the constraints."""
    readme = (ROOT / "README.md").read_text("utf-8")
    for name in ("demo", "tests"):
        blocks = re.findall(rf"<!-- {name} -->\n```bash\n(.*)\n```", readme)
        assert len(blocks) == 1
        assert "pip install -q -c constraints.txt -e " in blocks[0]
