"""A worker without models that makes mistakes on demand: `python -m tests.integration.fake_worker SETTINGS PORT MODE`.

Modes: good; twice (answers one tick twice); drops (leaves one action out); dies (after some ticks).
"""

import http.server
import sys
import threading
from typing import Any

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Producer, TopicPartition

from stream import clients, topics
from stream.config import Settings
from stream.messages import DECODE_ERRORS, Action, Horizon, Prediction, Risk, Tick, decode_tick, encode
from stream.signals import stop_on_signals
from stream.tail import record_of

ODD_TICK = 100  # the mistake is made on this one


class Health(http.server.BaseHTTPRequestHandler):
    """Always well."""

    def do_GET(self) -> None:
        """200."""
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def answers(tick: Tick, partition: int, offset: int) -> dict[str, Any]:
    """One result for each topic."""
    place: dict[str, Any] = {
        "symbol": tick.symbol,
        "venue": tick.venue,
        "partition": partition,
        "offset": offset,
        "exchange_ns": tick.exchange_ns,
        "warming": False,
    }
    horizon = Horizon(60, 0.0, 1e-3, 0.5, [-2e-3, -1e-3, 0.0, 1e-3, 2e-3])
    return {
        "predictions": Prediction(**place, horizons=[horizon], model="fake@1"),
        "risk": Risk(
            **place,
            anomaly=0.5,
            var_99=2e-3,
            es_975=2e-3,
            volatility_ratio=1.0,
            flow=0.0,
            liquidity=0.0,
            score=10.0,
            level="normal",
            model="fake@1",
        ),
        "actions": Action(
            **place,
            action="flat",
            target_position=0.0,
            action_values=[0.0, 0.0, 0.0],
            expected_reward=0.0,
            gated_by=None,
            model="fake@1",
        ),
    }


def main(settings: Settings, port: int, mode: str) -> None:
    """Answer until told to stop."""
    stop = stop_on_signals()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    names = settings.topics
    consumer = clients.consumer(settings.cluster, print)
    count = topics.partitions_of(settings.cluster, [names.ticks])[names.ticks]
    consumer.assign([TopicPartition(names.ticks, partition, OFFSET_BEGINNING) for partition in range(count)])
    producer = Producer({"bootstrap.servers": settings.broker, "linger.ms": 1, "log_level": 0})
    seen = 0
    while not stop.is_set():
        message = consumer.poll(0.1)
        producer.poll(0)
        if message is None or message.error() is not None:
            continue
        seen += 1
        record = record_of(message)
        place, key = (record.partition, record.offset), record.key
        try:
            tick = decode_tick(record.value)
            if tick.symbol.encode() != key:
                raise ValueError("key")
        except DECODE_ERRORS:
            headers = {"reason": "json", "rule": "bad", "partition": str(place[0]), "offset": str(place[1])}
            producer.produce(names.rejected, record.value, key, headers=list(headers.items()))
            continue
        for kind, answer in answers(tick, *place).items():
            times = {"twice": 2, "drops": 0}.get(mode, 1) if seen == ODD_TICK and kind == "actions" else 1
            for _ in range(times):
                producer.produce(getattr(names, kind), encode(answer), key)
        if mode == "dies" and seen == ODD_TICK:
            print("out of luck", flush=True)
            sys.exit(3)
    producer.flush(10)
    consumer.close()


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Settings), int(sys.argv[2]), sys.argv[3])
