"""The callers of the load benchmark: many scripted telephone calls over Twilio Media Streams from one process."""
