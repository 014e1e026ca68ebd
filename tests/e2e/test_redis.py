"""The backplane on Redis servers that are killed, frozen, replaced, or want to know who calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress

import pytest
import trio

from benchmarks.certificate import sign_certificate
from komas.backplane.ports import Acquired, Backplane, BackplaneError, EntryId, Fenced, Held
from komas.backplane.redis import open_redis
from komas.backplane.redis_store import RedisBackplane
from komas.errors import SettingError
from tests.backplane.contract import LONG_S, lead, places, write
from tests.e2e.redis_server import RedisServer, free_port, redis_folder, redis_server

PASSWORD = "hunter2/@"
QUOTED = "hunter2%2F%40"
COMMANDS = (
    "+eval +evalsha +get +set +del +exists +pttl +pexpire +time +xadd +xtrim +xread +xinfo|stream "
    "+rpush +lrange +ltrim +lpop +blpop +hset +hdel +hgetall"
)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis of its own, on a socket."""
    with redis_server() as server:
        yield server


@asynccontextmanager
async def connected(
    url: str | RedisServer, *, call_s: float = 10.0, prefix: str = "komas", market: str = "spot"
) -> AsyncIterator[RedisBackplane]:
    """A node's connection."""
    url = url if isinstance(url, str) else f"unix://{url.socket}"
    async with open_redis(url, call_s=call_s, prefix=prefix, market=market) as node:
        yield node


async def in_thread(action: Callable[[], object]) -> object:
    """Do what blocks."""
    return await trio.to_thread.run_sync(action)


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Ask until it is so; a store that does not answer is asked again."""
    with trio.fail_after(60):
        while True:
            with suppress(BackplaneError):
                if await condition():
                    return
            await trio.sleep(0.05)


async def is_at(node: Backplane, place: EntryId | None) -> bool:
    """Whether that is the newest entry."""
    return await node.newest() == place


async def everything(node: Backplane) -> None:
    """Each kind of call once."""
    first = await lead(node, "a")
    last = await write(node, first, 2)
    anew = EntryId(last.term, last.sequence + 1)
    await node.append(last, anew, b"", b"", starts_anew=True)
    assert await places(node) == [anew]
    assert await node.renew("a", first.term, LONG_S)
    await node.release("a", first.term)
    await node.keep("nodes", "a", b"1", LONG_S)
    assert await node.kept("nodes") == {"a": b"1"}
    await node.drop("nodes", "a")
    await node.wish(b"w")
    ((place, _),) = await node.wishes("", most=1, wait_s=0)
    assert await node.wishes(place, most=1, wait_s=0.01) == []
    await node.answer("q", b"y")
    assert await node.answer_to("q", LONG_S) == b"y"
    assert await node.answer_to("q", 0) is None


async def test_a_user_who_may_do_no_more_than_needed(caplog: pytest.LogCaptureFixture) -> None:
    """Its keys and these commands are enough; a wrong password is refused without being told to anybody."""
    with redis_server("--requirepass", PASSWORD) as server:
        rule = f"on >{PASSWORD} ~komas:* {COMMANDS}"
        server.ask("-a", PASSWORD, "ACL", "SETUSER", "edge", *rule.split())
        for user in ("edge", ""):
            async with connected(f"unix://{user}:{QUOTED}@{server.socket}") as node:
                await everything(node)
            server.ask("--no-auth-warning", "-a", PASSWORD, "FLUSHALL")
        for wrong in (f"unix://edge:{QUOTED}x@{server.socket}", f"unix://{server.socket}"):
            async with connected(wrong) as node:
                with pytest.raises(BackplaneError) as refusal:
                    await node.newest()
                assert PASSWORD not in f"{refusal.value!r} {refusal.value.__cause__} {node!r}"
        async with connected(f"unix://edge:{QUOTED}@{server.socket}", prefix="other") as node:
            with pytest.raises(BackplaneError, match=r"[Pp]ermission"):
                await node.newest()
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        f"-ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'default' '{PASSWORD}'\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "*1000000\r\n",
        "$5\r\nhe",
        "%1\r\n+proto\r\n:2\r\n",
        "",
    ],
)
async def test_a_server_that_is_no_redis(answer: str) -> None:
    """What it says is no answer, and where it repeats the password, nobody else does."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(4096)
        await stream.send_all(answer.encode())

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        async with connected(f"redis://:{QUOTED}@127.0.0.1:{port}", call_s=5) as node:
            with pytest.raises(BackplaneError) as refusal:
                await node.newest()
            assert PASSWORD not in str(refusal.value)
        nursery.cancel_scope.cancel()


