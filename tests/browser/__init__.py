"""The board in a real browser: what starts it, what serves it, and what it has to show."""
