"""What ``/metrics`` says: every component's counts under their names. ``docs/operations.md`` says what to make of them.

Labels stay few: a venue, a kind, a reason, a code, a transport; never a symbol, a user or an address.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from typing import Final

import trio
from prometheus_client.core import Metric as Family

from komas.errors import Cause
from komas.model.market import FeedState, Health
from komas.observability.metrics import counter, gauge, histogram, info
from komas.web.cluster import Cluster
from komas.web.hypercorn.shutdown import present
from komas.web.markets import Market, Markets
from komas.web.rate_limit import RateLimit
from komas.web.services import Services

_BUILD: Final = {"version": version("komas"), "python": platform.python_version(), "trio": version("trio")}


def families(services: Services, rate_limit: RateLimit) -> Iterable[Family]:
    """All of them, read now. No await in here: each is of the same moment."""
    yield info("build", "What runs here", _BUILD)
    yield from _process(services)
    if services.cluster is None or services.cluster.is_leader:  # the others know its counts, which are to count once
        yield from _upstream(services)
        yield from _gaps(services.markets)
        yield from _health(services.markets)
    yield from _rest(services.markets)
    if services.cluster is not None:
        yield from _cluster(services.cluster)
    yield from _hub(services)
    yield from _clients(services, rate_limit)
    yield from _signals(services)


def _process(services: Services) -> Iterable[Family]:
    lag = services.loop_lag
    yield gauge("tasks", "Tasks of the process now", trio.lowlevel.current_statistics().tasks_living)
    yield histogram("loop_lag_seconds", "How late a task ran that was due", lag.histogram)
    yield gauge("loop_lag_max_seconds", "The longest of it within the last minute", lag.longest_s(trio.current_time()))


def _cluster(cluster: Cluster) -> Iterable[Family]:
    counts = cluster.statistics()
    yield gauge("cluster_nodes", "Processes that share the feed now", counts.nodes)
    yield gauge("cluster_leader", "1 while this process is the one that is connected to the exchange", counts.is_leader)
    yield gauge("cluster_prepared", "1 while this process stands by and could lead without REST", counts.is_prepared)
    yield gauge("cluster_heard", "1 while this process hears a leader", counts.is_heard)
    yield gauge("backplane_age_seconds", "Since this process read an entry of the log", counts.age_s)
    yield counter("backplane_entries", "Entries read", counts.entries)
    yield counter("backplane_holes", "Times that entries were missed", counts.holes)
    yield counter("backplane_unreadable", "Entries that could not be read", counts.unreadable)
    yield counter("backplane_repeated", "Events that came again", counts.repeated)
    yield counter("cluster_terms", "Times that this process began to lead", counts.terms)
    yield gauge("backplane_unwritten_bytes", "What waits for the store, at the leader", counts.unwritten_bytes)


def _upstream(services: Services) -> Iterable[Family]:
    markets = services.markets
    feeds = {market.venue: market.feed.statistics() for market in markets}
    yield gauge("upstream_connected", "1 while the connection of the primary market is up", markets.is_connected)
    yield gauge(
        "upstream_state",
        "1 for the state that a market's connection is in",
        {(m.venue, state): float(m.feed.status.state is state) for m in markets for state in FeedState},
        "venue",
        "state",
    )
    yield gauge(
        "upstream_given_up",
        "1 where a market's connection was given up (reconnect_attempts)",
        {market.venue: float(market.feed.final_failure is not None) for market in markets},
        "venue",
    )
    now_ms = services.clock_ms()
    yield gauge(
        "upstream_age_seconds",
        "Seconds since a market's last data frame; absent before its first",
        {
            venue: max(0, now_ms - each.last_message_ms) / 1000
            for venue, each in feeds.items()
            if each.last_message_ms is not None
        },
        "venue",
    )
    for name, meaning, values in (
        ("upstream_messages", "Data frames received", {v: each.messages_received for v, each in feeds.items()}),
        ("upstream_unreadable", "Frames that could not be read", {v: each.unreadable for v, each in feeds.items()}),
        ("upstream_unknown", "Frames of unknown streams", {v: each.unknown for v, each in feeds.items()}),
        ("upstream_rotations", "Connections replaced without a gap", {v: each.rotations for v, each in feeds.items()}),
    ):
        yield counter(name, meaning, values, "venue")
    yield counter(
        "upstream_reconnects",
        "Connections made because one was lost",
        {(v, cause.value): each.reconnect_causes.get(cause, 0) for v, each in feeds.items() for cause in Cause},
        "venue",
        "reason",
    )
    connections = {venue: each.connections for venue, each in feeds.items()}
    yield gauge(
        "upstream_connections",
        "Connections to the exchange now",
        {venue: len(rows) for venue, rows in connections.items()},
        "venue",
    )
    yield gauge(
        "upstream_message_room",
        "Messages that the connection with least room may send at once, as the exchange counts",
        {venue: min(row.message_room for row in rows) for venue, rows in connections.items() if rows},
        "venue",
    )


def _gaps(markets: Markets) -> Iterable[Family]:
    fills = {market.venue: market.gap_filler.statistics() for market in markets}
    repeated = {venue: each.repeated for venue, each in fills.items()}
    yield counter("upstream_repeated", "Events received more than once", repeated, "venue")
    rows = [(venue, kind, counts) for venue, each in fills.items() for kind, counts in each.of_kind.items()]
    for name, meaning, values in (
        ("upstream_gaps", "Runs of missing trades or candles", {(v, k): counts.gaps for v, k, counts in rows}),
        ("upstream_backfilled", "Missing events asked for and sent", {(v, k): counts.filled for v, k, counts in rows}),
        ("upstream_gaps_declared", "Gaps, or parts, not filled", {(v, k): counts.declared for v, k, counts in rows}),
    ):
        yield counter(name, meaning, values, "venue", "kind")
    recovering = {venue: each.recovering for venue, each in fills.items()}
    yield gauge("upstream_recovering_streams", "Streams that wait behind a gap now", recovering, "venue")
    books = {market.venue: market.order_books.statistics() for market in markets}
    snapshots = {venue: each.snapshots for venue, each in books.items()}
    yield counter("order_book_snapshots", "Snapshots taken", snapshots, "venue")
    yield gauge(
        "order_books", "Order books kept now", {venue: each.order_books for venue, each in books.items()}, "venue"
    )
    untrue = {venue: each.untrue for venue, each in books.items()}
    yield gauge("order_books_untrue", "Of them, waiting for a snapshot or a missing update", untrue, "venue")


def _rest(markets: Markets) -> Iterable[Family]:
    hosts = {market.venue: market.rest.statistics() for market in markets}
    yield histogram(
        "rest_seconds",
        "Until the exchange answered over REST",
        {venue: each.latency for venue, each in hosts.items()},
        "venue",
    )
    yield counter(
        "rest_failures",
        "Questions over REST that were not answered",
        {(venue, cause.value): each.failures.get(cause, 0) for venue, each in hosts.items() for cause in Cause},
        "venue",
        "reason",
    )
    for name, meaning, values in (
        (
            "rest_weight",
            "REST weight used in this minute, as the exchange says",
            {v: h.used_weight for v, h in hosts.items()},
        ),
        ("rest_weight_limit", "Of which komas takes so much at most", {v: h.weight_limit for v, h in hosts.items()}),
        ("rest_held_off_seconds", "Nothing is asked for so long", {v: h.held_off_s for v, h in hosts.items()}),
    ):
        yield gauge(name, meaning, values, "venue")


def _health(markets: Markets) -> Iterable[Family]:
    def of(market: Market, health: Health) -> int:
        return market.health.totals.get(health, 0)

    for health in Health:
        total = sum(of(market, health) for market in markets)
        yield gauge(f"streams_{health}", f"Streams whose health is {health}", total)
    yield gauge(
        "streams_by_health",
        "Streams that connections are to hold, by their health",
        {(market.venue, health): of(market, health) for market in markets for health in Health},
        "venue",
        "health",
    )


def _hub(services: Services) -> Iterable[Family]:
    hub, room = services.hub.statistics(), services.stream_limits.statistics()
    yield gauge("streams", "Streams wanted now", hub.streams)
    yield counter("published", "Events published", hub.published)
    yield counter("unwanted", "Events that came although nobody wanted them any more", hub.unwanted)
    yield gauge("history_events", "Events kept for clients that come back", hub.history_events)
    yield gauge("history_bytes", "Memory that they are counted with", hub.history_bytes)
    yield counter("history_evicted", "Events let go because of history_bytes", hub.history_evicted)
    yield gauge("buffered_events", "Events that wait in buffers of slow clients now", hub.waiting)
    yield counter("dropped", "Events dropped for slow clients", hub.dropped)
    yield counter("conflated", "States that a newer one replaced before they were written", hub.conflated)
    yield counter("streams_made_room", "Streams without readers that were closed early, for others", room.made_room)
    yield histogram(
        "write_latency_seconds",
        "From the receipt of an event to its last write to those who keep up; of one write in seventeen",
        services.hub.write_latency,
    )


def _clients(services: Services, rate_limit: RateLimit) -> Iterable[Family]:
    limits, room = services.limits.statistics(), services.stream_limits.statistics()
    sockets = services.signals.registry.statistics()
    refused: Counter[str] = Counter(
        {"requests": rate_limit.refused, "origin": services.access.statistics().origins_refused}
    )
    yield gauge("sse_clients", "Clients that read the market now", limits.present)
    yield counter("sse_admitted", "Clients that read the market, since the start", limits.admitted)
    yield counter(
        "sse_refused",
        "Clients of the market refused",
        sum(limits.refused.values()) + sum(room.refused.values()),
    )
    subscribers = {**limits.by_transport, "signals": sockets.sockets}
    yield gauge("subscribers", "Clients that are there now, by what they read over", subscribers, "transport")
    yield counter("requests_refused", "Requests over the rate of an address", rate_limit.refused)
    if (run := present()) is not None:  # else behind another ASGI server
        places = run.places.statistics()
        refused["connections"] = places.refused
        yield gauge("connections", "Connections of clients now", places.present)
        yield counter("connections_refused", "Connections closed for want of a place", places.refused)
        yield counter("connections_gave_way", "Idle connections closed to make room", places.gave_way)
        yield counter("connections_cut_off", "Connections whose clients did not take a write in time", run.cut_off)
    for counts in (limits.refused, room.refused, sockets.refused):
        refused.update(counts)
    yield counter("refusals", "Who was turned away, by what there was too much of", refused, "reason")
    traffic = services.traffic
    yield counter("http_requests", "Requests answered, or begun to be", traffic.requests, "route", "method", "status")
    yield counter(
        "websocket_closes",
        "WebSockets that ended; client: the client closed, left or broke the protocol",
        traffic.closes,
        "transport",
        "code",
        "reason",
    )
    yield counter("admin_actions", "Changes that were made, by what was called", traffic.admin_actions, "action")


def _signals(services: Services) -> Iterable[Family]:
    channel, sockets = services.signals.channel.statistics(), services.signals.registry.statistics()
    store = services.signals.store
    yield gauge("signal_sockets", "Signal sockets now", sockets.sockets)
    yield gauge("signal_users", "Users with a signal socket now", sockets.users)
    yield counter("signal_sockets_admitted", "Signal sockets since the start", sockets.admitted)
    yield counter("signal_sockets_refused", "Signal sockets refused", sum(sockets.refused.values()))
    yield counter("signal_events", "Signals and updates published", channel.published)
    yield gauge("signal_position", "Position of the last signal or update", services.signals.channel.position)
    yield counter("signal_slow_consumers", "VIPs disconnected because they read too slowly", channel.disconnected)
    yield counter(
        "signal_origins_refused",
        "Signal sockets of web pages that cors_origins does not list",
        services.access.statistics().origins_refused,
    )
    listener = services.signals.listener
    is_listening = listener is not None and listener.is_listening
    yield gauge("signal_listening", "Whether the database tells at once of what others commit", is_listening)
    yield histogram("commit_seconds", "Until a change of signals or VIPs was committed", store.commit_latency)
    yield counter("database_failures", "Times the database of signals failed", store.failures)
