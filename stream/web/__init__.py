"""What a worker serves over HTTP: /metrics, /health, and the board in the browser."""