async def test_a_database_a_prefix_and_a_market_are_apart(server: RedisServer) -> None:
    """What one writes, the others do not read; all keys of a market are in one slot of a cluster."""
    url = f"unix://{server.socket}"
    async with (
        connected(url) as node,
        connected(url + "?db=1") as database,
        connected(url, prefix="test") as prefix,
        connected(url, market="usdm") as market,
    ):
        await everything(node)
        await node.answer("left", b"")
        await node.keep("nodes", "a", b"", LONG_S)
        for other in (database, prefix, market):
            assert await other.newest() is None
    assert {key.partition(":")[2][:7] for key in server.ask("KEYS", "komas:*").split()} == {"{spot}:"}


async def test_tls_with_a_certificate_that_is_trusted() -> None:
    """One that is not, or one for another name, is refused; a file that is none is a wrong setting."""
    with redis_folder() as folder:
        sign_certificate(folder, "localhost")
        port = free_port()
        tls = ("--tls-port", str(port), "--tls-auth-clients", "no")
        files = ("--tls-cert-file", str(folder / "certificate.pem"), "--tls-key-file", str(folder / "key.pem"))
        with redis_server(*tls, *files):
            ca = f"?ca={folder / 'certificate.pem'}"
            async with connected(f"rediss://localhost:{port}/{ca}") as node:
                await everything(node)
            for wrong in (f"rediss://localhost:{port}", f"rediss://127.0.0.1:{port}{ca}"):
                async with connected(wrong) as node:
                    with pytest.raises(BackplaneError, match="certificate"):
                        await node.newest()
    with pytest.raises(SettingError, match="ca"):
        await open_redis("rediss://h?ca=/nowhere").__aenter__()


async def test_a_server_that_is_not_there(server: RedisServer) -> None:
    """Each call fails soon, says where, and leaves nothing behind; when it is there, the next call is answered."""
    await in_thread(server.kill)
    async with connected(f"redis://127.0.0.1:{free_port()}") as node:
        with pytest.raises(BackplaneError, match=r"127\.0\.0\.1"):
            await node.newest()
    async with connected(server) as node:
        for _ in range(20):
            with pytest.raises(BackplaneError, match=str(server.socket)):
                await node.read(None, most=1, wait_s=LONG_S)
        await in_thread(server.start)
        await everything(node)


async def test_a_killed_server_ends_the_calls_that_wait(server: RedisServer) -> None:
    """At once, not when their time is over; after its restart, which forgot scripts too, all work again."""
    async with connected(server) as node:
        first = await lead(node)
        waits: list[Callable[[], Awaitable[object]]] = []

        async def fails(call: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(BackplaneError):
                await call()
            waits.append(call)

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fails, lambda: node.read(first, most=1, wait_s=LONG_S))
                nursery.start_soon(fails, lambda: node.wishes("", most=1, wait_s=LONG_S))
                nursery.start_soon(fails, lambda: node.answer_to("q", LONG_S))
                await trio.sleep(0.2)
                await in_thread(server.kill)
        assert len(waits) == 3
        await in_thread(server.start)
        await until(lambda: is_at(node, None))
        await everything(node)


async def test_a_backplane_that_was_left_connects_no_more(server: RedisServer) -> None:
    """A call that is in flight fails, and so does one that comes later."""

    async def waits(node: Backplane) -> None:
        with pytest.raises(BackplaneError):
            await node.read(EntryId(1, 0), most=1, wait_s=LONG_S)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery, open_redis(f"unix://{server.socket}") as node:
            nursery.start_soon(waits, node)
            await until(lambda: in_thread(lambda: "cmd=xread" in server.ask("CLIENT", "LIST")))
    with pytest.raises(BackplaneError, match="not used any more"):
        await node.newest()


