"""The connection to Temporal: where it is, how it is dialled, and what its namespace must know of us.

Address, namespace, API key, TLS and profiles are read by Temporal's own environment configuration
(`TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, `TEMPORAL_API_KEY`, `TEMPORAL_TLS…`, `TEMPORAL_PROFILE`, its TOML file).

Requests are retried by the SDK while Temporal is away: 0.1 s, growing by half, for 10 s in all (its default,
`RetryConfig`). After that the caller gets an `RPCError` with status UNAVAILABLE; whoever can wait longer (records
of a call, admissions) keeps the request and tries again. A connection heals by itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta
from typing import NoReturn
from urllib.parse import quote

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, UpdateNamespaceRequest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.plugin import SimplePlugin
from temporalio.runtime import (
    LoggingConfig,
    LoggingFormat,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)
from temporalio.service import GrpcCompression, RPCError, RPCStatusCode

from stayline.encryption import Encryption
from stayline.errors import ConfigError, StaylineError
from stayline.names import SA_STATUS, SEARCH_ATTRIBUTES
from stayline.settings import Settings
from stayline.telemetry import setup, spans, temporal_tracing

DEFAULT_ADDRESS = "127.0.0.1:7233"
DEFAULT_NAMESPACE = "default"
CLOUD_UI = "https://cloud.temporal.io"

data_converter = pydantic_data_converter
"""How payloads become bytes; the same for clients, workers and replayers. Encrypts nothing: see `converter_for`."""

_CONNECT_TIMEOUT = timedelta(seconds=10)  # one TCP attempt; a dropped packet would otherwise wait for minutes
_SEARCH_ATTRIBUTE_PATIENCE = 30.0  # seconds until a server that caches its namespaces knows a new attribute
_KEYWORD = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
# What the SDK says when nothing answers, or a server that ends breaks the connection under the first request.
_AWAY = ("ConnectError", "Unavailable", "Timeout", "BrokenPipe", "ConnectionReset", "connection closed")
_runtime: Runtime | None = None


def converter_for(settings: Settings) -> DataConverter:
    """The same, and as `encryption_keys` says: what every client of ours uses.

    With encryption on, a failure's message and stack trace are payloads too: they may hold a caller's words.

    Raises:
        ConfigError: the keys make no sense.
    """
    encryption = Encryption.of(settings.encryption_keys)
    converter = dataclasses.replace(data_converter, payload_codec=encryption)
    if encryption.first is None:
        return converter
    return dataclasses.replace(converter, failure_converter_class=DefaultFailureConverterWithEncodedAttributes)


def plugins() -> list[SimplePlugin]:
    """Plugins of every client, and so of its workers; give them to a `Replayer` too.

    `telemetry.configure` goes first: where spans go nowhere, none are made for Temporal's requests.

    Raises:
        ConfigError: this process already has a tracer provider of another kind.
    """
    setup.ensure_provider()
    return [temporal_tracing.plugin(exported=spans.exported)]


def runtime(settings: Settings) -> Runtime:
    """The SDK's runtime of this process, made by the first caller: a thread pool, and its metrics if they are on.

    Raises:
        ConfigError: `temporal_metrics_addr` cannot be listened on.
    """
    global _runtime
    if _runtime is None:
        addr = settings.temporal_metrics_addr
        exposed = PrometheusConfig(
            bind_address=addr, durations_as_seconds=True, counters_total_suffix=True, unit_suffix=True
        )
        try:
            _runtime = Runtime(
                telemetry=TelemetryConfig(logging=_core_logging(settings), metrics=exposed if addr else None),
            )
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"Temporal's metrics cannot be served on {addr}: {error}.",
                fix="Change STAYLINE_TEMPORAL_METRICS_ADDR.",
            ) from error
    return _runtime


async def connect(
    settings: Settings, *, lazy: bool = False, address: str | None = None, patience: float = 0.0
) -> Client:
    """Connect to Temporal.

    Args:
        lazy: dial at the first request, so that a bridge starts while Temporal is away. Workers cannot use such
            a client (a limit of the SDK).
        address: host:port of a dev server of our own; then the environment is not read.
        patience: seconds to keep trying while nothing answers, e.g. when all parts start at once.
    Raises:
        ConfigError: the configuration or an encryption key is wrong, or Temporal refuses the credentials.
        StaylineError: Temporal does not answer; retryable.
    """
    where, converter = _where(address), converter_for(settings)
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        try:
            return await Client.connect(
                **where,
                lazy=lazy,
                data_converter=converter,
                plugins=plugins(),
                runtime=runtime(settings),
                connect_timeout=_CONNECT_TIMEOUT,
                # Measured on loopback: gzip costs more than it saves (update with activity 21.7 against 17.9 ms).
                grpc_compression=GrpcCompression.NONE if is_local(where["target_host"]) else GrpcCompression.GZIP,
            )
        except (RuntimeError, RPCError) as error:
            if not _is_away(error) or asyncio.get_running_loop().time() > deadline:
                _explain(error, where["target_host"])
        except ValueError as error:
            raise ConfigError(
                f"Temporal's configuration is wrong: {error}.", fix="Check TEMPORAL_ADDRESS."
            ) from error
        await asyncio.sleep(0.25)


async def prepare_namespace(client: Client, retention_days: int | None = None) -> None:
    """Make the namespace know our search attributes, and keep closed workflows for `retention_days` if given.

    Safe to repeat, and from several processes at once. Returns when the attributes can be used.

    Raises:
        ConfigError: the namespace does not exist, lacks the attributes and we may not register them, or has one
            of another type.
    """
    if not await _attributes_usable(client):
        await _register_attributes(client)
    if retention_days is not None:
        await _keep_for(client, timedelta(days=retention_days))


def ui_url(client: Client, workflow_id: str, run_id: str = "") -> str:
    """Link to a workflow in Temporal's UI; empty where the UI's address cannot be known.

    A local server has its UI 1000 ports above its own (the dev server's default), Temporal Cloud one for all.
    """
    base = _ui_base(client.service_client.config.target_host)
    if not base:
        return ""
    path = f"/namespaces/{quote(client.namespace, safe='')}/workflows/{quote(workflow_id, safe='')}"
    return f"{base}{path}/{quote(run_id, safe='')}/history" if run_id else f"{base}{path}"


def is_local(address: str) -> bool:
    """Whether a host:port is on this machine."""
    return address.rpartition(":")[0].strip("[]") in ("127.0.0.1", "localhost", "::1")


def _ui_base(address: str) -> str:
    host, _, port = address.rpartition(":")
    if host.endswith((".tmprl.cloud", ".api.temporal.io")):
        return CLOUD_UI
    return f"http://{host}:{int(port) + 1000}" if is_local(address) else ""


def _where(address: str | None) -> ClientConnectConfig:
    if address:
        return {"target_host": address, "namespace": DEFAULT_NAMESPACE}
    try:
        found = ClientConfig.load_client_connect_config()
    except Exception as error:  # the SDK's own type for this is private to its Rust part
        raise ConfigError(
            f"Temporal's configuration is wrong: {error}.", fix="Check the TEMPORAL_… settings."
        ) from error
    found.setdefault("target_host", DEFAULT_ADDRESS)
    found.setdefault("namespace", DEFAULT_NAMESPACE)
    return found


def _core_logging(settings: Settings) -> LoggingConfig:
    """The SDK's Rust part logs to stdout, where commands print results: so errors only, unless debugging.

    Its forwarding into Python's logging is not used: 3 of 12 processes with it crashed or hung while exiting
    (temporalio 1.35.0), none of 25 without.
    """
    return LoggingConfig(
        filter=TelemetryFilter(
            core_level="WARN" if settings.log_level == "debug" else "ERROR", other_level="ERROR"
        ),
        format=LoggingFormat.JSON if settings.log_format == "json" else LoggingFormat.COMPACT,
    )


def _is_away(error: RuntimeError | RPCError) -> bool:
    """Whether nothing answered, as opposed to a refusal."""
    if isinstance(error, RPCError):
        return error.status in (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED)
    return any(word in str(error) for word in _AWAY)


def _explain(error: RuntimeError | RPCError, address: str) -> NoReturn:
    text = str(error)
    if _is_away(error):
        raise StaylineError(
            f"Temporal does not answer at {address}.",
            fix="Start it with `stayline dev`, or set TEMPORAL_ADDRESS.",
            retryable=True,
        ) from error
    if "Unauthenticated" in text or "PermissionDenied" in text or "Jwt" in text:
        raise ConfigError(
            f"Temporal at {address} refuses the credentials.",
            fix="Check TEMPORAL_API_KEY or the TEMPORAL_TLS… settings.",
        ) from error
    raise StaylineError(
        f"Temporal at {address} cannot be used: {text}.", fix="Check TEMPORAL_ADDRESS and TLS."
    ) from error


async def _attributes_usable(client: Client) -> bool:
    """Ask with a query by all of them: needs no operator's rights, so it works on Temporal Cloud."""
    query = " AND ".join(f"{name} = ''" for name in SEARCH_ATTRIBUTES)
    try:
        await client.count_workflows(query)
    except RPCError as error:
        if error.status == RPCStatusCode.INVALID_ARGUMENT:
            return False
        if error.status == RPCStatusCode.NOT_FOUND:
            raise ConfigError(
                f"Temporal has no namespace {client.namespace!r}.",
                fix="Set TEMPORAL_NAMESPACE, or create it with `temporal operator namespace create`.",
            ) from error
        raise
    return True


async def _register_attributes(client: Client) -> None:
    by_hand = (
        "Register them with `temporal operator search-attribute create`, or in Temporal Cloud's UI: "
        + ", ".join(f"{name} (Keyword)" for name in SEARCH_ATTRIBUTES)
    )
    try:
        known = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace), retry=True
        )
        for name in SEARCH_ATTRIBUTES:
            if known.custom_attributes.get(name, _KEYWORD) != _KEYWORD:
                raise ConfigError(
                    f"Search attribute {name} exists in namespace {client.namespace!r}, but is not a Keyword.",
                    fix="Remove it, or use another namespace.",
                )
        missing = {name: _KEYWORD for name in SEARCH_ATTRIBUTES if name not in known.custom_attributes}
        if missing:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing), retry=True
            )
    except RPCError as error:
        if error.status in (
            RPCStatusCode.PERMISSION_DENIED,
            RPCStatusCode.UNIMPLEMENTED,
            RPCStatusCode.UNAUTHENTICATED,
        ):
            raise ConfigError(
                f"Namespace {client.namespace!r} lacks Stayline's search attributes, and we may not register them.",
                fix=by_hand,
            ) from error
        if error.status != RPCStatusCode.ALREADY_EXISTS:  # another process was faster
            raise
    deadline = asyncio.get_running_loop().time() + _SEARCH_ATTRIBUTE_PATIENCE
    while not await _attributes_usable(client):
        if asyncio.get_running_loop().time() > deadline:
            raise ConfigError(f"Temporal does not know the search attribute {SA_STATUS} yet.", fix=by_hand)
        await asyncio.sleep(0.1)


async def _keep_for(client: Client, retention: timedelta) -> None:
    namespace = await client.workflow_service.describe_namespace(
        DescribeNamespaceRequest(namespace=client.namespace)
    )
    if namespace.config.workflow_execution_retention_ttl.ToTimedelta() == retention:
        return
    change = UpdateNamespaceRequest(namespace=client.namespace)
    change.config.workflow_execution_retention_ttl.FromTimedelta(retention)
    await client.workflow_service.update_namespace(change, retry=True)
