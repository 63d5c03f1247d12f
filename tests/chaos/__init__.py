"""Faults under load on a real Kafka, and the verdict: `python -m tests.chaos`."""
