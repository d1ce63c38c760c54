"""The running gateway: performs what `core` decides; HTTP downstream, WebSocket upstream."""
