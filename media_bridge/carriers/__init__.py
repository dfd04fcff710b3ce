"""The phone carrier's side of a call: Media Streams messages, TwiML and webhook signatures. No I/O."""
