"""A worker under a steady load for hours, and whether anything of it grows: `python -m tests.soak`."""
