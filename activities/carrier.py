"""The call at the carrier, through Twilio's REST interface: activities `place_call`, `hang_up`, `redirect_call` and
`extend_call`.

All are safe to repeat, though Twilio's own way to place a call is not (see `place_call`). Requests are made in
threads, with the SDK's synchronous client: its asynchronous one ignores its timeout (measured with twilio 9.13).
Those that change a live call heartbeat: somebody waits on a dead line, so a dead worker must be missed soon.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from datetime import timedelta
from functools import cached_property
from typing import Any, Final, Literal, TypeVar
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape, quoteattr

import requests
from temporalio import activity
from temporalio.exceptions import ApplicationError
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response
from twilio.rest import Client

from stayline.messages import ExtendCall, HangUp, PlaceCall, Placed, Redirect
from stayline.names import CALL_PARAMETER, INBOUND_PATH, NEXT_PATH, STATUS_PATH, webhook_url
from stayline.settings import TwilioCredentials

T = TypeVar("T")

REQUEST_TIMEOUT: Final = 8.0
HEALTH_TIMEOUT: Final = 3.0
BEAT_EVERY: Final = 1.0
"""Seconds; `CARRIER_WORKER_SILENT_FOR` allows for some that are late. Most requests take less."""
CLOCKS_DIFFER: Final = timedelta(seconds=2)
"""The carrier writes down whole seconds, by its own clock."""
LOOK_AT: Final = 20
"""Calls to the number, the latest, among which a call that may have been placed is looked for."""
STATUS_EVENTS: Final = ["initiated", "ringing", "answered", "completed"]
OVER: Final = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
ALREADY_OVER: Final = frozenset({20404, 21220})
"""Twilio: no such resource; call is not in progress (twilio.com/docs/api/errors)."""


class _HttpClient(TwilioHttpClient):  # type: ignore[misc]
    """Twilio's client, but a 429 says when to come back: its exceptions do not carry the headers."""

    def request(self, *args: Any, **kwargs: Any) -> Response:
        response = super().request(*args, **kwargs)
        if response.status_code == 429:
            raise ApplicationError(
                "the carrier asks to slow down",
                type="CarrierBusy",
                next_retry_delay=_retry_after(response.headers or {}),
            )
        return response


