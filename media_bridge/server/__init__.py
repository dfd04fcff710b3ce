"""HTTP and websocket server of a bridge."""
