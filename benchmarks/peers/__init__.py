"""What Stayline is measured against: each a server of its own that takes Twilio's websocket at `/ws`."""
