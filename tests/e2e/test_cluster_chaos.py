"""A cluster of real processes whose members, store and network fail: nobody loses or doubles anything."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import trio

from benchmarks import cluster_chaos
from benchmarks.cluster.faults import Faults
from benchmarks.cluster.servers import World, store_command

FAULTS = 24
WITHIN_S = 600.0  # a slow machine takes half a minute to start a node
GAPS = "log trimmed"  # what was trimmed away before it was read is declared missing, and rightly so


@pytest.mark.skipif(sys.platform == "win32", reason="processes cannot be frozen there")
@pytest.mark.skipif(store_command() is None, reason="neither redis-server nor valkey-server is installed")
async def test_readers_of_a_cluster_get_everything_once_whatever_fails(tmp_path: Path) -> None:
    """Nodes and stores are killed, frozen, cut off and set back while readers go from node to node."""
    names = [name for name in Faults(World(tmp_path), random.Random(), 1.0).all if name != GAPS]
    with trio.fail_after(WITHIN_S):
        chaos = await cluster_chaos.run(FAULTS, seed=1, only=names)
    assert chaos.struck == FAULTS
    assert chaos.ledger.counts.events > 1000
    if not chaos.is_clean:
        pytest.fail("\n".join([str(chaos.report()), *chaos.ledger.findings]), pytrace=False)
