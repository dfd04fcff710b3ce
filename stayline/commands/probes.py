"""What `stayline doctor` asks the outside: Temporal, the carrier, the bridge's public address, the database and
the providers. Each probe says what it found; none raises for something that is merely wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final, Literal

import aiohttp
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from stayline import names
from stayline.catalog import Role
from stayline.encryption import Encryption
from stayline.errors import StaylineError
from stayline.models import AgentSpec
from stayline.settings import Settings, TwilioCredentials

PATIENCE: Final = 15.0
"""Seconds for one probe."""
TWILIO: Final = "https://api.twilio.com"
SHORT_RETENTION: Final = timedelta(days=7)
NO_CALL: Final = "CA" + "0" * 32
"""A call SID that no call has."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report."""

    area: str
    status: Literal["ok", "warn", "fail"]
    message: str
    fix: str = ""


def ok(area: str, message: str) -> Finding:
    return Finding(area, "ok", message)


def warn(area: str, message: str, fix: str = "") -> Finding:
    return Finding(area, "warn", message, fix)


def fail(area: str, message: str, fix: str = "") -> Finding:
    return Finding(area, "fail", message, fix)


# --- Temporal --------------------------------------------------------------------------------------------


async def probe_temporal(settings: Settings) -> AsyncIterator[Finding]:
    from stayline.temporal import connect

    try:
        async with asyncio.timeout(PATIENCE):
            client = await connect(settings)
            address = client.service_client.config.target_host
            yield ok("temporal", f"answers at {address}, namespace {client.namespace!r}")
            yield _encryption(client, address)
            yield await _retention(client)
            yield await _search_attributes(client)
            yield await _workers(client)
    except StaylineError as error:
        yield fail("temporal", error.message, error.fix)
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            fix = "Set TEMPORAL_NAMESPACE, or create it with `temporal operator namespace create`."
            yield fail("temporal", f"there is no namespace {client.namespace!r}", fix)
        else:
            yield fail("temporal", f"refused a request: {error.status.name}", "Check TEMPORAL_API_KEY and TLS.")
    except TimeoutError:
        yield fail("temporal", f"gave no answer within {PATIENCE:g} s", "Check TEMPORAL_ADDRESS.")


def _encryption(client: Client, address: str) -> Finding:
    from stayline.temporal import is_local

    codec = client.data_converter.payload_codec
    if isinstance(codec, Encryption) and codec.first is not None:
        also = f"; {', '.join(codec.names[1:])} can still be read" if codec.names[1:] else ""
        return ok("temporal", f"payloads are encrypted with the key {codec.first!r}{also}")
    if is_local(address):
        return ok("temporal", "payloads are not encrypted; they stay on this machine")
    message = "payloads are not encrypted: whoever may read the namespace reads what was said"
    return warn("temporal", message, "Set STAYLINE_ENCRYPTION_KEYS, for all processes.")


async def _retention(client: Client) -> Finding:
    namespace = await client.workflow_service.describe_namespace(
        DescribeNamespaceRequest(namespace=client.namespace)
    )
    kept = namespace.config.workflow_execution_retention_ttl.ToTimedelta()
    message = f"keeps finished calls for {kept.days} days" if kept.days != 1 else "keeps finished calls for a day"
    if kept < SHORT_RETENTION:
        change = f"`temporal operator namespace update --retention 30d -n {client.namespace}`"
        return warn("temporal", message, f"To find them in its UI for longer: {change}.")
    return ok("temporal", message)


async def _search_attributes(client: Client) -> Finding:
    try:
        await client.count_workflows(" AND ".join(f"{name} = ''" for name in names.SEARCH_ATTRIBUTES))
    except RPCError as error:
        if error.status != RPCStatusCode.INVALID_ARGUMENT:
            raise
        fix = "`stayline worker` registers them when it starts, if it may."
        return fail("temporal", f"does not know all of {', '.join(names.SEARCH_ATTRIBUTES)}", fix)
    return ok("temporal", "knows the search attributes")


async def _workers(client: Client) -> Finding:
    answer = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=names.TASK_QUEUE),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
    )
    if not answer.pollers:
        return warn("temporal", f"no worker polls the queue {names.TASK_QUEUE!r}", "Start `stayline worker`.")
    return ok("temporal", f"{len(answer.pollers)} worker(s) poll the queue {names.TASK_QUEUE!r}")


# --- the carrier and the way to the bridge ---------------------------------------------------------------


