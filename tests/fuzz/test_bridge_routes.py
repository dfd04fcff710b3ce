"""The bridge's own routes, as it serves them: whoever asks whatever gets an answer, and never a fault of ours.

Temporal is away, so a call that would be admitted is held. Signatures are checked as always.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, urlencode
from xml.etree import ElementTree

import aiohttp
import pytest
import structlog
from aiohttp.test_utils import TestServer
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import MultiDict
from structlog.testing import capture_logs

from media_bridge import admission, live_access
from media_bridge.carriers import signature
from media_bridge.server.app import MAX_BODY, build_app
from media_bridge.shared import Shared
from stayline import Agent, names
from stayline.settings import Settings, TwilioCredentials
from tests.fuzz import carrier_messages as valid
from tests.fuzz.away import Away
from tests.fuzz.generators import ODD, Raw, ascii_tokens, fed, fuzzed, scripts, texts

TOKEN = "the-carriers-token"
ORIGIN = "https://calls.example.com"
PATHS = (names.INBOUND_PATH, names.NEXT_PATH, names.STATUS_PATH)
PUBLIC_FAULTS = {400, 403, 404, 405, 408, 411, 413, 415}


class Bridge:
    """The real application in this process."""

    def __init__(self, away: Away, directory: Path) -> None:
        self.run = away.run
        agent = Agent(stt="deepgram/nova-3", llm="openai/gpt-6-luna", tts="deepgram/aura-2-thalia-en").named(
            "agent"
        )
        settings = Settings(data_dir=directory, public_url=ORIGIN, admission_timeout=0.01, stream_idle_timeout=5)
        self.shared = Shared(settings, TwilioCredentials(auth_token=TOKEN), {"agent": agent}, away.client)
        self.server: TestServer
        self.http: aiohttp.ClientSession

    async def start(self) -> None:
        self.server = TestServer(build_app(self.shared))
        await self.server.start_server()
        self.http = aiohttp.ClientSession(self.server.make_url(""), cookie_jar=aiohttp.DummyCookieJar())

    async def stop(self) -> None:
        await self.http.close()
        await self.server.close()

    async def post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        async with self.http.post(path, data=body, headers=headers) as answer:
            return answer.status, await answer.text(errors="replace")


@pytest.fixture(scope="module")
def bridge(away: Away, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admission, "ASK_SECONDS", 0.005)
        running = Bridge(away, tmp_path_factory.mktemp("bridge"))
        away.run(running.start())
        yield running
        away.run(running.stop())


@pytest.fixture(scope="module")
def said() -> Iterator[list[Any]]:
    structlog.reset_defaults()
    with capture_logs() as lines:
        yield lines


def assert_no_fault(said: list[Any]) -> None:
    faults = [line for line in said if line["event"] in ("request_failed", "session_failed")]
    said.clear()
    assert faults == []


form_texts = texts.map(lambda text: text.encode("utf-8", "replace").decode())
known = {
    "CallSid": st.sampled_from(["CA1", "", "out-1", "../x", "CA" + "9" * 80, "CA1\n"]) | form_texts,
    "From": form_texts,
    "To": form_texts | st.just("+15550100002"),
    "Direction": st.sampled_from(["inbound", "outbound-api", ""]) | form_texts,
    "CallStatus": st.sampled_from(["completed", "ringing", "exploded"]) | form_texts,
    "CallDuration": st.sampled_from(
        [f"{odd}".encode("utf-8", "replace").decode() for odd in ODD if isinstance(odd, str | int)]
    )
    | form_texts,
    "DialCallStatus": st.sampled_from(["completed", "busy", "x"]),
    "DialCallDuration": st.sampled_from(["²", "5", "9" * 5000]) | form_texts,
    "AnsweredBy": st.sampled_from(["human", "machine_start", "²", ""]),
}
forms = st.fixed_dictionaries({"CallSid": known.pop("CallSid")}, optional=known)
queries = st.dictionaries(
    st.sampled_from(["call", "since", "x"]),
    st.sampled_from(["out-1", "out-²", "CA1", "²", "9" * 5000, "-1", "0", "../", "out-" + "a" * 100]) | form_texts,
    max_size=2,
)


@fuzzed(1)
@given(
    path=st.sampled_from(PATHS), form=forms, query=queries, more=st.dictionaries(form_texts, form_texts, max_size=2)
)
@example(
    path=names.STATUS_PATH,
    form={"CallSid": "CA1", "CallStatus": "completed", "CallDuration": "²"},
    query={},
    more={},
)
@example(path=names.NEXT_PATH, form={"CallSid": "CA1", "DialCallDuration": "9" * 5000}, query={}, more={})
@example(path=names.INBOUND_PATH, form={"CallSid": "CA1"}, query={"since": "²"}, more={})
@example(path=names.INBOUND_PATH, form={"CallSid": "CA1"}, query={"since": "9" * 5000}, more={})
def test_signed_forms(
    bridge: Bridge, said: list[Any], path: str, form: dict[str, str], query: dict[str, str], more: dict[str, str]
) -> None:
    """The carrier's own signature, whatever the form: TwiML, or a plain refusal."""
    fed("signed forms")
    whole = MultiDict({**more, **form})
    target = path + (f"?{urlencode(query)}" if query else "")
    signed = signature.sign_webhook(TOKEN, ORIGIN + target, whole)
    headers = {signature.HEADER: signed, "Content-Type": "application/x-www-form-urlencoded"}
    status, text = bridge.run(bridge.post(target, urlencode(list(whole.items())).encode(), headers))
    assert status in (200, 204) or status in PUBLIC_FAULTS
    if status == 200:
        assert ElementTree.fromstring(text).tag == "Response"
    assert_no_fault(said)


