"""The TwiML that Stayline answers with. Values are escaped; characters that XML cannot hold are left out.

Every document that attaches a call to a bridge names `/voice/next` twice: as the `action` of `<Connect>`, and in
a `<Redirect>` after it, so that a stream which ends in any way asks what comes next (DESIGN.md, rule 3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from twilio.twiml.voice_response import VoiceResponse

CONTENT_TYPE = "text/xml"

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""All but the Char production of XML 1.0, section 2.2."""


def connect(stream_url: str, parameters: Mapping[str, str], next_url: str) -> str:
    """Attach the call to a bridge: a bidirectional stream, then `next_url`.

    Args:
        stream_url: ws(s) URL without a query (Twilio strips it; data travels in `parameters`).
        parameters: arrive as `customParameters` of the stream's `start`.
        next_url: asked by POST when the stream has ended.
    """
    response = VoiceResponse()
    stream = response.connect(action=_xml(next_url), method="POST").stream(url=_xml(stream_url))
    for name, value in parameters.items():
        stream.parameter(name=_xml(name), value=_xml(value))
    response.redirect(_xml(next_url), method="POST")
    return str(response)


def dial(to: str, next_url: str, ring_timeout: int, caller_id: str = "", say: str = "") -> str:
    """Call somebody else and connect the two; `next_url` is asked with `DialCallStatus` afterwards.

    Args:
        to: E.164 number, or a `sip:` or `sips:` address.
        ring_timeout: seconds that the other side may ring.
        caller_id: the number shown; empty: the caller's own (the carrier's default).
        say: spoken before.
    """
    response = VoiceResponse()
    _say(response, say)
    options = {"caller_id": _xml(caller_id)} if caller_id else {}
    verb = response.dial(action=_xml(next_url), method="POST", timeout=ring_timeout, **options)
    if to.lower().startswith(("sip:", "sips:")):
        verb.sip(_xml(to))
    else:
        verb.number(_xml(to))
    return str(response)


def hold(seconds: int, redirect_url: str, say: str = "") -> str:
    """Wait, then ask `redirect_url` again. As the first answer of a call, it leaves the caller ringing.

    Args:
        say: spoken before; a call that was not answered yet is, by this.
    """
    response = VoiceResponse()
    _say(response, say)
    if seconds:
        response.pause(length=seconds)
    response.redirect(_xml(redirect_url), method="POST")
    return str(response)


def reject(say: str = "", *, busy: bool = False) -> str:
    """Refuse a call: answered with a sentence, or not answered at all when there is none.

    Args:
        busy: a call that is not answered gets a busy tone, and not the tone of a number out of service.
    """
    if say:
        return hang_up(say)
    response = VoiceResponse()
    response.reject(**({"reason": "busy"} if busy else {}))
    return str(response)


def hang_up(say: str = "") -> str:
    response = VoiceResponse()
    _say(response, say)
    response.hangup()
    return str(response)


def _say(response: VoiceResponse, text: str) -> None:
    if text:
        response.say(_xml(text))


def _xml(text: str) -> str:
    return _NOT_XML.sub("", text)