async def probe_twilio(settings: Settings, twilio: TwilioCredentials) -> AsyncIterator[Finding]:
    if not twilio.account_sid or not twilio.auth_token.get_secret_value():
        yield warn(
            "carrier", "not asked: there are no credentials", "Set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN."
        )
        return
    base = f"{(twilio.base_url or TWILIO).rstrip('/')}/2010-04-01/Accounts/{twilio.account_sid}"
    login = aiohttp.encode_basic_auth(twilio.account_sid, twilio.auth_token.get_secret_value())
    async with _http({"Authorization": login}) as http:
        try:
            status, account = await _get(http, f"{base}.json")
        except (aiohttp.ClientError, TimeoutError) as error:
            yield fail("carrier", f"Twilio cannot be reached ({type(error).__name__})", "Check the network.")
            return
        if status in (401, 403, 404):
            yield fail(
                "carrier", f"Twilio refuses the credentials ({status})", "Check TWILIO_ACCOUNT_SID and token."
            )
            return
        if status != 200:
            yield warn("carrier", f"Twilio answers {status}", "Try again later.")
            return
        state = account.get("status", "active")
        if state != "active":
            yield fail("carrier", f"the Twilio account is {state}", "See Twilio's console.")
        else:
            yield ok("carrier", "Twilio accepts the credentials")
        if twilio.phone_number:
            yield await _phone_number(http, base, settings, twilio.phone_number)


async def _phone_number(http: aiohttp.ClientSession, base: str, settings: Settings, number: str) -> Finding:
    wanted = settings.public + names.INBOUND_PATH
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        status, page = await _get(http, f"{base}/IncomingPhoneNumbers.json", {"PhoneNumber": number})
        found = page.get("incoming_phone_numbers", []) if status == 200 else None
        if found == []:
            return fail("carrier", "TWILIO_PHONE_NUMBER is not of this account", "Check the number.")
        if found and found[0].get("voice_url") != wanted:
            return warn(
                "carrier",
                "calls to TWILIO_PHONE_NUMBER go elsewhere",
                f"In Twilio's console, let a call come in at {wanted} (POST).",
            )
        if found:
            return ok("carrier", "calls to TWILIO_PHONE_NUMBER go to this bridge")
    return warn("carrier", "where calls to TWILIO_PHONE_NUMBER go could not be asked")


async def probe_bridge(settings: Settings, twilio: TwilioCredentials) -> AsyncIterator[Finding]:
    """Whether the address that the carrier is given leads to a bridge that knows it by that address."""
    public = settings.public
    missing = fail if settings.public_url else warn
    async with _http({}) as http:
        try:
            status, health = await _get(http, f"{public}/health")
        except (aiohttp.ClientError, TimeoutError) as error:
            fix = "Start `stayline serve`, and see that STAYLINE_PUBLIC_URL leads to it."
            yield missing("bridge", f"nothing answers at {public}/health ({type(error).__name__})", fix)
            return
        if status != 200 or "bridge" not in health:
            yield fail(
                "bridge", f"{public}/health is not a bridge's (status {status})", "Check STAYLINE_PUBLIC_URL."
            )
            return
        yield ok("bridge", f"{public} leads to bridge {health['bridge']}")
        yield await _room(http, public)
        token = twilio.auth_token.get_secret_value()
        if settings.carrier == "twilio" and settings.validate_signatures and token:
            yield await _signatures(http, public + names.STATUS_PATH, token)


async def _room(http: aiohttp.ClientSession, public: str) -> Finding:
    """Whether the bridge that answers takes new calls just now."""
    try:
        status, state = await _get(http, f"{public}/ready")
    except (aiohttp.ClientError, TimeoutError) as error:
        return warn("bridge", f"nothing answers at {public}/ready ({type(error).__name__})")
    load = f"{state.get('calls')} of {state.get('max_calls')} calls, event loop {state.get('loop_lag_ms')} ms late"
    if status == 200:
        return ok("bridge", f"takes calls ({load})")
    fix = {
        "full": "Start another bridge, or raise STAYLINE_MAX_CALLS.",
        "overloaded": "Start another bridge, or lower STAYLINE_MAX_CALLS to what this one carries.",
        "no lease": "Does a worker run?",
    }
    why = str(state.get("why", status))
    return warn("bridge", f"takes no new calls: {why} ({load})", fix.get(why, ""))