bodies = (
    st.binary(max_size=200) | forms.map(lambda form: urlencode(form).encode()) | st.just(b"x=" + b"y" * MAX_BODY)
)
kinds = st.sampled_from(
    [
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded; charset=no-such",
        "application/x-www-form-urlencoded; charset=utf-16",
        "application/x-www-form-urlencoded; charset=base64",
        "application/x-www-form-urlencoded; charset=punycode",
        "multipart/form-data",
        "multipart/form-data; boundary=b",
        "multipart/form-data; boundary=" + "b" * 100,
        "application/json",
        "",
    ]
)
parts = st.sampled_from(
    [
        b"--b\r\n\r\n\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="CallSid"\r\n\r\nCA1\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="x"\r\nContent-Transfer-Encoding: x\r\n\r\n!\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="x"\r\nContent-Encoding: deflate\r\n\r\n!\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="x"; filename="/etc/x"\r\n\r\nCA1\r\n--b--\r\n',
        b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="x"\r\nContent-Type: x; charset=z\r\n\r\nx\r\n--b--',
        b"--b\r\nContent-Disposition: form-data\r\n\r\nCA1\r\n--b--\r\n",
        b"--b",
    ]
)


@fuzzed(1)
@given(path=st.sampled_from(PATHS), kind=kinds, body=bodies | parts, header=st.none() | ascii_tokens)
@example(path=PATHS[0], kind="application/x-www-form-urlencoded; charset=no-such", body=b"x", header=None)
@example(path=PATHS[0], kind="application/x-www-form-urlencoded; charset=base64", body=b"x", header=None)
@example(path=PATHS[0], kind="application/x-www-form-urlencoded", body=b"\xff", header=None)
@example(path=PATHS[0], kind="multipart/form-data", body=b"", header=None)
@example(path=PATHS[0], kind="multipart/form-data; boundary=b", body=b"--b", header=None)
def test_bodies_of_strangers(
    bridge: Bridge, said: list[Any], path: str, kind: str, body: bytes, header: str | None
) -> None:
    """Without a good signature nothing is answered but a refusal, however the body is made."""
    fed("bodies of strangers")
    headers = {"Content-Type": kind} | ({signature.HEADER: header} if header else {})
    status, _ = bridge.run(bridge.post(path, body, headers))
    assert status in PUBLIC_FAULTS
    assert_no_fault(said)


@fuzzed(1)
@given(
    call=st.binary(max_size=20) | st.just(b"CA1"),
    given_=st.binary(max_size=60) | st.sampled_from([b"Bearer x", b"bearer \xff", b"Basic eDp4"]),
    right=st.booleans(),
    query=st.dictionaries(st.sampled_from(["session", "after"]), st.sampled_from(["²", "1", "x", "-1", "9" * 50])),
)
@example(call=b"CA1", given_=b"Bearer \xff", right=False, query={})
def test_live_route(
    bridge: Bridge, said: list[Any], call: bytes, given_: bytes, right: bool, query: dict[str, str]
) -> None:
    """Only who has the call's own token gets as far as to learn that it is not here."""
    fed("live route", 2)
    if right:
        wanted = live_access.token(bridge.shared.settings, bridge.shared.twilio, "CA1")
        call, given_ = b"CA1", f"Bearer {wanted}".encode()
    given_ = bytes(byte for byte in given_ if byte >= 32 and byte != 127)
    for method, end in (("GET", "live"), ("POST", "interrupt")):
        target = f"/api/v1/calls/{quote_from_bytes(call, safe='')}/{end}?{urlencode(query)}"
        status = bridge.run(raw_request(bridge, method, target, given_))
        assert status in ((404, 400) if right else (401, 404, 400))
    assert_no_fault(said)


async def raw_request(bridge: Bridge, method: str, target: str, authorization: bytes) -> int:
    """Headers as bytes: aiohttp's client would refuse to send some of them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", bridge.server.port)
    try:
        writer.write(
            f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n".encode()
        )
        writer.write(b"Authorization: " + authorization + b"\r\n\r\n")
        line = await reader.readline()
        return int(line.split()[1])
    finally:
        writer.close()


@fuzzed(1)
@given(
    script=scripts(valid.STREAM) | st.lists(texts | st.binary(max_size=40), max_size=6),
    size=st.integers(0, 300_000),
)
@example(script=["[" * 60_000], size=0)
@example(script=['{"event": "connected"}'], size=70_000)
def test_stream_route(bridge: Bridge, said: list[Any], script: list[Raw], size: int) -> None:
    """A signed upgrade, then anything in any order: the bridge closes, and keeps nothing of it."""
    fed("stream route", len(script))
    bridge.run(talk(bridge, script, size))
    assert bridge.shared.sessions == {}
    assert_no_fault(said)


async def talk(bridge: Bridge, script: list[Raw], size: int) -> None:
    signed = signature.sign_stream(TOKEN, ORIGIN + names.STREAM_PATH)
    async with bridge.http.ws_connect(names.STREAM_PATH, headers={signature.HEADER: signed}) as socket:
        try:
            for raw in script:
                if isinstance(raw, bytes):
                    await socket.send_bytes(raw)
                else:
                    await socket.send_str(raw.encode("utf-8", "replace").decode())
            if size > 65_536:
                await socket.send_str("x" * size)
        except ConnectionError:
            return
