"""What can be run of the image without an engine: how it says that it is healthy."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.processes import PATIENCE_S, ROOT, serving


def test_the_image_tells_a_server_that_answers_from_one_that_does_not(tmp_path: Path) -> None:
    """The same command, for another port."""
    text = (ROOT / "deploy" / "Dockerfile").read_text("utf-8")
    [found] = re.findall(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", text, re.MULTILINE)
    program, *arguments = json.loads(found)
    assert program == "python"
    assert ":8000/" in arguments[-1]

    def is_healthy(port: int) -> bool:
        command = [sys.executable, *(word.replace(":8000/", f":{port}/") for word in arguments)]
        return subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=False).returncode == 0

    with serving(tmp_path, "--upstream", "ws://127.0.0.1:9") as server:
        assert is_healthy(server.port)
    assert not is_healthy(server.port)
