"""Print alerts as they open, with kafka-python: python kafka_python_alerts.py HOST:PORT [TOPIC]

TLS and SASL: add security_protocol, sasl_mechanism and the others; see kafka-python's KafkaConsumer.
"""

import json
import sys

from kafka import KafkaConsumer

broker, topic = sys.argv[1], (sys.argv[2:] or ["alerts"])[0]
consumer = KafkaConsumer(
    topic,
    bootstrap_servers=broker,
    group_id="desk-alerts",  # goes on after a restart where it ended
    auto_offset_reset="earliest",
    isolation_level="read_committed",  # with delivery = "exactly_once" each alert comes once
)
for record in consumer:
    alert = json.loads(record.value)
    if alert["state"] == "opened":
        print(alert["symbol"], alert["kind"], alert["severity"], f"{alert['value']:.3g}", flush=True)
