"""VIPs at the nodes' sockets and one who publishes, and what each VIP has of it at the end."""

from __future__ import annotations

import json
import random
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import h11
import msgspec
import trio
import trio_websocket

from benchmarks.cluster.programs import wait_until
from benchmarks.cluster.servers import Server, World
from komas.signals.tokens import SCOPE_PUBLISH, Issuer, Rules

RETRY_S: Final = (1.0, 4.0)  # what komas says to browsers (``retry:``)
CONNECT_S: Final = 10.0
CLOSE_S: Final = 0.1
AGAIN_S: Final = 0.1
JOIN_AT_ONCE: Final = 20
JOIN_EVERY_S: Final = 0.1
ANSWER_S: Final = 5.0
HASTE_S: Final = 0.02
FINISH_S: Final = 60.0  # in which the last signal is answered, once nothing goes wrong any more
DAYS: Final = 7  # of a token: longer than any run
DAY_S: Final = 24 * 3600
DRAFT: Final = b'{"signal_type": "mexc_dex", "data": {"coin_name": "SOL"}}'
TAKEN: Final = frozenset({200, 201})
REFUSED: Final = frozenset({400, 401, 403, 404, 409, 413, 415, 422})  # will be so the next time, too
_ENDED: Final = (trio_websocket.ConnectionClosed, trio_websocket.HandshakeError)


class Taken(msgspec.Struct, frozen=True):
    """A signal as a VIP received it: where, and when by this process' clock, in seconds."""

    id: int
    where: str
    at_s: float


class Habits(msgspec.Struct, frozen=True):
    """How VIPs and publisher behave, in seconds; a VIP that does not leave by itself stays until it is cut off."""

    stays_s: tuple[float, float] | None = None
    away_s: tuple[float, float] = RETRY_S
    pace_s: float = 0.5  # between signals
    hasty: float = 0.0  # so often a request is given up within ``HASTE_S``, and repeated


class Vip:
    """One VIP's socket, which comes back with its position; at any node."""

    def __init__(self, world: World, name: str, token: str, habits: Habits, seed: int) -> None:
        self._world = world
        self._token = token
        self._habits = habits
        self._dice = random.Random(seed)
        self._place = ""
        self.name = name
        self.taken: list[Taken] = []
        self.visits = 0
        self.is_in = trio.Event()

    @property
    def ids(self) -> list[int]:
        """What it received, as it came."""
        return [taken.id for taken in self.taken]

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            stays = self._habits.stays_s
            with trio.move_on_after(float("inf") if stays is None else self._dice.uniform(*stays)):
                try:
                    await self._visit(self._dice.choice(self._world.nodes))
                except* (OSError, trio.BrokenResourceError, trio.TooSlowError, *_ENDED):
                    pass
            await trio.sleep(self._dice.uniform(*self._habits.away_s))

    async def _visit(self, node: Server) -> None:
        place = f"&since={self._place}" if self._place else "&positions=1"
        resource = f"/ws/signals?token={self._token}{place}"
        with trio.fail_after(CONNECT_S):
            stream = await trio.open_tcp_stream("127.0.0.1", node.port)
        async with stream, trio.open_nursery() as nursery:
            with trio.fail_after(CONNECT_S):
                socket = await trio_websocket.wrap_client_stream(nursery, stream, f"127.0.0.1:{node.port}", resource)
            try:
                await self._listen(socket, node)
            finally:
                with trio.move_on_after(CLOSE_S, shield=True):
                    await socket.aclose()
                nursery.cancel_scope.cancel("this visit is over")

    async def _listen(self, socket: trio_websocket.WebSocketConnection, node: Server) -> None:
        while True:
            message = json.loads(await socket.get_message())
            # No await from here: a place that is kept is that of what was taken.
            self._place = str(message.get("position", self._place))
            if message["type"] == "connected":
                self.visits += 1
                self.is_in.set()
            elif message["type"] == "new_signal":
                self.taken.append(Taken(message["data"]["id"], node.name, trio.current_time()))


class Publisher:
    """Publishes signals one after another, each until some node has taken it; ``ids`` are those that were answered."""

    def __init__(self, world: World, token: str, habits: Habits, seed: int) -> None:
        self._world = world
        self._token = token
        self._habits = habits
        self._dice = random.Random(seed)
        self._is_told = trio.Event()
        self._has_ended = trio.Event()
        self.ids: list[int] = []
        self.asked_at: dict[int, float] = {}  # when the request began that was answered
        self.refused: list[str] = []
        self.repeats = 0

    async def run(self) -> None:
        """Publish until it is told to ``finish()``."""
        while not self._is_told.is_set():
            await self._publish(secrets.token_hex(8))
            with trio.move_on_after(self._habits.pace_s):
                await self._is_told.wait()
        self._has_ended.set()

    async def finish(self) -> None:
        """Have the signal that is under way answered, and no other begun.

        One that was given up may have been committed: it would reach VIPs, and belong to nothing.
        """
        self._is_told.set()
        with trio.move_on_after(FINISH_S):
            await self._has_ended.wait()
            return
        self.refused.append(f"no answer after {self.repeats} repetitions of all")

    async def _publish(self, key: str) -> None:
        headers = [("Authorization", f"Bearer {self._token}"), ("Idempotency-Key", key)]
        while True:
            self._world.publishing.unpark_all()
            asked_at = trio.current_time()
            is_hasty = self._dice.random() < self._habits.hasty
            patience_s = self._dice.uniform(0.0, HASTE_S) if is_hasty else ANSWER_S
            with suppress(OSError, trio.BrokenResourceError, h11.RemoteProtocolError), trio.move_on_after(patience_s):
                status, answer = await _post(self._dice.choice(self._world.nodes).port, "/api/signals", headers, DRAFT)
                if status in TAKEN:
                    self.ids.append(json.loads(answer)["id"])
                    self.asked_at[self.ids[-1]] = asked_at
                    return
                if status in REFUSED:
                    self.refused.append(f"{status} {answer.decode()}")
                    return
            self.repeats += 1
            await trio.sleep(AGAIN_S)


