"""A worker whose broker goes away while it starts."""

import asyncio
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaConnectionError

from stream import app
from stream.errors import WorkerFailed


class Unlucky:
    """As the app, but the broker dies between the first look at it and the start."""

    async def start(self) -> None:
        """What aiokafka raises then."""
        raise KafkaConnectionError("Unable to bootstrap from [('127.0.0.1', 9092)]")


def test_a_broker_that_goes_away_during_the_start_is_told_in_one_line() -> None:
    with pytest.raises(WorkerFailed, match=r"Kafka went away while the worker started.*Unable to bootstrap") as caught:
        asyncio.run(app._run_app(cast(Any, Unlucky())))
    assert "\n" not in str(caught.value)
