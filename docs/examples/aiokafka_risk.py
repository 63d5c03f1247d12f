"""Follow the risk of one symbol with aiokafka: python aiokafka_risk.py HOST:PORT SYMBOL [TOPIC]

With delivery = "at_least_once" results since the last checkpoint come again after a crash, with the same partition and
offset of their tick: who has seen an offset of a partition leaves what is not above it.
"""

import asyncio
import json
import sys

from aiokafka import AIOKafkaConsumer


async def main(broker: str, symbol: str, topic: str = "risk") -> None:
    """Until Ctrl-C."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=broker, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    seen: dict[int, int] = {}
    async with consumer:
        async for record in consumer:
            risk = json.loads(record.value)
            if risk["offset"] <= seen.get(risk["partition"], -1):
                continue
            seen[risk["partition"]] = risk["offset"]
            if record.key == symbol.encode():
                print(f"{symbol} score {risk['score']:.1f} {risk['level']} VaR {risk['var_99']:.5f}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
