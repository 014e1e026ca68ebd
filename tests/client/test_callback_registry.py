"""How callbacks are called, whatever they do."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from komas.client.callback_registry import CallbackError, CallbackRegistry


async def test_callbacks_are_called_one_after_the_other(autojump_clock: trio.testing.MockClock) -> None:
    """Plain functions and coroutine functions; one that is added meanwhile is called from the next time on."""
    registry = CallbackRegistry()
    heard: list[str] = []

    async def slow() -> None:
        await trio.sleep(1)
        heard.append("slow")
        registry.on_connect.append(lambda: heard.append("added"))

    registry.on_connect += [slow, lambda: heard.append("plain")]
    await registry.call(registry.on_connect)
    assert heard == ["slow", "plain"]
    await registry.call(registry.on_connect)
    assert heard == ["slow", "plain", "slow", "plain", "added"]


async def test_what_a_callback_raises_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """With its stream and its cause, to every handler of errors; one that raises itself is logged, and no more."""
    registry = CallbackRegistry()
    errors: list[Exception] = []

    def fail(*_given: object) -> None:
        raise KeyError("mine")

    registry.on_error += [fail, errors.append]
    await registry.call([fail], 1, name="btcusdt@trade")
    await registry.call([fail])
    assert [str(error) for error in errors] == [
        "a callback for btcusdt@trade raised KeyError: 'mine'",
        "a callback for the connection raised KeyError: 'mine'",
    ]
    [first, _] = errors
    assert isinstance(first, CallbackError)
    assert (first.stream, type(first.__cause__)) == ("btcusdt@trade", KeyError)
    assert [record.message for record in caplog.records] == ["on_error raised 'mine'"]


async def test_what_nobody_hears_of_is_logged(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Sixty errors of a program without ``on_error`` left no line; now one a minute for each stream, with its place."""
    registry = CallbackRegistry()

    def fail() -> None:
        raise KeyError("mine")

    for _ in range(61):
        for name in ("btcusdt@trade", "ethusdt@trade"):
            await registry.call([fail], name=name)
        await trio.sleep(1)
    said = [record for record in caplog.records if "btcusdt@trade" in record.getMessage()]
    assert len(said) == len(caplog.records) - len(said) == 2
    assert "KeyError: 'mine'" in said[0].getMessage()
    assert said[0].exc_info is not None
    assert vars(said[1])["left_out"] == 59


async def test_a_cancelled_callback_is_no_error() -> None:
    """Its cancellation goes on up."""
    registry = CallbackRegistry()
    errors: list[Exception] = []
    registry.on_error.append(errors.append)
    with trio.CancelScope() as scope:
        scope.cancel("by the test")
        await registry.call([trio.lowlevel.checkpoint])
    assert scope.cancelled_caught
    assert errors == []
