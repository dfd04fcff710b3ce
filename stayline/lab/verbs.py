"""TwiML as the lab carrier reads it: the verbs that Stayline uses, with Twilio's defaults."""

from __future__ import annotations

import dataclasses
from typing import Literal
from urllib.parse import urlsplit, urlunsplit
from xml.etree import ElementTree

from stayline.errors import StaylineError

PARSE_FAILURE = 12100
SCHEMA_VIOLATION = 12200
BAD_CONTENT_TYPE = 12300
FETCH_FAILURE = 11200


class CarrierFault(StaylineError):
    """Something that ends a call at Twilio, with Twilio's error code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclasses.dataclass(frozen=True, slots=True)
class Say:
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Play:
    url: str


@dataclasses.dataclass(frozen=True, slots=True)
class Pause:
    seconds: float = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Redirect:
    url: str
    method: str = "POST"


@dataclasses.dataclass(frozen=True, slots=True)
class Hangup:
    pass


@dataclasses.dataclass(frozen=True, slots=True)
class Reject:
    reason: Literal["rejected", "busy"] = "rejected"


@dataclasses.dataclass(frozen=True, slots=True)
class Connect:
    """`<Connect><Stream>`. `stream_url` has lost its query, as at Twilio."""

    stream_url: str
    parameters: dict[str, str]
    action: str | None = None
    method: str = "POST"


@dataclasses.dataclass(frozen=True, slots=True)
class Dial:
    to: str
    action: str | None = None
    method: str = "POST"
    ring_timeout: float = 30
    caller_id: str | None = None


Verb = Say | Play | Pause | Redirect | Hangup | Reject | Connect | Dial


def parse_twiml(text: str) -> list[Verb]:
    """Read a TwiML document.

    Raises:
        CarrierFault: 12100 for XML that does not parse, 12200 for what TwiML (or the lab) does not know.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise CarrierFault(PARSE_FAILURE, f"Document parse failure: {error}") from error
    if root.tag != "Response":
        raise CarrierFault(PARSE_FAILURE, f"The document is a <{root.tag}>, not a <Response>")
    return [_verb(element) for element in root]


def _verb(element: ElementTree.Element) -> Verb:
    text = (element.text or "").strip()
    method = element.get("method", "POST").upper()
    if method not in ("GET", "POST"):
        raise CarrierFault(SCHEMA_VIOLATION, f"<{element.tag} method={method!r}>")
    match element.tag:
        case "Say":
            return Say(text)
        case "Play":
            return Play(text)
        case "Pause":
            return Pause(_seconds(element, "length", 1))
        case "Redirect":
            return Redirect(text, method)
        case "Hangup":
            return Hangup()
        case "Reject":
            return Reject("busy" if element.get("reason") == "busy" else "rejected")
        case "Connect":
            return _connect(element, method)
        case "Dial":
            return _dial(element, method, text)
    raise CarrierFault(SCHEMA_VIOLATION, f"Unknown verb <{element.tag}>")


def _connect(element: ElementTree.Element, method: str) -> Connect:
    if [child.tag for child in element] != ["Stream"]:
        raise CarrierFault(SCHEMA_VIOLATION, "<Connect> without exactly one <Stream>")
    stream = element[0]
    url = urlsplit(stream.get("url", ""))
    if url.scheme not in ("ws", "wss") or not url.netloc:
        raise CarrierFault(SCHEMA_VIOLATION, "<Stream> whose url is not a websocket's")
    parameters = {}
    for child in stream:
        name, value = child.get("name"), child.get("value")
        if child.tag != "Parameter" or name is None or value is None:
            raise CarrierFault(SCHEMA_VIOLATION, f"<Stream> with a <{child.tag}> that it cannot have")
        parameters[name] = value
    return Connect(urlunsplit(url._replace(query="", fragment="")), parameters, element.get("action"), method)


def _dial(element: ElementTree.Element, method: str, text: str) -> Dial:
    targets = [(child.text or "").strip() for child in element if child.tag in ("Number", "Sip")]
    if len(targets) != len(element):
        raise CarrierFault(SCHEMA_VIOLATION, "<Dial> with a noun that the lab does not know")
    if len(targets) > 1 or not (targets or text):
        raise CarrierFault(SCHEMA_VIOLATION, "<Dial> without exactly one target")
    return Dial(
        targets[0] if targets else text,
        element.get("action"),
        method,
        _seconds(element, "timeout", 30),
        element.get("callerId"),
    )


def _seconds(element: ElementTree.Element, name: str, default: float) -> float:
    try:
        return max(0, int(element.get(name, default)))
    except ValueError:
        raise CarrierFault(SCHEMA_VIOLATION, f"<{element.tag} {name}> is not a number of seconds") from None
