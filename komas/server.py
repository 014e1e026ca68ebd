"""The composition root: opens every component in order, and closes them in reverse. Start reading here.

::

    MARKET  exchange ─▶ venues/core ─────────▶ venues/binance ──────────────▶ hub ───────────▶ web ─────▶ browser
                        websocket, link        connection, wire → gap fill    publish (sync)   encode once, write
    SIGNAL  producer ─▶ web ─▶ signals/service ─▶ database ─▶ hub/channel ─▶ signals/delivery ─▶ web ─▶ VIP
                               authorize, commit              wake           replay, then live

``docs/architecture.md`` walks one trade and one signal through these packages, file by file.

The nursery is the supervisor. The components of both markets, the signal service and the sweeper of interest run in it;
the web layer is served inside its block, so it drains before they are cancelled; a bug in any of them ends the process.
The database of signals is outermost: a commit outlives everything inside.
"""

from __future__ import annotations

import logging
import math
import sys
import tomllib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve
from quart_trio import QuartTrio

from komas import lifeline
from komas.errors import SettingError, first_of
from komas.hub.hub import Hub
from komas.hub.shared_hub import SharedHub
from komas.market_plan import MarketPlan
from komas.model.clock import wall_ms
from komas.model.kinds import Kind, Venue
from komas.model.streams import Stream
from komas.observability.logs import logging_to, logs_of
from komas.settings import FEED, Settings
from komas.shutdown import first_signal, leave_at_once
from komas.signals.demo import publish_demo_signals
from komas.signals.services import SignalServices, open_signals
from komas.systemd import LEADING, SERVING, report
from komas.venues.binance import hosts, limits, limits_usdm
from komas.venues.binance.door.rest_door import BinanceDoor
from komas.venues.binance.hosts import Hosts
from komas.venues.binance.limits import MarketSpec
from komas.venues.binance.market import MarketOptions, open_market
from komas.venues.core.door import RestDoor
from komas.venues.core.retry import RetryPolicy
from komas.venues.core.websocket import OpenStream, open_tcp
from komas.web.access import Access, admin_token_of, who_may_control
from komas.web.app import create_app
from komas.web.commands import Commands, OwnCommands
from komas.web.hypercorn.exposure import is_exposed
from komas.web.hypercorn.install import install
from komas.web.hypercorn.shutdown import Run, present
from komas.web.hypercorn.unix_sockets import unix_sockets
from komas.web.limits import ConnectionLimits
from komas.web.local_programs import LocalPrograms
from komas.web.markets import Markets
from komas.web.past_loader import PastLoader
from komas.web.services import Services
from komas.web.stream_limits import StreamLimits

if TYPE_CHECKING:
    from komas.cluster import Cluster

log = logging.getLogger(__name__)

# Hypercorn's own format writes the decoded path, which can hold a line of an attacker's, and the query, which can hold
# a token: neither is written. The same line stands in hypercorn.toml.
ACCESS_LOG = "%(h)s %(m)s %(s)s %(B)s bytes %(L)s s"

# Where its own file says nothing else; the same stands in hypercorn.toml.
HYPERCORN = {
    "backlog": 1024,
    "keep_alive_timeout": 75,
    "shutdown_timeout": 10,
    "startup_timeout": 20,
    "h11_max_incomplete_size": 32_768,  # of a request's head: the longest token twice as long
}
MARKETS = (limits.SPOT, limits_usdm.USD_M)  # the first is the primary one
OPEN_FILES = 65_536  # more than the defaults of all limits of clients together


