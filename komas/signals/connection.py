"""One VIP socket: reads, writes and waits as its session decides.

The reader runs for the life of the socket, so that the client's leaving is noticed. Whatever ends the conversation
names a row of ``Closing``; a bug is ``FAILED``, never a normal end.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec
import trio

from komas.errors import Closing, SlowConsumer, StoreUnavailable, Unauthorized
from komas.hub.broadcast import Encoder, Writer
from komas.model.signal_filter import EVERYTHING, SignalFilter
from komas.model.signals import Principal, SignalEnvelope, Vip
from komas.signals.delivery import Delivery
from komas.signals.services import SignalServices
from komas.signals.session import Action, Close, Ping, Refresh, Send, Session

log = logging.getLogger(__name__)

CHECK_S: Final = 5.0  # from the handshake to being admitted
SHORTEST_S: Final = 0.001
LOOK_EVERY_S: Final = 30.0  # the wall clock may be set; trio's deadlines do not follow it


class Socket(Protocol):
    """A WebSocket that was accepted. Its calls are cancelled when the peer leaves."""

    async def listen(self, heard: Callable[[str | bytes | None], Awaitable[None]]) -> None:
        """Have each message heard; ``None`` is an empty binary one. May return before there is any."""

    async def send(self, text: str) -> None:
        """Send one text message; waits while the peer does not read."""

    async def ping(self) -> None:
        """Send a ping of the protocol."""

    def hurry(self) -> None:
        """The conversation is over: what is being written has little more time."""

    @property
    def heard_s_ago(self) -> float:
        """Seconds since anything came from the peer."""

    @property
    def writer(self) -> Writer | None:
        """What takes encoded signals without waiting; ``None`` where nothing does."""


class ConnectRequest(msgspec.Struct, frozen=True):
    """What a client asks for at its handshake.

    ``address`` is the one that it is counted by. ``since_id`` is its last signal; ``since`` its last position, which it
    learns by asking for ``positions``. What else it asked for is ``ignored``, and it is told so.
    """

    token: str
    since_id: int | None = None
    since: int | None = None
    positions: bool = False
    wanted: SignalFilter = EVERYTHING
    ignored: tuple[str, ...] = ()
    address: str = ""


class _PermittedWriter:
    """A socket's ``Writer``, for as long as its user may receive signals: checked at each write."""

    def __init__(self, writer: Writer, may_receive: Callable[[], bool]) -> None:
        self._writer = writer
        self._may_receive = may_receive

    def write_nowait(self, frame: bytes) -> int:
        """Write what can be written at once."""
        return self._writer.write_nowait(frame) if self._may_receive() else len(frame)

    async def flush(self) -> bool:
        """Write the rest, if there is one."""
        return await self._writer.flush()