async def test_a_connection_that_ended_while_it_was_idle_costs_no_call(server: RedisServer) -> None:
    """Servers close those that say nothing for long, and balancers before them, too."""
    async with connected(server) as node:
        first = await lead(node)
        for _ in range(3):
            server.ask("CLIENT", "KILL", "TYPE", "normal")
            assert await node.newest() == first


async def test_scripts_that_the_server_forgot_are_sent_again(server: RedisServer) -> None:
    """Without a failed call."""
    async with connected(server) as node:
        first = await lead(node)
        last = await write(node, first)
        server.ask("SCRIPT", "FLUSH")
        await write(node, last)


async def test_a_frozen_server_holds_up_no_call(server: RedisServer) -> None:
    """Each fails in its time, also one that has to connect first; what was asked is done late, and noticed."""
    async with connected(server, call_s=0.5) as node, connected(server, call_s=0.5) as other:
        last = await write(node, await lead(node))
        late = EntryId(last.term, last.sequence + 1)
        await in_thread(server.freeze)
        try:
            with trio.fail_after(20):
                with pytest.raises(BackplaneError, match="did not answer"):
                    await write(node, last)
                for call in (other.newest, lambda: other.read(None, most=1, wait_s=0.1), node.newest):
                    with pytest.raises(BackplaneError):
                        await call()
        finally:
            server.thaw()
        await until(lambda: is_at(node, late))
        with pytest.raises(Fenced):
            await write(node, last)
        await write(node, late)


async def test_a_cancelled_call_on_a_frozen_server_ends_at_once(server: RedisServer) -> None:
    """As cancelled, with no error in its place, while it connects and while it waits; nothing is used up by it."""
    async with connected(server) as node:
        await node.newest()
        await in_thread(server.freeze)
        try:
            for _ in range(100):
                with trio.fail_after(5), trio.move_on_after(0.005) as scope:
                    await node.newest()
                assert scope.cancelled_caught
        finally:
            server.thaw()
        assert await node.newest() is None


async def test_a_server_that_is_full_says_so(server: RedisServer) -> None:
    """``maxmemory`` reached, nothing evicted: the append failed, and it is known why."""
    async with connected(server) as node:
        first = await lead(node)
        server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(BackplaneError, match="memory"):
            await write(node, first)
        server.ask("CONFIG", "SET", "maxmemory", "0")
        await write(node, first)


async def test_a_log_whose_newest_place_was_evicted_takes_a_new_term(server: RedisServer) -> None:
    """One key of it is gone: its writer is refused, and the next term's id is one that the log takes."""
    async with connected(server) as node:
        first = await lead(node)
        far = EntryId(first.term + 3_600_000, 0)  # as of a store whose clock went back by an hour since
        await node.append(first, far, b"", b"")
        server.ask("DEL", "komas:{spot}:last")
        with pytest.raises(Fenced):
            await write(node, far)
        acquired = await node.acquire("a", LONG_S)
        assert isinstance(acquired, Acquired)
        assert acquired == Acquired(far.term + 1, None)


async def test_a_promoted_replica_takes_the_log_over() -> None:
    """Its primary is gone with what the replica had not heard: the writer is refused, the lease is still held."""
    with ExitStack() as stack:
        primary_port, replica_port = free_port(), free_port()
        primary = stack.enter_context(redis_server(port=primary_port))
        replica = stack.enter_context(redis_server("--replicaof", f"127.0.0.1 {primary_port}", port=replica_port))
        async with (
            connected(f"redis://127.0.0.1:{primary_port}") as node,
            connected(f"redis://127.0.0.1:{replica_port}") as other,
        ):
            first = await lead(node, "a")
            known = await write(node, first, 3)
            await until(lambda: is_at(other, known))
            with pytest.raises(BackplaneError, match=r"(?i)read.?only"):
                await write(other, known)
            replica.ask("REPLICAOF", "NO", "ONE")
            lost = await write(node, known, 2)
            await in_thread(primary.kill)
            assert await places(other) == [EntryId(first.term, sequence) for sequence in range(4)]
            with pytest.raises(Fenced) as refusal:
                await write(other, lost)
            assert refusal.value.newest == known
            assert isinstance(await other.acquire("b", LONG_S), Held)
            assert await other.renew("a", first.term, LONG_S)


