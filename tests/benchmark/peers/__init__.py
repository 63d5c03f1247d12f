"""What the worker is compared with: programs that read ticks and write the three results of each.

Each is started as the worker is, with its settings in TAPEWATCH_* variables, and ended by SIGTERM.
"""
