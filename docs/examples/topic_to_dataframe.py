"""What is on a topic as a pandas DataFrame: python topic_to_dataframe.py HOST:PORT TOPIC [FILE.parquet]

A record a row; the nested parts of predictions and alerts stay as they are. Reads what is there, and ends.
"""

import json
import sys

import pandas
from kafka import KafkaConsumer, TopicPartition


def frame(broker: str, topic: str) -> pandas.DataFrame:
    """All records of a topic, in the order of each partition; a result that came twice stands once."""
    consumer = KafkaConsumer(
        bootstrap_servers=broker, auto_offset_reset="earliest", isolation_level="read_committed", group_id=None
    )
    partitions = [TopicPartition(topic, each) for each in sorted(consumer.partitions_for_topic(topic) or [])]
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    rows = []
    while any(consumer.position(partition) < ends[partition] for partition in partitions):
        for records in consumer.poll(timeout_ms=500).values():
            rows += [json.loads(record.value) for record in records]
    consumer.close()
    table = pandas.DataFrame(rows)
    if "offset" in table:
        table = table.drop_duplicates([name for name in ("partition", "offset", "alert_id", "state") if name in table])
    if "exchange_ns" in table:
        table.insert(0, "time", pandas.to_datetime(table["exchange_ns"], utc=True))
    return table.reset_index(drop=True)


if __name__ == "__main__":
    found = frame(sys.argv[1], sys.argv[2])
    print(found.describe().to_string() if len(found) else "nothing there")
    if len(sys.argv) > 3:
        found.to_parquet(sys.argv[3])