async def test_sentinels_say_which_server_it_is() -> None:
    """The primary is killed: the same connection finds the replica that takes over, and never writes to another."""
    with ExitStack() as stack:
        ports = free_port(), free_port(), free_port()
        login = ("--requirepass", PASSWORD, "--masterauth", PASSWORD)
        primary = stack.enter_context(redis_server(*login, port=ports[0]))
        replica = stack.enter_context(redis_server(*login, "--replicaof", f"127.0.0.1 {ports[0]}", port=ports[1]))
        folder = stack.enter_context(redis_folder())
        config = folder / "sentinel.conf"
        config.write_text(
            f"sentinel monitor prices 127.0.0.1 {ports[0]} 1\nsentinel auth-pass prices {PASSWORD}\n"
            "sentinel down-after-milliseconds prices 300\nsentinel failover-timeout prices 2000\n"
        )
        stack.enter_context(redis_server(port=ports[2], kind=(str(config), "--sentinel")))
        url = f"redis+sentinel://:{QUOTED}@127.0.0.1:{free_port()},127.0.0.1:{ports[2]}/"
        async with connected(url + "prices") as node, connected(url + "unknown") as stranger:
            last = await write(node, await lead(node, "a"), 3)
            with pytest.raises(BackplaneError, match="unknown"):
                await stranger.newest()
            await until(lambda: knows_a_replica(ports[2]))
            await until(lambda: in_thread(lambda: str(last) in newest_of(replica)))
            await in_thread(primary.kill)
            with pytest.raises(BackplaneError):
                await node.newest()
            await until(lambda: is_at(node, last))
            late = EntryId(last.term, last.sequence + 1)

            async def wrote() -> bool:
                with suppress(Fenced):
                    await write(node, last)
                return await is_at(node, late)

            await until(wrote)
            assert str(late) in newest_of(replica)


def newest_of(server: RedisServer) -> str:
    """What one server has as the newest place."""
    return server.ask("--no-auth-warning", "-a", PASSWORD, "GET", "komas:{spot}:last")


async def knows_a_replica(sentinel_port: int) -> bool:
    """Whether a Sentinel has heard of it."""
    async with await trio.open_tcp_stream("127.0.0.1", sentinel_port) as stream:
        await stream.send_all(b"SENTINEL REPLICAS prices\r\n")
        return not (await stream.receive_some(65536)).startswith(b"*0")


async def test_a_cluster_says_which_node_has_the_keys() -> None:
    """All keys of a market are in one slot, so one node has them; the other one names it."""
    with ExitStack() as stack:
        ports = free_port(), free_port()
        options = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no", "--cluster-port")
        one, other = (stack.enter_context(redis_server(*options, str(free_port()), port=port)) for port in ports)
        slot = int(one.ask("CLUSTER", "KEYSLOT", "komas:{spot}:bus"))
        other.ask("CLUSTER", "ADDSLOTS", str(slot))
        bus = other.ask("CONFIG", "GET", "cluster-port").split()[-1]
        one.ask("CLUSTER", "MEET", "127.0.0.1", str(ports[1]), bus)
        await until(lambda: in_thread(lambda: str(slot) in one.ask("CLUSTER", "SLOTS")))
        await until(lambda: in_thread(lambda: all("state:ok" in node.ask("CLUSTER", "INFO") for node in (one, other))))
        async with connected(f"redis://127.0.0.1:{ports[0]}") as node:
            await everything(node)
        assert "komas:{spot}:bus" in other.ask("KEYS", "*")