async def _post(port: int, path: str, headers: Sequence[tuple[str, str]], body: bytes) -> tuple[int, bytes]:
    """Status and body of one answer, over a connection of its own; raises what that does.

    httpx leaves generators behind, where it is cancelled or cut off while it writes.
    """
    http, status, answer = h11.Connection(h11.CLIENT), 0, b""
    own = [("Host", f"127.0.0.1:{port}"), ("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    request = h11.Request(method="POST", target=path, headers=[*own, *headers])
    events = (request, h11.Data(data=body), h11.EndOfMessage())
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"".join(http.send(event) or b"" for event in events))
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                answer += bytes(event.data)
            else:  # the server hung up, or refused in the middle
                raise h11.RemoteProtocolError(f"{event} before the answer's end")
    return status, answer


class Verdict(msgspec.Struct):
    """What VIPs have of what was published; ``doubled`` are also those that were nobody's answer.

    ``refused`` are signals whose publisher was refused, or not answered at the end.
    """

    refused: int = 0
    missing: int = 0
    doubled: int = 0
    out_of_order: int = 0
    findings: list[str] = msgspec.field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether all were taken, and each VIP has each once and in order."""
        return not (self.refused or self.missing or self.doubled or self.out_of_order)


def judge(published: Sequence[int], vip: str, taken: Sequence[Taken], verdict: Verdict, began: float = 0.0) -> None:
    """Add what one VIP has of signals whose ids ascend; times are told in seconds after ``began``."""
    wanted, seen = set(published), dict[int, Taken]()
    newest = 0
    for each in taken:
        here = f"{vip} at {each.where}: signal {each.id}, {each.at_s - began:.2f} s"
        if (first := seen.get(each.id)) is not None:
            verdict.doubled += 1
            verdict.findings.append(f"{here}: came before at {first.where}, {first.at_s - began:.2f} s")
        elif each.id not in wanted:
            verdict.doubled += 1
            verdict.findings.append(f"{here}: it was not what its publisher was answered")
        elif each.id < newest:
            verdict.out_of_order += 1
            verdict.findings.append(f"{here}: came after {newest}")
        seen.setdefault(each.id, each)
        newest = max(newest, each.id)
    for number in sorted(wanted - set(seen)):
        verdict.missing += 1
        after = next((each for each in taken if each.id > number), None)
        until = (
            "nothing came after it"
            if after is None
            else f"{after.id} came at {after.where}, {after.at_s - began:.2f} s"
        )
        verdict.findings.append(f"{vip}: signal {number} is missing; {until}")


class Signals:
    """A publisher and its VIPs: ``start()`` them, then ``finish()``, wait until ``all_have_all()``, and judge."""

    def __init__(self, world: World, secret: str, vips: int, habits: Habits, *, seed: int) -> None:
        issuer, now_s = Issuer(secret.encode(), Rules()), int(time.time())
        token = issuer.issue("publisher", now_s=now_s, ttl_s=DAYS * DAY_S, scopes=frozenset({SCOPE_PUBLISH}))
        self._world = world
        self.publisher = Publisher(world, token, habits, seed)
        self.vips: list[Vip] = []
        for number in range(vips):
            token = issuer.issue(str(number), now_s=now_s, ttl_s=DAYS * DAY_S, vip_days=DAYS)
            self.vips.append(Vip(world, f"VIP {number}", token, habits, seed + number))

    async def start(self, nursery: trio.Nursery) -> None:
        """Let VIPs in, some at a time, and publish once all of them are: earlier signals are not theirs."""
        for number, vip in enumerate(self.vips):
            nursery.start_soon(vip.run)
            if number % JOIN_AT_ONCE == 0:
                await trio.sleep(JOIN_EVERY_S)
        for vip in self.vips:
            await vip.is_in.wait()
        nursery.start_soon(self.publisher.run)

    async def all_have_all(self, within_s: float) -> None:
        """Wait until each VIP has every signal, so long at most."""
        wanted = set(self.publisher.ids)

        async def have_all() -> bool:
            return all(wanted.issubset(vip.ids) for vip in self.vips)

        with suppress(trio.TooSlowError):
            await wait_until(have_all, within_s)

    def lost_answers(self) -> int:
        """How many signals VIPs had before the request began that was answered: an earlier one had committed them."""
        asked_at = self.publisher.asked_at
        early = {each.id for vip in self.vips for each in vip.taken if each.at_s < asked_at.get(each.id, 0.0)}
        return len(early)

    def judge(self) -> Verdict:
        """What VIPs have, all together."""
        verdict = Verdict(refused=len(self.publisher.refused))
        twice = [number for number, times in Counter(self.publisher.ids).items() if times > 1]
        verdict.missing += len(twice) * len(self.vips)
        verdict.findings += [f"signal {number} was the answer to two of them" for number in twice]
        verdict.findings += [f"the publisher was refused: {words}" for words in self.publisher.refused]
        for vip in self.vips:
            judge(self.publisher.ids, vip.name, vip.taken, verdict, self._world.began)
        return verdict