class CarrierActivities:
    """Calls at the carrier. `TWILIO_BASE_URL` may point at another server that speaks the same REST.

    Args:
        threads: for requests; default: the event loop's own, which are few.
    """

    def __init__(self, credentials: TwilioCredentials, threads: Executor | None = None) -> None:
        self._credentials = credentials
        self._threads = threads

    def warm(self) -> None:
        """Have the SDK import what a request needs: about a second that a lost call would wait for."""
        _ = self._client.calls

    @activity.defn
    def place_call(self, ask: PlaceCall) -> Placed:
        """Have the carrier dial.

        Twilio takes no idempotency key, and an attempt whose answer was lost may have dialled. So every attempt
        but the first looks at the latest calls to the number: by the addresses that the carrier asked about them,
        one is found to be this call, or another; one that the carrier has asked nothing about yet may be this call,
        and then nothing is dialled: its webhooks will say.

        Raises:
            ApplicationError: see `_refusals`; besides `NoBridge`, retryable: nobody is to be called into
                silence, or by a bridge that has no room.
        """
        with _refusals():
            if activity.info().attempt > 1 and (placed := self._find_placed(ask)) is not None:
                return placed
            _check_bridge(ask.public_url, "ready")
            status_url = webhook_url(ask.public_url, STATUS_PATH, ask.call_id)
            options: dict[str, Any] = {}
            if ask.dial.machine_detection:  # beside the call: otherwise it is silent until the carrier is certain
                options |= {
                    "machine_detection": "Enable",
                    "async_amd": "true",
                    "async_amd_status_callback": status_url,
                    "async_amd_status_callback_method": "POST",
                }
            if ask.dial.record:
                options |= {"record": True, "recording_channels": "dual"}
            call = self._client.calls.create(
                to=ask.to_number,
                from_=ask.from_number,
                url=webhook_url(ask.public_url, INBOUND_PATH, ask.call_id),
                method="POST",
                status_callback=status_url,
                status_callback_event=STATUS_EVENTS,
                status_callback_method="POST",
                timeout=ask.dial.ring_timeout,
                time_limit=ask.time_limit,
                **options,
            )
        return Placed(carrier_call_id=str(call.sid))

    def _find_placed(self, ask: PlaceCall) -> Placed | None:
        """The call that an earlier attempt has placed; without an id if there may be one. None: there is none."""
        earliest = ask.since - CLOCKS_DIFFER
        unknown = False
        for call in self._client.calls.list(to=ask.to_number, from_=ask.from_number, limit=LOOK_AT):
            if call.date_created is None or call.date_created < earliest:
                continue
            asked = [str((event.request or {}).get("url", "")) for event in call.events.list(limit=LOOK_AT)]
            if any(_named_in(url) == ask.call_id for url in asked):
                return Placed(carrier_call_id=str(call.sid))
            unknown = unknown or not asked
        return Placed() if unknown else None

    @activity.defn
    async def hang_up(self, ask: HangUp) -> bool:
        """End the call. False: it was over already."""
        return await self._request(lambda: self._hang_up(ask))

    def _hang_up(self, ask: HangUp) -> bool:
        call_id = ask.carrier_call_id or ask.call_id
        with _refusals():
            if ask.unanswered:
                # Ends it as what it is, one that was not answered; unless it was answered just now.
                call = self._change(call_id, status="canceled")
                if call is None or call.status in OVER:
                    return call is not None
            return self._change(call_id, status="completed") is not None

    @activity.defn
    async def redirect_call(self, ask: Redirect) -> bool:
        """Have the carrier ask a living bridge for the next step, or say something and hang up. False: the call was
        over already.

        Raises:
            ApplicationError: `NoBridge`, retryable, when none answers. A redirect to a dead address would make
                the carrier hang up, so the bridge is asked first.
        """
        return await self._request(lambda: self._redirect_call(ask))

    def _redirect_call(self, ask: Redirect) -> bool:
        if ask.say:
            words = "".join(letter if letter.isprintable() else " " for letter in ask.say)  # what XML can hold
            verbs = f"<Say>{escape(words)}</Say><Hangup/>"
        else:
            _check_bridge(ask.public_url, "health")  # however full: a call that comes back is taken up
            url = webhook_url(ask.public_url, NEXT_PATH, ask.call_id)
            verbs = f"<Redirect method={quoteattr('POST')}>{escape(url)}</Redirect>"
        with _refusals():
            call = self._change(ask.carrier_call_id or ask.call_id, twiml=f"<Response>{verbs}</Response>")
        return call is not None

    @activity.defn
    async def extend_call(self, ask: ExtendCall) -> bool:
        """Move the carrier's own time limit. False: the call was over already."""
        return await self._request(lambda: self._extend_call(ask))

    def _extend_call(self, ask: ExtendCall) -> bool:
        with _refusals():
            return self._change(ask.carrier_call_id, time_limit=ask.time_limit) is not None

    async def _request(self, make: Callable[[], T]) -> T:
        """Make requests in a thread; while they take, say that this worker lives."""
        made = asyncio.get_running_loop().run_in_executor(self._threads, make)
        made.add_done_callback(lambda done: done.cancelled() or done.exception())  # or nobody asks
        while not (await asyncio.wait({made}, timeout=BEAT_EVERY))[0]:
            activity.heartbeat()
        return made.result()

    @cached_property
    def _client(self) -> Client:
        account, token = self._credentials.account_sid, self._credentials.auth_token.get_secret_value()
        if not account or not token:
            raise ApplicationError(
                "TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN are not set for this worker",
                type="CarrierNotConfigured",
                non_retryable=True,
            )
        client = Client(account, token, http_client=_HttpClient(timeout=REQUEST_TIMEOUT))
        if self._credentials.base_url:
            client.api.base_url = self._credentials.base_url.rstrip("/")
        return client

    def _change(self, carrier_call_id: str, **change: Any) -> Any:
        """Change a live call; answers what it is now. None: it is over."""
        try:
            return self._client.calls(carrier_call_id).update(**change)
        except TwilioRestException as error:
            if error.code in ALREADY_OVER or error.status == 404:
                return None
            raise


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What goes wrong at the carrier, in the words of a workflow.

    Raises:
        ApplicationError: `CarrierRefused` (final), `CarrierBusy` or `CarrierUnreachable` (to be retried).
    """
    try:
        yield
    except TwilioRestException as error:
        refused = 400 <= error.status < 500
        raise ApplicationError(
            f"the carrier answered {error.status}: {error.msg}",
            type="CarrierRefused" if refused else "CarrierUnreachable",
            non_retryable=refused,
        ) from None
    except (requests.RequestException, json.JSONDecodeError) as error:
        kind = type(error).__name__
        raise ApplicationError(f"the carrier cannot be reached ({kind})", type="CarrierUnreachable") from None


def _named_in(url: str) -> str:
    """The call that a webhook's address names."""
    return parse_qs(urlsplit(url).query).get(CALL_PARAMETER, [""])[0]


def _check_bridge(public_url: str, asked: Literal["health", "ready"]) -> None:
    try:
        with urllib.request.urlopen(f"{public_url.rstrip('/')}/{asked}", timeout=HEALTH_TIMEOUT) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        raise ApplicationError(f"no bridge takes calls ({error.code})", type="NoBridge") from None
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise ApplicationError(f"no bridge answers ({type(error).__name__})", type="NoBridge") from None


def _retry_after(headers: Any) -> timedelta | None:
    """Seconds that the carrier asked to wait; a date, or nothing, leaves it to the retry policy."""
    value = str(headers.get("Retry-After", "")).strip()
    return timedelta(seconds=min(int(value), 60)) if value.isascii() and value.isdecimal() else None
