"""The lab: a simulated carrier that speaks Twilio's protocols, and simulated callers who speak.

The bridge under test cannot tell it from Twilio: signed webhooks, TwiML, Media Streams and the REST interface.
Nothing in Stayline imports the lab except commands and tests.
"""
