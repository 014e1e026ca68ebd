"""What goes wrong: of nodes, store and database, of the ways between them. Each lasts some seconds at most."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from benchmarks.cluster.database import Database
from benchmarks.cluster.network import Way
from benchmarks.cluster.programs import wait_until
from benchmarks.cluster.servers import PREFIX, Server, World

LOSING: Final = ("store killed", "store flushed", "store set back", "tail lost")  # what only nodes know afterwards
TRIMMED: Final = "log trimmed"
IN_COMMIT: Final = 0.5  # so often the database is killed while a signal is published
PUBLISH_S: Final = 2.0  # in which one is
COMMIT_S: Final = 0.01  # in which it is committed, mostly
DOWN_S: Final = (0.0, 0.6)  # between an end and the next start
OF_NODES: Final = (
    "node killed",
    "leader killed",
    "node stopped",
    "leader stopped",
    "node frozen",
    "leader frozen",
)  # of one process; they go with any other kind
OF_DATABASE: Final = ("database killed", "database frozen")  # these, too
STOP_S: Final = 15.0  # for a server that was asked to stop


class Faults:
    """The faults by name; ``strike()`` with one. ``victims`` are nodes that were struck last."""

    def __init__(self, world: World, dice: random.Random, lease_s: float) -> None:
        self._world = world
        self._dice = dice
        self._lease_s = lease_s
        self.all: dict[str, Callable[[], Awaitable[str]]] = {
            "node killed": lambda: self._end(self._any(), is_kind=False),
            "leader killed": lambda: self._with_leader(lambda node: self._end(node, is_kind=False)),
            "node stopped": lambda: self._end(self._any(), is_kind=True),
            "leader stopped": lambda: self._with_leader(lambda node: self._end(node, is_kind=True)),
            "node frozen": lambda: self._freeze(self._any(), self._dice.uniform(0.2, 3.0)),
            "leader frozen": lambda: self._with_leader(self._freeze_leader),
            "store killed": self._kill_store,
            "store flushed": self._flush,
            "store set back": self._set_back,
            "store frozen": self._freeze_store,
            "tail lost": self._lose_tail,
            "node cut off": lambda: self._hold(self._any(), Way.THERE, Way.BACK),
            "leader cut off": lambda: self._with_leader(lambda node: self._hold(node, Way.THERE, Way.BACK)),
            "one way": lambda: self._hold(self._any(), self._dice.choice(list(Way))),
            "leader one way": lambda: self._with_leader(lambda node: self._hold(node, self._dice.choice(list(Way)))),
            "connections reset": self._reset,
            TRIMMED: self._trim,
        }
        if (database := world.database) is not None:
            self.all["database killed"] = lambda: self._kill_database(database)
            self.all["database frozen"] = lambda: self._freeze_database(database)
        if all(node.network for node in world.nodes) and world.nodes:
            self.all |= {
                "node isolated": lambda: self._drop(self._any(), Way.THERE, Way.BACK),
                "leader isolated": lambda: self._with_leader(lambda node: self._drop(node, Way.THERE, Way.BACK)),
                "node deaf or mute": lambda: self._drop(self._any(), self._dice.choice(list(Way))),
                "leader deaf or mute": lambda: self._with_leader(
                    lambda node: self._drop(node, self._dice.choice(list(Way)))
                ),
            }

    async def strike(self, name: str, another: str | None = None) -> str:
        """Let it happen, and another beside it, which begins a moment later; returns what exactly."""
        said: list[str] = []

        async def one(name: str, after_s: float) -> None:
            await trio.sleep(after_s)
            said.append(await self.all[name]())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, name, 0.0)
            if another is not None:
                nursery.start_soon(one, another, self._dice.uniform(0.0, 1.0))
        return "; ".join(said)

    def _any(self) -> Server:
        return self._dice.choice([node for node in self._world.nodes if node.is_up] or self._world.nodes)

    async def _with_leader(self, strike: Callable[[Server], Awaitable[str]]) -> str:
        leader = await self._world.leader()
        return await strike(leader or self._any())

    async def _end(self, node: Server, *, is_kind: bool) -> str:
        if is_kind:
            node.terminate()
            with contextlib.suppress(trio.TooSlowError):
                await wait_until(node.ended, STOP_S)
        node.kill()
        down_s = self._dice.uniform(*DOWN_S)
        await trio.sleep(down_s)
        node.begin()
        return f"{node.name}, for {down_s:.2f} s"

    async def _freeze(self, node: Server, for_s: float) -> str:
        node.freeze()
        await trio.sleep(for_s)
        node.thaw()
        return f"{node.name}, for {for_s:.2f} s"

    async def _freeze_leader(self, node: Server) -> str:
        """Mostly beyond its lease."""
        return await self._freeze(node, self._lease_s * self._dice.uniform(0.5, 4.0))

    async def _kill_store(self) -> str:
        down_s = self._dice.uniform(0.0, 2.5)
        self._world.primary.kill()
        await trio.sleep(down_s)
        self._world.primary.forget()
        self._world.primary.start()
        await self._world.primary.ready()
        return f"for {down_s:.2f} s"

    async def _set_back(self) -> str:
        """The store comes back with what it saved some seconds ago."""
        primary = self._world.primary
        if await primary.ask("SAVE") != "+OK":
            return "it could not be saved"
        old_s = self._dice.uniform(0.0, 4.0)
        await trio.sleep(old_s)
        primary.kill()
        primary.start()
        await primary.ready()
        primary.forget()
        return f"by {old_s:.2f} s"

    async def _flush(self) -> str:
        await self._world.primary.ask("FLUSHALL")
        return ""

    async def _freeze_store(self) -> str:
        for_s = self._dice.uniform(0.2, 3.0)
        self._world.primary.freeze()
        await trio.sleep(for_s)
        self._world.primary.thaw()
        return f"for {for_s:.2f} s"

    async def _lose_tail(self) -> str:
        """The replica hears nothing for a while, then it is the primary: what was written meanwhile is lost."""
        world = self._world
        behind_s, both_s = self._dice.uniform(0.0, 1.5), self._dice.choice((0.0, self._dice.uniform(0.0, 0.5)))
        await world.follow()
        world.link.hold(*Way)
        await trio.sleep(behind_s)
        world.link.refuses = True
        world.link.cut()
        old, new = world.primary, world.replica
        await new.ask("REPLICAOF", "NO", "ONE")
        if both_s:  # nodes go over one after another: for a while there are two primaries
            for node in self._dice.sample(world.nodes, len(world.nodes)):
                node.way.target = new.port
                node.way.cut()
                await trio.sleep(both_s / len(world.nodes))
        old.kill()
        world.turn_to(new)
        world.link.refuses = False
        world.link.free()
        old.forget()
        old.start()
        await old.ready()
        return f"{behind_s:.2f} s of it, two primaries for {both_s:.2f} s"

    async def _hold(self, node: Server, *ways: Way) -> str:
        for_s, is_cut = self._dice.uniform(0.2, 4.0), self._dice.random() < 0.5
        node.way.hold(*ways)
        await trio.sleep(for_s)
        if is_cut:
            node.way.cut()
        node.way.free()
        return f"{node.name} {'+'.join(ways)}, for {for_s:.2f} s{', then reset' if is_cut else ''}"

    async def _drop(self, node: Server, *ways: Way) -> str:
        """Of everything that a node says or hears, to whomever: readers, the exchange, the store."""
        for_s = self._dice.uniform(0.2, 4.0)
        assert node.network is not None
        node.network.drop(*ways)
        await trio.sleep(for_s)
        node.network.free()
        return f"{node.name} {'+'.join(ways)}, for {for_s:.2f} s"

    async def _reset(self) -> str:
        node = self._any()
        node.way.cut()
        return node.name

    async def _trim(self) -> str:
        """A node sleeps past the end of the log."""
        node, for_s = self._any(), self._dice.uniform(0.5, 2.0)
        node.freeze()
        await trio.sleep(for_s)
        await self._world.primary.ask("XTRIM", PREFIX + "bus", "MAXLEN", "20")
        node.thaw()
        return f"{node.name}, after {for_s:.2f} s"

    async def _kill_database(self, database: Database) -> str:
        down_s, is_at_work = self._dice.uniform(0.0, 1.0), self._dice.random() < IN_COMMIT
        if is_at_work:
            with trio.move_on_after(PUBLISH_S):
                await self._world.publishing.park()
                await trio.sleep(self._dice.uniform(0.0, COMMIT_S))
        database.kill()
        await wait_until(database.ended)
        await trio.sleep(down_s)
        database.start()
        await database.ready()
        return f"for {down_s:.2f} s{', while a signal was published' if is_at_work else ''}"

    async def _freeze_database(self, database: Database) -> str:
        for_s = self._dice.uniform(0.2, 3.0)
        database.freeze()
        await trio.sleep(for_s)
        database.thaw()
        return f"for {for_s:.2f} s"


def beside(name: str, names: Sequence[str]) -> list[str]:
    """Of these faults, those that may happen beside another: of one process, and of another kind."""
    return [each for kind in (OF_NODES, OF_DATABASE) if name not in kind for each in names if each in kind]
