"""What runs in a Tapewatch worker: ticks in, forecasts, risk, actions and alerts out. Never imports torch."""

__version__ = "0.1.0"
