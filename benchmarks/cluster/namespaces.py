"""A network of its own for a node (Linux, root): what it sends, or is sent, can be dropped, and nobody is told."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

from benchmarks.cluster.network import Way

# A bucket that holds no packet: each is dropped, as by a switch that has failed. (netem is not in every kernel.)
_NOTHING: Final = ("root", "tbf", "rate", "8bit", "burst", "1", "limit", "1")


def can_separate() -> bool:
    """Whether a process can be given a network of its own."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and all(map(shutil.which, ("ip", "tc")))


class Namespace:
    """The ``number``-th network, with one cable to this one: ``here`` is the end of this one, ``there`` the node's."""

    def __init__(self, number: int) -> None:
        own = os.getpid() % 10_000
        subnet = f"10.77.{(own + number) % 256}"
        self.here, self.there = f"{subnet}.1", f"{subnet}.2"
        self._name = f"komas-{own}-{number}"
        self._ends = {Way.THERE: f"kh{own}n{number}", Way.BACK: f"kt{own}n{number}"}
        self._dropped: set[Way] = set()

    @property
    def command(self) -> tuple[str, ...]:
        """What runs a command inside."""
        return ("ip", "netns", "exec", self._name)

    def open(self) -> None:
        """Make it."""
        here, there = self._ends.values()
        _run("ip", "netns", "add", self._name)
        _run("ip", "link", "add", here, "type", "veth", "peer", "name", there)
        _run("ip", "link", "set", there, "netns", self._name)
        _run("ip", "addr", "add", f"{self.here}/30", "dev", here)
        _run("ip", "link", "set", here, "up")
        _run(*self.command, "ip", "addr", "add", f"{self.there}/30", "dev", there)
        _run(*self.command, "ip", "link", "set", there, "up")
        _run(*self.command, "ip", "link", "set", "lo", "up")

    def close(self) -> None:
        """Remove it, and the cable with it."""
        subprocess.run(("ip", "netns", "del", self._name), check=False)

    def drop(self, *ways: Way) -> None:
        """Drop every packet to the node, or from it."""
        for way in ways:
            _run(*self._at(way), "tc", "qdisc", "replace", "dev", self._ends[way], *_NOTHING)
            self._dropped.add(way)

    def free(self) -> None:
        """Drop nothing."""
        while self._dropped:
            way = self._dropped.pop()
            _run(*self._at(way), "tc", "qdisc", "del", "dev", self._ends[way], "root")

    def _at(self, way: Way) -> Sequence[str]:
        return self.command if way is Way.BACK else ()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
