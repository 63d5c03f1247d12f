"""The pure core: numpy and numba only, no clock, no I/O."""
