"""A worker whose broker goes away while it starts or stops: it says so in one line, and that line is the last."""

import asyncio
import gc
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaConnectionError, ProducerFenced
from aiokafka.producer.transaction_manager import TransactionManager

from stream import app
from stream.config import Settings
from stream.errors import TapewatchError, WorkerFailed


class Unlucky:
    """As the app, but the broker dies between the first look at it and the start."""

    async def start(self) -> None:
        """What aiokafka raises then."""
        raise KafkaConnectionError("Unable to bootstrap from [('127.0.0.1', 9092)]")


def test_a_broker_that_goes_away_during_the_start_is_told_in_one_line() -> None:
    with pytest.raises(WorkerFailed, match=r"Kafka went away while the worker started.*Unable to bootstrap") as caught:
        asyncio.run(app._run_app(cast(Any, Unlucky())))
    assert "\n" not in str(caught.value)


class Fenced:
    """As a worker that is told to stop, and the app of it: another producer has its transactional id."""

    failure: TapewatchError | None = None
    crash_reason = None

    def __init__(self, *_: Any) -> None:
        self.app = self
        self.stopping = asyncio.Event()
        self.stopping.set()

    async def start(self) -> None:
        """Starts."""

    async def wait_until_stopped(self) -> None:
        """Has stopped."""

    async def stop(self) -> None:
        """Does not stop in order."""
        raise ProducerFenced


@pytest.mark.parametrize("known", [None, WorkerFailed("topic ticks is gone")])
def test_what_kafkas_client_raises_in_the_end_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, known: TapewatchError | None
) -> None:
    monkeypatch.setattr(Fenced, "failure", known)
    monkeypatch.setattr(app, "Worker", Fenced)
    monkeypatch.setattr(app, "_bound_the_stop", lambda worker: None)
    expected = "topic ticks is gone" if known else "client failed while the worker stopped: ProducerFenced"
    with pytest.raises(WorkerFailed, match=expected) as caught:
        asyncio.run(app.serve(Settings(), cast(Any, None), cast(Any, None)))
    assert "\n" not in str(caught.value)


def left_behind(error: Exception) -> asyncio.Future[Any]:
    """A future with an error that nobody has looked at; for ProducerFenced the one that aiokafka leaves."""
    if isinstance(error, ProducerFenced):
        manager = TransactionManager("worker-ticks-0", 60_000)
        manager.set_pid_and_epoch(1, 0)
        manager.begin_transaction()
        manager.fatal_error(error)
        waiter: asyncio.Future[Any] = manager.wait_for_transaction_end()
        return waiter
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future


@pytest.mark.parametrize(("error", "told"), [(ProducerFenced(), False), (ZeroDivisionError("ours"), True)])
def test_futures_that_kafkas_client_leaves_behind_say_nothing_behind_our_reason(
    caplog: pytest.LogCaptureFixture, error: Exception, *, told: bool
) -> None:
    async def ended() -> list[asyncio.Future[Any]]:
        app.have_the_last_word(asyncio.get_running_loop())
        return [left_behind(error)]

    kept = asyncio.run(ended())
    kept.clear()
    gc.collect()
    assert ("never retrieved" in caplog.text) == told
