"""Activities `hang_up` and `redirect_call`: the live call at the carrier, through Twilio's REST interface.

Both are safe to repeat. They run in threads, with the SDK's synchronous client: its asynchronous one ignores its
timeout (measured with twilio 9.13).
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from datetime import timedelta
from functools import cached_property
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

import requests
from temporalio import activity
from temporalio.exceptions import ApplicationError
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response
from twilio.rest import Client

from stayline.messages import HangUp, Redirect
from stayline.names import NEXT_PATH
from stayline.settings import TwilioCredentials

REQUEST_TIMEOUT: Final = 8.0
HEALTH_TIMEOUT: Final = 3.0
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
    """Calls at the carrier. `TWILIO_BASE_URL` may point at another server that speaks the same REST."""

    def __init__(self, credentials: TwilioCredentials) -> None:
        self._credentials = credentials

    def warm(self) -> None:
        """Have the SDK import what a request needs: about a second that a lost call would wait for."""
        _ = self._client.calls

    @activity.defn
    def hang_up(self, ask: HangUp) -> bool:
        """End the call. False: it was over already."""
        return self._update(ask.call_id, status="completed")

    @activity.defn
    def redirect_call(self, ask: Redirect) -> bool:
        """Have the carrier ask a living bridge for the next step. False: the call was over already.

        Raises:
            ApplicationError: `NoBridge`, retryable, when none answers. A redirect to a dead address would make
                the carrier hang up, so the bridge is asked first.
        """
        _check_bridge(ask.public_url)
        url = ask.public_url.rstrip("/") + NEXT_PATH
        twiml = f"<Response><Redirect method={quoteattr('POST')}>{escape(url)}</Redirect></Response>"
        return self._update(ask.call_id, twiml=twiml)

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

    def _update(self, call_id: str, **change: str) -> bool:
        """Change a live call. False: it is over.

        Raises:
            ApplicationError: `CarrierRefused` (final), `CarrierBusy` or `CarrierUnreachable` (to be retried).
        """
        try:
            self._client.calls(call_id).update(**change)
        except TwilioRestException as error:
            if error.code in ALREADY_OVER or error.status == 404:
                return False
            refused = 400 <= error.status < 500
            raise ApplicationError(
                f"the carrier answered {error.status}: {error.msg}",
                type="CarrierRefused" if refused else "CarrierUnreachable",
                non_retryable=refused,
            ) from None
        except (requests.RequestException, json.JSONDecodeError) as error:
            kind = type(error).__name__
            raise ApplicationError(f"the carrier cannot be reached ({kind})", type="CarrierUnreachable") from None
        return True


def _check_bridge(public_url: str) -> None:
    try:
        with urllib.request.urlopen(f"{public_url.rstrip('/')}/health", timeout=HEALTH_TIMEOUT) as answer:
            answer.read()
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise ApplicationError(f"no bridge answers ({type(error).__name__})", type="NoBridge") from None


def _retry_after(headers: Any) -> timedelta | None:
    """Seconds that the carrier asked to wait; a date, or nothing, leaves it to the retry policy."""
    value = str(headers.get("Retry-After", "")).strip()
    return timedelta(seconds=min(int(value), 60)) if value.isdigit() else None
