"""The processes: an exchange, a store with a replica, and nodes that each reach the store by a way of their own.

Where it is asked for, there is a database of signals, too.
"""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx
import trio

from benchmarks.cluster.database import Database, database_command
from benchmarks.cluster.namespaces import Namespace
from benchmarks.cluster.network import LOCAL, Forwarder
from benchmarks.cluster.programs import START_S, Program, wait_until

SERVERS: Final = ("redis-server", "valkey-server")
PREFIX: Final = "komas:{all}:"


def store_command() -> str | None:
    """The store's program, if there is one."""
    return next((path for name in SERVERS if (path := shutil.which(name))), None)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


class Store(Program):
    """One Redis or Valkey, which keeps nothing on the disk."""

    def __init__(self, folder: Path, name: str) -> None:
        self.port = free_port()
        command = store_command()
        assert command is not None
        self._own = folder / name
        self._own.mkdir()
        plain = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0")
        super().__init__((command, "--port", str(self.port), "--dir", str(self._own), *plain), folder, name)

    def forget(self) -> None:
        """Have nothing when it starts again: a replica has a copy of what it was sent."""
        for file in self._own.iterdir():
            file.unlink()

    async def ask(self, *command: str) -> str:
        """What it answers; nothing, if it does not."""
        with trio.move_on_after(1.0):
            try:
                async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                    words = [word.encode() for word in command]
                    parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
                    await stream.send_all(b"*%d\r\n%b" % (len(parts), b"".join(parts)))
                    answer = await stream.receive_some()
            except (OSError, trio.BrokenResourceError):
                return ""
            return answer.decode("utf-8", "replace").strip()
        return ""

    async def is_ready(self) -> bool:
        """Whether it answers."""
        return await self.ask("PING") == "+PONG"

    async def ready(self) -> None:
        """Wait until it answers."""
        await wait_until(self.is_ready)


class Server(Program):
    """``komas serve`` as one node of the cluster, at one address in all of its lives.

    In a network of its own it listens there, and ``port`` is that of a way to it.
    """

    def __init__(
        self, folder: Path, name: str, way: Forwarder, options: Sequence[str], network: Namespace | None = None
    ) -> None:
        self.name = name
        self.port = free_port()
        self.way = way
        self.network = network
        self._life = 0
        place = network.there if network is not None else LOCAL
        own = ("--bind", f"{place}:{self.port}", "--data-dir", str(folder / name))
        backplane = ("--backplane", f"redis://{way.host}:{way.port}/0")
        inside = network.command if network is not None else ()
        super().__init__((*inside, sys.executable, "-m", "komas", "serve", *own, *backplane, *options), folder, name)

    def begin(self) -> None:
        """Start its next life."""
        self._life += 1
        self.start("--node-name", f"{self.name}-{self._life}")

    async def is_ready(self, client: httpx.AsyncClient) -> bool:
        """Whether a balancer would send readers here."""
        if not self.is_up:
            return False
        try:
            answer = await client.get(f"http://127.0.0.1:{self.port}/readyz", timeout=1.0)
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.OK


class World:
    """Everything that runs; ``primary`` is the store that nodes are sent to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.began = 0.0
        self.exchange_port = 0
        self.stores: list[Store] = []
        self.primary: Store
        self.database: Database | None = None
        self.publishing = trio.lowlevel.ParkingLot()  # unparked whenever a signal is about to be published
        self.link: Forwarder  # the way of the replica to the primary
        self.nodes: list[Server] = []
        self.client: httpx.AsyncClient

    @property
    def replica(self) -> Store:
        """The other store."""
        return next(store for store in self.stores if store is not self.primary)

    async def follow(self) -> None:
        """Let the other store be the primary's replica, and wait until it has everything."""
        self.link.target = self.primary.port
        self.link.free()
        await self.replica.ask("REPLICAOF", "127.0.0.1", str(self.link.port))
        await wait_until(self._follows)

    async def _follows(self) -> bool:
        return "master_link_status:up" in await self.replica.ask("INFO", "replication")

    def turn_to(self, store: Store) -> None:
        """Send all nodes to a store; their connections to the other are cut."""
        self.primary = store
        for node in self.nodes:
            node.way.target = store.port
            node.way.cut()

    async def leader(self) -> Server | None:
        """The node that holds the lease."""
        held = await self.primary.ask("GET", PREFIX + "lease")
        name = held.partition(":")[2].partition(":")[0].rpartition("-")[0]  # term, name and life, a mark of the process
        return next((node for node in self.nodes if node.name == name), None)

    async def ready(self, count: int, within_s: float = START_S) -> bool:
        """Wait until so many nodes are ready; whether they are in time."""

        async def are_ready() -> bool:
            return sum([await node.is_ready(self.client) for node in self.nodes]) >= count

        try:
            await wait_until(are_ready, within_s)
        except trio.TooSlowError:
            return False
        return True


