"""A backup beside a server that writes, and a server that goes on from it."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import httpx

from tests.e2e.processes import PATIENCE_S, Server, komas, running, serving, token_for, wait_for

UNREACHABLE = "ws://127.0.0.1:9"  # nobody wants prices here


def _publish_until(server: Server, token: str, answered: list[int], end: threading.Event) -> None:
    header = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S, headers=header) as client:
        while not end.is_set():
            body = {"signal_type": "mexc_dex", "data": {"number": len(answered)}}
            answered.append(client.post("/api/signals", json=body).raise_for_status().json()["id"])


def _ids(server: Server, token: str) -> list[int]:
    ids: list[int] = []
    while True:
        query = {"since_id": ids[-1] if ids else 0, "limit": 1000}
        header = {"Authorization": f"Bearer {token}"}
        page = server.http.get("/api/signals", params=query, headers=header).raise_for_status().json()["signals"]
        if not page:
            return ids
        ids += [signal["id"] for signal in page]


def test_a_backup_of_a_server_that_writes_is_restored(tmp_path: Path) -> None:
    """It has every signal that was answered before it began; the restored server takes the same tokens, and goes on."""
    data, copies, answered, end = tmp_path / "data", tmp_path / "copies", list[int](), threading.Event()
    copies.mkdir()
    with serving(data, "--upstream", UNREACHABLE) as server:
        token = token_for(data, "--vip-days", "30", "--scope", "signals:publish")
        publisher = threading.Thread(target=_publish_until, args=(server, token, answered, end))
        publisher.start()
        try:
            wait_for(lambda: len(answered) > 20, "some signals")
            before = list(answered)
            with running(komas("backup", str(copies / "komas.db"), "--data-dir", str(data))) as backup:
                assert backup.ended() == 0, backup.output
            assert f"{copies / 'komas.db'}: " in backup.output[0]
        finally:
            end.set()
            publisher.join(PATIENCE_S)
        lost = _ids(server, token)
    # As docs/backup-and-upgrade.md says: stop, take away what belongs to the old file, put the copy in its place.
    for name in ("komas.db", "komas.db-wal", "komas.db-shm"):
        (data / name).unlink(missing_ok=True)
    (data / "komas.db").write_bytes((copies / "komas.db").read_bytes())
    with serving(data, "--upstream", UNREACHABLE) as server:
        restored = _ids(server, token)
        assert restored[: len(before)] == before
        assert restored == lost[: len(restored)]
        assert server.publish(token, number=0) == restored[-1] + 1


def test_the_demos_data_is_found_by_its_name(tmp_path: Path) -> None:
    """By the option that it was started with."""
    environment = {"XDG_DATA_HOME": str(tmp_path), "HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    command = komas("signal", "publish", "--demo", "--type", "mexc_dex", "--data", '{"coin_name": "NB"}')
    with running(command, environment) as publish:
        assert publish.ended() == 0, publish.output
    with running(komas("backup", "--demo", str(tmp_path / "copy.db")), environment) as backup:
        assert backup.ended() == 0
    assert backup.output[0].endswith("up to signal 1, position 1")


def test_a_postgresql_server_is_backed_up_by_its_own_program(tmp_path: Path) -> None:
    """Which is named, without the password."""
    url = "postgresql+psycopg://user:secret@db.example/komas"
    command = komas("backup", str(tmp_path / "a copy"), "--database-url", url)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    line = f"pg_dump --format=custom '--file={tmp_path / 'a copy'}' postgresql://user@db.example/komas\n"
    assert done.stderr.endswith(line)
    assert "secret" not in done.stderr