class Gateway:
    """The open components, the ASGI application over them, and the way to end it."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.app: QuartTrio = create_app(services)
        self.serving = trio.Event()  # set once the application is served; deferred work waits for it

    def drain(self) -> None:
        """Take no more subscribers and end those there are: SSE streams finish cleanly, signal sockets with 1001."""
        if not self.services.draining.is_set():
            sockets = self.services.signals.registry.statistics().sockets
            log.info("draining", extra={"subscribers": self.services.hub.subscribers, "sockets": sockets})
            self.services.draining.set()
            self.services.signals.keeper.look_at_all()
            self.services.hub.drain()

    def status(self) -> str:
        """What systemd, or the supervisor of workers, is told: what this process lacks of the backplane.

        The exchange's state is not in it: no other worker would help.
        """
        cluster, role = self.services.cluster, self.services.settings.role
        if cluster is None:
            return SERVING
        if role != FEED and (reason := cluster.why_not_ready()) is not None:
            return f"not ready: {reason}"
        body = cluster.body()
        return LEADING if body.leader == body.node else SERVING

    async def drain_with(self, run: Run) -> None:
        """Say that the server stops, as soon as it is asked to; drain once Hypercorn has begun to."""
        await run.stopping.wait()
        self.services.stopping.set()
        await run.draining.wait()
        self.drain()


@asynccontextmanager
async def open_gateway(
    settings: Settings,
    *,
    config: Config | None = None,
    open_stream: OpenStream = open_tcp,
    clock_ms: Callable[[], int] = wall_ms,
) -> AsyncIterator[Gateway]:
    """Open every component; leaving the block closes them in reverse. A bug in one of them is raised from here.

    ``config`` is Hypercorn's, where it is known before it listens.
    """
    assert settings.data_dir is not None  # load() completes it
    _allow_many_sockets()
    with logging_to(
        logs_of(settings.data_dir),
        level=settings.log_level,
        as_json=settings.log_format == "json",
        days=settings.log_days,
        node=settings.node_name,
    ) as daily:
        access = _open_access(settings, config)
        hub = (SharedHub if settings.backplane else Hub)(
            linger_s=settings.linger_s,
            history_length=settings.journal,
            history_bytes=settings.history_bytes,
            gather_above=settings.gather_above or math.inf,
            clock_ms=clock_ms,
        )
        async with open_signals(settings, clock_ms) as signals, trio.open_nursery() as work, AsyncExitStack() as stack:
            if settings.demo:
                settings = await _simulated(settings, work)
            source = await stack.enter_async_context(
                _open_shared(settings, hub, work, open_stream=open_stream, clock_ms=clock_ms)
                if isinstance(hub, SharedHub)
                else _open_own(settings, hub, work, open_stream=open_stream, clock_ms=clock_ms)
            )
            markets = source.markets
            work.start_soon(hub.interest.sweep, name="interest sweeper")
            work.start_soon(hub.run, settings.heartbeat_s, name="broadcaster")
            work.start_soon(signals.channel.run, name="signal broadcaster")
            work.start_soon(signals.authenticator.run, name="token keys")
            if settings.demo:
                work.start_soon(publish_demo_signals, signals.service, settings.signal_types, name="simulated signals")
                hub.interest.pin([Stream.of(Kind.TICKER, symbol) for symbol in settings.default_symbols])
                markets.primary.feed.connect()
            limits, stream_limits = ConnectionLimits(settings), StreamLimits(settings, hub.interest)
            past = PastLoader(hub, markets, clock_ms, settings.connect_wait_s)
            work.start_soon(past.run, name="past candles")
            services = Services(
                settings,
                access,
                hub,
                markets,
                limits,
                stream_limits,
                signals,
                daily,
                clock_ms,
                past,
                source.commands,
                source.cluster,
                (source.door,),
            )
            gateway = Gateway(services)
            if source.cluster is not None:
                work.start_soon(source.cluster.resign_with, services.stopping, name="resignation")
            work.start_soon(services.loop_lag.run, name="loop lag")
            work.start_soon(_run_signal_service, signals, gateway.serving, name="signal service")
            yield gateway
            if source.cluster is not None:
                await source.cluster.retire()
            work.cancel_scope.cancel("the web layer has drained")


def _open_access(settings: Settings, config: Config | None) -> Access:
    token = admin_token_of(settings)
    log.info(who_may_control(settings, is_exposed=None if config is None else is_exposed(config)))
    return Access(settings, token, is_exposed=_is_exposed, speaks_for_itself=LocalPrograms().speaks_for_itself)


def _is_exposed() -> bool:
    run = present()
    return run is None or run.is_exposed is not False


async def _run_signal_service(signals: SignalServices, serving: trio.Event) -> None:
    """Run the signal service; its first look at the store loads a database, for which prices do not wait."""
    await serving.wait()
    await signals.run()


class _Source(msgspec.Struct, frozen=True):
    """Where market data comes from: markets of this process, or the feed that many share."""

    markets: Markets
    commands: Commands
    door: RestDoor
    cluster: Cluster | None = None


@asynccontextmanager
async def _open_own(
    settings: Settings, hub: Hub, work: trio.Nursery, *, open_stream: OpenStream, clock_ms: Callable[[], int]
) -> AsyncIterator[_Source]:
    """Markets that this process is connected to."""
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(
                open_market(
                    plan.spec,
                    plan.rest_url,
                    sink=hub,
                    interest=hub.interest,
                    options=plan.options(lambda _stream: None),
                )
            )
            for plan in _plans(settings, open_stream, clock_ms)
        ]
        for market in opened:
            market.start_in(work)
        door = BinanceDoor([market.rest for market in opened], clock_ms, work)
        yield _Source(Markets(opened), OwnCommands(hub.interest, opened), door)


@asynccontextmanager
async def _open_shared(
    settings: Settings, hub: SharedHub, work: trio.Nursery, *, open_stream: OpenStream, clock_ms: Callable[[], int]
) -> AsyncIterator[_Source]:
    """The feed that many processes share."""
    from komas.cluster import open_cluster  # noqa: PLC0415 - who has no backplane does not load it

    if settings.demo:
        raise SettingError("the demo has an exchange of its own; several processes share `komas simulate` (--upstream)")
    plans = _plans(settings, open_stream, clock_ms)
    async with open_cluster(settings, hub, plans, clock_ms=clock_ms, nursery=work) as cluster:
        door = BinanceDoor(cluster.hosts, clock_ms, work)
        yield _Source(Markets(cluster.markets), cluster.commands, door, cluster)


def _plans(settings: Settings, open_stream: OpenStream, clock_ms: Callable[[], int]) -> list[MarketPlan]:
    """How each of the exchange's markets is opened."""
    return [
        MarketPlan(
            spec,
            own.stream,
            own.rest,
            partial(_market_options, spec, own.stream, settings, open_stream=open_stream, clock_ms=clock_ms),
        )
        for spec in MARKETS
        for own in [_hosts(settings)[spec.venue]]
    ]