async def _signatures(http: aiohttp.ClientSession, url: str, token: str) -> Finding:
    """Ask as Twilio would, without and with a signature. The form is of no call and has no effect."""
    from media_bridge.carriers.signature import HEADER, sign_webhook

    form = {"CallSid": NO_CALL, "CallStatus": "doctor"}
    try:
        async with http.post(url, data=form) as answer:
            unsigned = answer.status
        async with http.post(url, data=form, headers={HEADER: sign_webhook(token, url, form)}) as answer:
            signed = answer.status
    except (aiohttp.ClientError, TimeoutError) as error:
        return fail("bridge", f"a webhook got no answer ({type(error).__name__})", "See the bridge's log.")
    if unsigned != 403:
        return fail(
            "bridge",
            f"took a webhook that nobody signed ({unsigned})",
            "Set STAYLINE_VALIDATE_SIGNATURES=true for the bridge too.",
        )
    if signed == 403:
        fix = "It must run with the same TWILIO_AUTH_TOKEN and STAYLINE_PUBLIC_URL as given here."
        return fail("bridge", "refuses a webhook that is signed properly", fix)
    return ok("bridge", "validates Twilio's signatures")


@contextlib.asynccontextmanager
async def _http(headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        yield session


async def _get(
    http: aiohttp.ClientSession, url: str, query: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    async with http.get(url, params=query) as answer:
        try:
            body = await answer.json(content_type=None)
        except ValueError:
            body = {}
        return answer.status, body if isinstance(body, dict) else {}


# --- what is kept ----------------------------------------------------------------------------------------


async def probe_data(settings: Settings) -> AsyncIterator[Finding]:
    yield await asyncio.to_thread(_data_dir, settings)
    yield await _database(settings)


def _data_dir(settings: Settings) -> Finding:
    """Looks only: a doctor that makes folders is no doctor."""
    existing = settings.data_dir.resolve()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return fail("data", f"{settings.data_dir} cannot be written", "Set STAYLINE_DATA_DIR, or change its owner.")
    return ok("data", f"{settings.data_dir.resolve()} can be written")


async def _database(settings: Settings) -> Finding:
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from activities.records_db.engine import (
        create_engine,
        database_url,
        describe,
        readable_errors,
        sqlite_path,
    )
    from activities.records_db.migrate import alembic_config

    later = "A worker makes or upgrades the tables when it starts."
    try:
        url = database_url(settings.database)
        path = sqlite_path(url)
        if path is not None and not path.exists():
            return warn("database", f"{describe(url)} does not exist yet", later)
        engine = create_engine(url)
        try:
            with readable_errors(url):
                async with asyncio.timeout(PATIENCE), engine.connect() as connection:
                    heads = await connection.run_sync(lambda c: MigrationContext.configure(c).get_current_heads())
        finally:
            await engine.dispose()
    except StaylineError as error:
        return fail("database", error.message, error.fix)
    wanted = ScriptDirectory.from_config(alembic_config()).get_heads()
    if not heads:
        return warn("database", f"{describe(url)} has no tables yet", later)
    if set(heads) != set(wanted):
        return warn("database", f"{describe(url)} has tables of another version ({', '.join(heads)})", later)
    return ok("database", f"{describe(url)} is up to date")


# --- providers -------------------------------------------------------------------------------------------


async def probe_provider(role: Role, ref: str, spec: AgentSpec) -> Finding:
    """Use a provider as a call would, up to the point where it costs something: load the engine or SDK, and open
    a connection with the key."""
    from media_bridge.providers.base import RealtimeRequest, RealtimeSession, SttStream, TtsSession
    from media_bridge.providers.loading import load_provider

    what = f"{role} {ref}"
    try:
        adapter = load_provider(role, ref, spec)
        try:
            async with asyncio.timeout(PATIENCE * 2):  # an engine that is loaded for the first time is slow
                await adapter.warm()
                connect = getattr(adapter, "connect", None)
                if connect is not None:
                    request = RealtimeRequest("", (), (), call_id="doctor")
                    asked = connect(request) if role == "realtime" else connect(call_id=request.call_id)
                    session: SttStream | TtsSession | RealtimeSession = await asked
                    await session.aclose()
        finally:
            await adapter.aclose()
    except StaylineError as error:
        return fail("provider", f"{what}: {error.message}", error.fix)
    except TimeoutError:
        return fail("provider", f"{what}: gave no answer within {PATIENCE * 2:g} s")
    return ok("provider", f"{what} works")
