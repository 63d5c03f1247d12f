"""Messages that nobody would send, for the pipeline to answer or refuse: `python -m tests.fuzz`."""
