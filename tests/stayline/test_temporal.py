"""Connecting to Temporal: where the address comes from, what is said when it fails, and the namespace."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    DeleteNamespaceRequest,
    ListSearchAttributesRequest,
)
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from stayline import temporal
from stayline.dev_server import DevServer
from stayline.errors import ConfigError, StaylineError
from stayline.models import CallInfo
from stayline.names import SA_CALLER, SEARCH_ATTRIBUTES
from stayline.settings import Settings
from stayline.temporal import connect, prepare_namespace, ui_url


@contextmanager
def _port_where_nobody_listens() -> Iterator[int]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


async def test_a_server_that_ends_under_the_first_request_is_away() -> None:
    """A process that starts while Temporal restarts must wait, not take the broken connection for a refusal."""

    async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.transport.abort()

    async with await asyncio.start_server(ends, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        with pytest.raises(StaylineError, match="does not answer") as told:
            await connect(Settings(), address=f"{host}:{port}")
    assert told.value.retryable


@pytest.fixture
def address(temporal_server: DevServer) -> str:
    return temporal_server.address


async def test_the_address_comes_from_temporals_environment(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", address)
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "elsewhere")
    client = await connect(Settings())
    assert (client.service_client.config.target_host, client.namespace) == (address, "elsewhere")

    profile = tmp_path / "temporal.toml"
    profile.write_text(f'[profile.mine]\naddress = "{address}"\nnamespace = "filed"\n')
    monkeypatch.delenv("TEMPORAL_ADDRESS")
    monkeypatch.delenv("TEMPORAL_NAMESPACE")
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(profile))
    monkeypatch.setenv("TEMPORAL_PROFILE", "mine")
    assert (await connect(Settings())).namespace == "filed"

    # A dev server of our own is not looked for in the environment.
    monkeypatch.setenv("TEMPORAL_PROFILE", "not there")
    assert (await connect(Settings(), address=address)).namespace == "default"
    with pytest.raises(ConfigError, match="not there"):
        await connect(Settings())


async def test_values_of_the_vocabulary_pass_through(address: str) -> None:
    client = await connect(Settings(), address=address)
    info = CallInfo(call_id="CA1", from_number="+1", to_number="+2", started_at=datetime.now(UTC))
    payloads = await client.data_converter.encode([info])
    assert await client.data_converter.decode(payloads, [CallInfo]) == [info]


async def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with _port_where_nobody_listens() as port:
        monkeypatch.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{port}")
        with pytest.raises(StaylineError) as caught:
            await connect(Settings(), patience=0.01)
    assert str(caught.value) == (
        f"Temporal does not answer at 127.0.0.1:{port}. Start it with `stayline dev`, or set TEMPORAL_ADDRESS."
    )
    assert caught.value.retryable


async def test_lazily_connected_a_client_fails_only_when_used() -> None:
    with _port_where_nobody_listens() as port:
        client = await connect(Settings(), lazy=True, address=f"127.0.0.1:{port}")
        with pytest.raises((RuntimeError, RPCError)):
            await client.count_workflows()


@pytest.mark.parametrize("wrong", ["", ":", "not an address", "127.0.0.1"])
async def test_a_wrong_address_is_explained(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setattr(temporal, "DEFAULT_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("TEMPORAL_ADDRESS", wrong)
    with pytest.raises(StaylineError, match="TEMPORAL_ADDRESS"):
        await connect(Settings())


async def _namespace(client: Client, address: str) -> Client:
    name = f"test-{uuid4().hex[:8]}"
    request = RegisterNamespaceRequest(namespace=name)
    request.workflow_execution_retention_period.FromSeconds(24 * 3600)
    await client.workflow_service.register_namespace(request)
    return await Client.connect(address, namespace=name)


async def _drop(client: Client) -> None:
    await client.operator_service.delete_namespace(DeleteNamespaceRequest(namespace=client.namespace))


async def test_a_bare_namespace_is_prepared_once_and_again(client: Client, address: str) -> None:
    bare = await _namespace(client, address)
    await prepare_namespace(bare, retention_days=30)
    await prepare_namespace(bare, retention_days=30)
    known = await bare.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=bare.namespace)
    )
    assert set(SEARCH_ATTRIBUTES) <= set(known.custom_attributes)
    described = await bare.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=bare.namespace))
    assert described.config.workflow_execution_retention_ttl.ToTimedelta().days == 30
    await _drop(bare)


async def test_an_attribute_of_another_type_is_refused(client: Client, address: str) -> None:
    bare = await _namespace(client, address)
    await bare.operator_service.add_search_attributes(
        AddSearchAttributesRequest(
            namespace=bare.namespace, search_attributes={SA_CALLER: IndexedValueType.INDEXED_VALUE_TYPE_INT}
        )
    )
    with pytest.raises(ConfigError, match="CallCaller"):
        await prepare_namespace(bare)
    await _drop(bare)


async def test_a_namespace_that_does_not_exist(address: str) -> None:
    client = await Client.connect(address, namespace="nowhere")
    with pytest.raises(ConfigError, match=r"no namespace 'nowhere'.*TEMPORAL_NAMESPACE"):
        await prepare_namespace(client)


async def test_where_we_may_not_register_the_fix_is_named(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Temporal Cloud, whose operator service answers PERMISSION_DENIED to everybody."""

    async def denied(*_: object, **__: object) -> None:
        raise RPCError("no", RPCStatusCode.PERMISSION_DENIED, b"")

    async def unknown(*_: object, **__: object) -> None:
        raise RPCError("invalid search attribute", RPCStatusCode.INVALID_ARGUMENT, b"")

    monkeypatch.setattr(client, "count_workflows", unknown)
    monkeypatch.setattr(client.operator_service, "list_search_attributes", denied)
    with pytest.raises(ConfigError, match=r"CallAgent \(Keyword\)"):
        await prepare_namespace(client)


@pytest.mark.parametrize(
    ("address", "link"),
    [
        ("127.0.0.1:7233", "http://127.0.0.1:8233/namespaces/default/workflows/call-CA1"),
        ("localhost:17233", "http://localhost:18233/namespaces/default/workflows/call-CA1"),
        ("prod.abcde.tmprl.cloud:7233", "https://cloud.temporal.io/namespaces/default/workflows/call-CA1"),
        ("temporal.example.org:7233", ""),
    ],
)
async def test_links_to_the_ui(address: str, link: str) -> None:
    client = await connect(Settings(), lazy=True, address=address)
    assert ui_url(client, "call-CA1") == link
    assert ui_url(client, "call-CA1", "run") == (f"{link}/run/history" if link else "")