class SignalConnection:
    """Run one with ``run()``; it returns how the socket is to be closed.

    ``encoder`` is for the socket's writer; without one, each signal is sent with ``send()``.
    """

    def __init__(
        self,
        services: SignalServices,
        socket: Socket,
        request: ConnectRequest,
        draining: trio.Event,
        *,
        encoder: Encoder[list[SignalEnvelope]] | None = None,
    ) -> None:
        self._services = services
        self._socket = socket
        self._encoder = encoder
        self._request = request
        self._draining = draining
        self._session = Session(trio.current_time(), services.websocket_ping_s)
        self._nursery: trio.Nursery | None = None
        self._answers: list[Send | Ping] = []
        self._user_id: int | str = ""
        self._since_ms = 0
        self._delivery: Delivery | None = None

    async def run(self) -> Closing:
        """Converse until something ends it."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._socket.listen, self._heard, name="vip reader")
                self._services.keeper.keep(self)
                try:
                    await self._serve()
                finally:
                    self._services.keeper.let_go(self)
        except* StoreUnavailable:
            self._session.close(Closing.TRY_AGAIN)
        except* Exception:
            log.exception("a session failed")  # its bug is not the others'
            self._session.close(Closing.FAILED)
        return self._session.closing or Closing.FAILED

    # As an administrator sees it

    @property
    def user_id(self) -> int | str:
        """Whose it is."""
        return self._user_id

    @property
    def address(self) -> str:
        """The address that it is counted by."""
        return self._request.address

    @property
    def since_ms(self) -> int:
        """When it was let in."""
        return self._since_ms

    @property
    def behind(self) -> int:
        """How many signals and updates it has not been sent."""
        return 0 if self._delivery is None else self._delivery.behind

    def disconnect(self) -> None:
        """Close it, for good: it is not to come back by itself."""
        self._session.close(Closing.DISCONNECTED)
        self._end()

    def _now_s(self) -> float:
        return self._services.clock_ms() / 1000

    async def _serve(self) -> None:
        """Check the token and the user's VIP, then deliver."""
        until = trio.current_time() + CHECK_S
        if (principal := await self._authenticated(until)) is None:
            return
        with self._services.registry.user(principal.subject, self._vip_changed) as has_room:
            if not has_room:
                await self._act(self._session.close(Closing.TRY_AGAIN))
                return
            position = await self._admitted(principal, until)
            if self._session.is_open:
                self._look_again()
                self._user_id, self._since_ms = principal.user_id, self._services.clock_ms()
                name = self._services.registry.show(self)
                try:
                    await self._deliver(position)
                finally:
                    self._services.registry.hide(name)

    async def _authenticated(self, until: float) -> Principal | None:
        """Whose the token is; ``None`` where it is nobody's, or that is not known in time."""
        with trio.move_on_at(until):
            await self._services.service.ready.wait()
            try:
                principal = await self._services.authenticator.authenticate(self._request.token)
            except Unauthorized as refusal:
                log.debug("token refused", extra={"reason": str(refusal)})
                await self._act(self._session.close(Closing.UNAUTHORIZED))
                return None
            self._request = msgspec.structs.replace(self._request, token="")
            return principal
        await self._act(self._session.close(Closing.TRY_AGAIN))
        return None

    async def _admitted(self, principal: Principal, until: float) -> int | None:
        """Greet the user, if it is a VIP; the position that its signals come after."""
        with trio.move_on_at(until) as window:
            # Registered before the question: a change that overtakes the answer is heard.
            known = await self._services.vips.known(principal.subject)
            position = await self._first_position()
            # What is published from here on comes after the greeting, however long that takes to be sent.
            position = self._services.channel.position if position is None else position
            window.deadline = math.inf
            told = position if self._request.positions else None
            await self._act(self._session.admitted(principal, known, self._now_s(), told, self._request.ignored))
            return position
        await self._act(self._session.close(Closing.TRY_AGAIN))
        return None

    async def _first_position(self) -> int | None:
        if (since := self._request.since) is not None:
            counters = await self._services.store.read(lambda database: database.counters())
            if since > counters.position:  # it was given by a store that is no more
                await self._act(self._session.close(Closing.WRONG_SINCE))
            return since
        if (since_id := self._request.since_id) is None:
            return None
        return await self._services.store.read(lambda database: database.position_of(since_id))

    async def _deliver(self, position: int | None) -> None:
        services, writer = self._services, self._socket.writer
        self._delivery = Delivery(
            services.store,
            services.channel,
            capacity=services.buffer_capacity,
            send=self._send_signal,
            caught_up=self._session.caught_up,
            writer=None if writer is None else _PermittedWriter(writer, self._may_receive),
            encoder=self._encoder,
            wanted=self._request.wanted,
        )
        try:
            await self._delivery.run(position)
        except SlowConsumer:
            await self._act(self._session.close(Closing.TRY_AGAIN))

    async def _send_signal(self, envelope: SignalEnvelope) -> None:
        if self._may_receive():
            await self._socket.send(envelope.text(positions=self._request.positions))

    def _may_receive(self) -> bool:
        """Whether the user may still receive signals; checked at each write, also right before the close."""
        self._session.end_if_over(self._now_s())
        if not self._session.is_open:
            self._end()
        return self._session.is_open

    async def _heard(self, message: str | bytes | None) -> None:
        """Hear the client, also while it does not read: a flood is over as soon as it is one."""
        self._do(self._session.received(message, trio.current_time()))

    def _do(self, actions: list[Action]) -> None:
        """Act without waiting, and in order; what waits is bounded by the rate of messages and a write's deadline."""
        assert self._nursery is not None  # it lives as long as the conversation
        for action in actions:
            match action:
                case Send() | Ping():
                    self._answers.append(action)
                    if len(self._answers) == 1:
                        self._nursery.start_soon(self._send_answers)
                case Refresh(token):
                    self._nursery.start_soon(self._refresh, token)
                case Close():
                    self._end()

    async def _send_answers(self) -> None:
        while self._answers:
            await self._act([self._answers[0]])
            del self._answers[0]

    async def _refresh(self, token: str) -> None:
        try:
            principal = await self._services.authenticator.authenticate(token)
            known = await self._services.vips.known(principal.subject)
        except (Unauthorized, StoreUnavailable):
            await self._act(self._session.not_refreshed())
            return
        await self._act(self._session.refreshed(principal, known, self._now_s()))
        self._look_again()

    # As its keeper sees it

    def look(self) -> float:
        """Ping, and end what is over; returns when to do so again."""
        now, session = trio.current_time(), self._session
        try:
            session.heard(now - self._socket.heard_s_ago)
            if self._draining.is_set():
                self._do(session.close(Closing.SHUTTING_DOWN))
            self._do(session.check(self._now_s()))
            self._do(session.tick(now, self._position()))
        except Exception:
            log.exception("a session failed")  # its bug is not the others'
            session.close(Closing.FAILED)
            self._end()
        wait_s = min(session.next_tick_at - now, session.next_check_s - self._now_s())
        return now + min(max(SHORTEST_S, wait_s), LOOK_EVERY_S)

    def _position(self) -> int | None:
        """What a client that asked for positions cannot learn from its messages, because a filter left some out."""
        is_told = self._delivery is not None and self._request.positions and self._request.wanted
        return self._delivery.position if self._delivery is not None and is_told else None

    def _look_again(self) -> None:
        """The session may be over sooner, or later, than it was."""
        self._services.keeper.look_soon(self)

    def _vip_changed(self, vip: Vip) -> None:
        """Close before another message is sent: the register calls this within the call that changed it."""
        self._session.vip_changed(vip, self._now_s())
        if not self._session.is_open:
            self._end()
        self._look_again()

    def _end(self) -> None:
        """Leave, whatever is being waited for; who may come back is given the time to read why."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel("closed")
        closing = self._session.closing
        if closing is not None and not closing.is_worth_a_retry:
            self._socket.hurry()

    async def _act(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(text):
                    await self._socket.send(text)
                case Ping():
                    await self._socket.ping()
                case _:
                    self._do([action])  # which has nothing to wait for
