"""The composition of one process of many: its node, its mirrored markets, and how it opens the real ones to lead."""

from __future__ import annotations

import math
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Final

import msgspec
import trio

from komas.backplane.commands import Commands
from komas.backplane.node import Node, NodeOptions
from komas.backplane.ports import Backplane
from komas.errors import SettingError
from komas.hub.shared_hub import SharedHub
from komas.market_plan import MarketPlan
from komas.model.codec import StreamPosition
from komas.model.kinds import Venue
from komas.model.streams import Stream
from komas.settings import EDGE, FEED, Settings
from komas.venues.binance.market import BinanceMarket
from komas.venues.binance.reference import MarketReference, open_reference
from komas.venues.core.ports import Interest, MarketSink
from komas.venues.core.rest import Rest
from komas.web.cluster import ClusterBody, ClusterStatistics, NodeBody
from komas.web.encoding import read_event, server_sent_event
from komas.web.mirrored_markets import MirroredMarket

HOT: Final = "hot"  # a way to stand by: connected to the exchange
KEEP_S: Final = 10.0  # of what comes meanwhile; the others notice a dead leader within its lease,
BEYOND_LEASE_S: Final = 7.0  # and what it sent before that was on its way for less than this


class Cluster:
    """What ``open_cluster()`` opens; ``start_in()`` a nursery. ``hosts`` are where its markets are asked over REST."""

    def __init__(
        self, node: Node, commands: Commands, markets: Sequence[MirroredMarket], hosts: Sequence[Rest]
    ) -> None:
        self._node = node
        self.commands = commands
        self.markets = tuple(markets)
        self.hosts = tuple(hosts)

    def start_in(self, nursery: trio.Nursery, references: Mapping[Venue, MarketReference]) -> None:
        """Start what runs behind."""
        for reference in references.values():
            nursery.start_soon(reference.run, name="listings")
        nursery.start_soon(self.commands.run, name="wishes")
        nursery.start_soon(self._node.run, name="backplane")

    async def resign_with(self, stopping: trio.Event) -> None:
        """Lead no more as soon as the server is asked to stop."""
        await stopping.wait()
        self._node.resign()

    async def retire(self) -> None:
        """Lead no more, and wait until others know: whoever drains quickly must not end in the middle of it."""
        await self._node.retire()

    # What the web layer asks

    @property
    def is_leader(self) -> bool:
        """Whether this process is the one that is connected to the exchange."""
        return self._node.is_leader

    def statistics(self) -> ClusterStatistics:
        """Counts, for metrics."""
        node, mirror = self._node, self._node.mirror
        return ClusterStatistics(
            nodes=len(node.nodes),
            is_leader=node.is_leader,
            is_heard=mirror.is_heard,
            age_s=max(0.0, trio.current_time() - mirror.heard_at) if mirror.cursor is not None else math.inf,
            entries=mirror.entries,
            holes=mirror.holes,
            unreadable=mirror.unreadable,
            repeated=mirror.repeated,
            terms=node.terms,
            unwritten_bytes=node.unwritten_bytes,
            is_prepared=node.is_prepared,
        )

    def why_not_ready(self) -> str | None:
        """Why no balancer should send readers here; ``None`` if there is no reason."""
        return self._node.why_not_ready()

    async def passed(self, place: StreamPosition | None, stream: Stream | None) -> bool:
        """Wait until nothing that a reader at a place has received is still to come here."""
        return await self._node.passed(place, stream)

    async def inquire(self, topic: str, body: bytes) -> bytes | None:
        """Ask whichever process can answer; ``None`` where none does."""
        return await self.commands.inquire(topic, body)

    async def inquire_all(self, topic: str, body: bytes) -> tuple[list[bytes], bool]:
        """Ask every process, also this one; and whether all of them have answered."""
        processes = len(self._node.nodes)
        answers = await self.commands.inquire_all(topic, body, processes)
        return answers, len(answers) >= processes

    def answer(self, topic: str, answer: Callable[[bytes], bytes | None]) -> None:
        """Answer what any process asks about a topic."""
        self._node.answer(topic, answer)

    def body(self) -> ClusterBody:
        """Who is there."""
        rows = tuple(
            NodeBody(row.name, row.role, row.version, row.leads, row.subscribers, row.age_s, row.standby or None)
            for row in self._node.nodes
        )
        leader = next((row.node for row in rows if row.leader), None)
        return ClusterBody(self._node.options.shown, leader, rows)


@asynccontextmanager
async def open_cluster(
    settings: Settings,
    hub: SharedHub,
    plans: Sequence[MarketPlan],
    *,
    clock_ms: Callable[[], int],
    nursery: trio.Nursery,
    store: Backplane | None = None,
) -> AsyncIterator[Cluster]:
    """Open what a process of many needs, and take part until the block is left."""
    async with AsyncExitStack() as stack:
        if store is None:
            store = await stack.enter_async_context(_open_store(settings))
        references = {
            plan.spec.venue: await stack.enter_async_context(open_reference(plan.spec, plan.rest_url, clock_ms))
            for plan in plans
        }
        shown = settings.node_name or f"{socket.gethostname()[:40]}-{os.getpid()}"
        options = NodeOptions(
            # One that starts again under its old name is somebody else: its lease and its wishes are not that one's.
            name=f"{shown}:{secrets.token_hex(4)}",
            shown=shown,
            role=settings.role,
            version=version("komas"),
            lease_s=settings.lease_s,
            window_s=settings.backplane_window_ms / 1000,
            leads=settings.role != EDGE,
            serves=settings.role != FEED,
            stands_by=settings.standby == HOT,
        )
        venues = [plan.spec.venue for plan in plans]

        @asynccontextmanager
        async def open_markets(
            sink: MarketSink, interest: Interest, held: Callable[[Stream], None], *, stands_by: bool
        ) -> AsyncIterator[list[BinanceMarket]]:
            keep_s = max(KEEP_S, settings.lease_s + BEYOND_LEASE_S) if stands_by else 0.0
            yield [
                BinanceMarket(
                    plan.spec,
                    references[plan.spec.venue],
                    sink=sink,
                    interest=interest,
                    options=msgspec.structs.replace(plan.options(held), keep_s=keep_s),
                )
                for plan in plans
            ]

        node = Node(
            store,
            hub,
            options,
            venues=venues,
            open_markets=open_markets,
            encode=server_sent_event,
            read=read_event,
            subscribers=lambda: hub.subscribers,
        )
        commands = Commands(store, node.mirror, options.name, venues)
        markets = [
            MirroredMarket(
                plan.spec.venue,
                (plan.spec.name, plan.spec.code),
                plan.url,
                references[plan.spec.venue],
                node=node,
                commands=commands,
                hub=hub,
                clock_ms=clock_ms,
            )
            for plan in plans
        ]
        cluster = Cluster(node, commands, markets, [references[plan.spec.venue].rest for plan in plans])
        cluster.start_in(nursery, references)
        try:
            yield cluster
        finally:
            with trio.CancelScope(shield=True):
                await node.leave()


def _open_store(settings: Settings) -> AbstractAsyncContextManager[Backplane]:
    try:
        from komas.backplane.redis import open_redis  # noqa: PLC0415 - a package that others need not have
    except ImportError as error:
        raise SettingError(f"backplane needs the extra packages of komas[redis]: {error}", field="backplane") from error
    return open_redis(settings.backplane, prefix=settings.backplane_prefix, market="all")