def _market_options(
    spec: MarketSpec,
    url: str,
    settings: Settings,
    held: Callable[[Stream], None],
    *,
    open_stream: OpenStream,
    clock_ms: Callable[[], int],
) -> MarketOptions:
    return MarketOptions(
        url=url,
        is_primary=spec is MARKETS[0],
        backfill_s=settings.backfill_s,
        retry_policy=_retry_policy(settings),
        streams_per_connection=settings.streams_per_connection,
        redundancy=settings.redundancy,
        open_stream=open_stream,
        clock_ms=clock_ms,
        held=held,
    )


def _hosts(settings: Settings) -> dict[Venue, Hosts]:
    return hosts.complete(
        {
            Venue.BINANCE: Hosts(settings.binance_upstream, settings.binance_rest_upstream),
            Venue.BINANCE_USDM: Hosts(settings.binance_usdm_upstream, settings.binance_usdm_rest_upstream),
        }
    )


def _allow_many_sockets() -> None:
    """Raise the limit of open files as far as the system lets us: many systems begin with 1024."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - not there on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft not in (resource.RLIM_INFINITY, most) and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _simulated(settings: Settings, nursery: trio.Nursery) -> Settings:
    """Start the exchange simulator beside us, and use it as upstream."""
    from komas.simulator import SimOptions, Simulator, simulate  # noqa: PLC0415 - who serves real prices does not load it

    options = SimOptions(bind="127.0.0.1:0")
    symbols = (
        *settings.default_symbols,
        *(symbol for symbol in options.symbols if symbol not in settings.default_symbols),
    )
    simulator: Simulator = await nursery.start(
        simulate, msgspec.structs.replace(options, symbols=symbols), name="simulated exchange"
    )
    return msgspec.structs.replace(
        settings,
        binance_upstream=simulator.ws_url,
        binance_rest_upstream=simulator.rest_url,
        binance_usdm_upstream=simulator.ws_url,
        binance_usdm_rest_upstream=simulator.rest_url,
    )


async def serve(
    settings: Settings,
    *,
    ready: Callable[[list[str]], None] = lambda _binds: None,
) -> None:
    """Serve until SIGINT or SIGTERM, then drain; a second signal ends the process at once, but a worker's.

    ``ready`` is called with the addresses once they accept connections.
    """
    run = install(settings)
    config = hypercorn_config(settings)
    is_worker = lifeline.hold(settings.stop_s)
    async with trio.open_nursery() as signals:
        await signals.start(first_signal, run.stop, (lambda: None) if is_worker else leave_at_once, name="signals")
        async with open_gateway(settings, config=config) as gateway:
            signals.start_soon(gateway.drain_with, run)
            told = partial(report, gateway.serving, run.stopping, status=gateway.status)
            signals.start_soon(told, name="systemd")
            with unix_sockets(config, run, int(settings.unix_socket_mode, 8)):
                async with trio.open_nursery() as edge:
                    serving = partial(hypercorn_serve, gateway.app, config)
                    try:
                        binds = await edge.start(serving, name="edge")
                    except* OSError as group:
                        raise _unbound(settings.bind, first_of(group)) from None
                    ready(binds)
                    gateway.serving.set()
        signals.cancel_scope.cancel("the web layer has drained")


def _unbound(binds: Sequence[str], error: BaseException) -> OSError:
    """Why nothing can listen, with the addresses; ``errno`` stays what it was."""
    named = OSError(f"{', '.join(binds)} cannot be bound: {error}")
    named.errno = error.errno if isinstance(error, OSError) else None
    return named


def hypercorn_config(settings: Settings) -> Config:
    """Hypercorn's settings: its file, if one was named, and what ours decide."""
    table = {} if settings.config is None else _config_file(settings.config)
    config = Config.from_mapping({**HYPERCORN, **table})
    config.bind = list(settings.bind)
    config.worker_class = "trio"
    config.workers = 1
    config.graceful_timeout = settings.graceful_timeout_s
    config.alpn_protocols = ["http/1.1"]
    config.include_server_header = False
    config.errorlog = logging.getLogger("hypercorn.error")
    config.access_log_format = ACCESS_LOG
    return config


def _config_file(path: Path) -> dict[str, object]:
    """Hypercorn takes any key and any type in its file without a word; here a wrong one is named."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"--config {path}: {error}") from error
    plain = Config()
    for key, value in table.items():
        default = getattr(plain, key, None)
        if not hasattr(plain, key) and key != "application_path":
            raise SettingError(f"--config {path}: Hypercorn has no setting {key!r}")
        if isinstance(default, int | float) and not isinstance(value, int | float):
            raise SettingError(f"--config {path}: {key}: got {value!r}; accepted: a number")
    return table


def _retry_policy(settings: Settings) -> RetryPolicy:
    return RetryPolicy(
        network_max_s=settings.reconnect_max_s,
        refused_max_s=settings.refused_max_s,
        attempts=settings.reconnect_attempts or None,
    )