@asynccontextmanager
async def open_world(
    lease_s: float,
    speed: float,
    symbols: Sequence[str],
    *,
    nodes: int = 3,
    has_database: bool = False,
    has_networks: bool = False,
    logs: Path | None = None,
    more: Sequence[str] = (),
) -> AsyncIterator[World]:
    """Everything running, until the block is left; every process is ended then. ``logs`` is a new folder for logs.

    ``more`` are options of every node, in which ``{folder}`` is one that all of them share. With ``has_networks`` each
    node has a network of its own.
    """
    with TemporaryDirectory(prefix="komas-cluster-") as name:
        world = World(Path(name))
        world.began = trio.current_time()
        (logs or world.folder / "logs").mkdir(parents=True)
        if logs is not None:
            (world.folder / "logs").symlink_to(Path.cwd() / logs)
        async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
            world.client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
            await _start_exchange(world, stack, speed, symbols)
            for number in range(2):
                store = Store(world.folder, f"store{number}")
                store.start()
                stack.callback(store.kill)
                await store.ready()
                world.stores.append(store)
            world.primary = world.stores[0]
            world.link = Forwarder(world.primary.port)
            await nursery.start(world.link.run)
            await world.follow()
            if has_database:
                world.database = await _start_database(world, stack)
                more = (*more, "--database-url", world.database.url)
            own = ("--lease-s", f"{lease_s:g}", "--log-format", "text", "--journal", "20000")
            options = (*own, *(option.replace("{folder}", str(world.folder)) for option in more))
            for number in range(nodes):
                network = _open_network(number, stack) if has_networks else None
                node = await _make_node(world, nursery, f"n{number}", options, network)
                node.begin()
                stack.callback(node.kill)
                world.nodes.append(node)
            if not await world.ready(nodes):
                said = "\n".join(node.log.read_text("utf-8", "replace")[-800:] for node in world.nodes)
                raise RuntimeError(f"the cluster did not start:\n{said}")
            yield world
            nursery.cancel_scope.cancel("over")


def _open_network(number: int, stack: AsyncExitStack) -> Namespace:
    network = Namespace(number)
    stack.callback(network.close)
    network.open()
    return network


async def _make_node(
    world: World, nursery: trio.Nursery, name: str, options: Sequence[str], network: Namespace | None
) -> Server:
    """A node with its ways: to the store, and where it has a network of its own, to the exchange and to itself, too."""
    host = network.here if network is not None else LOCAL
    way = Forwarder(world.primary.port, host=host)
    await nursery.start(way.run)
    exchange = f"{LOCAL}:{world.exchange_port}"
    if network is not None:
        to_exchange = Forwarder(world.exchange_port, host=host)
        await nursery.start(to_exchange.run)
        exchange = f"{host}:{to_exchange.port}"
    upstreams = ("--upstream", f"ws://{exchange}", "--rest-upstream", f"http://{exchange}")
    node = Server(world.folder, name, way, (*upstreams, *options), network)
    if network is not None:
        await nursery.start(Forwarder(node.port, target_host=network.there, port=node.port).run)
    return node


async def _start_exchange(world: World, stack: AsyncExitStack, speed: float, symbols: Sequence[str]) -> None:
    world.exchange_port = free_port()
    where = f"127.0.0.1:{world.exchange_port}"
    options = ("--bind", where, "--speed", f"{speed:g}", "--symbols", ",".join(symbols))
    exchange = Program((sys.executable, "-m", "komas", "simulate", *options), world.folder, "exchange")
    exchange.start()
    stack.callback(exchange.kill)
    await wait_until(lambda: exchange.said("simulated exchange on"))


async def _start_database(world: World, stack: AsyncExitStack) -> Database:
    """In a folder that is not the world's: its user may not enter that one."""
    command = database_command()
    assert command is not None
    own = stack.enter_context(TemporaryDirectory(prefix="komas-pg-"))
    database = Database(world.folder, Path(own), command)
    await database.initialise()
    database.start()
    stack.callback(database.kill)
    await database.ready()
    return database
