"""Encryption of payloads: what is written can be read back, by whoever has the key and nobody else."""

from __future__ import annotations

import base64
import os
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.exceptions import ApplicationError

from stayline import logs
from stayline.checks import check_settings
from stayline.commands import probes
from stayline.dev_server import DevServer
from stayline.encryption import CLEAR, ENCODING, KEY_ID, Encryption
from stayline.errors import ConfigError
from stayline.models import CallInfo
from stayline.settings import Settings, TwilioCredentials, load_settings
from stayline.temporal import converter_for, data_converter

KEY_A, KEY_B, KEY_C = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))
PAYLOAD = Payload(metadata={"encoding": b"json/plain"}, data=b'"my card is 4111"')


def reading(text: str) -> Encryption:
    return Encryption.of(SecretStr(text))


payloads = st.builds(
    lambda metadata, data: Payload(metadata=metadata, data=data),
    st.dictionaries(st.text(max_size=20), st.binary(max_size=50), max_size=3),
    st.binary(max_size=5000),
)


@given(st.lists(payloads, max_size=4))
async def test_whatever_is_encrypted_comes_back_as_it_was(given_payloads: list[Payload]) -> None:
    codec = reading(f"a:{KEY_A}")
    sealed = await codec.encode(given_payloads)
    for before, after in zip(given_payloads, sealed, strict=True):
        assert dict(after.metadata) == {"encoding": ENCODING, KEY_ID: b"a"}
        assert len(before.data) < 8 or before.data not in after.data
    assert await codec.decode(sealed) == given_payloads


async def test_the_same_payload_is_never_encrypted_the_same_way() -> None:
    codec = reading(f"a:{KEY_A}")
    sealed = await codec.encode([PAYLOAD] * 1000)
    assert len({payload.data[:12] for payload in sealed}) == 1000
    assert len({payload.data[12:28] for payload in sealed}) == 1000


async def test_values_and_failures_pass_through_the_converter_and_nothing_stands_in_clear() -> None:
    converter = converter_for(Settings(encryption_keys=SecretStr(f"a:{KEY_A}")))
    call = CallInfo(call_id="CA1", from_number="+15550100001", to_number="+2", started_at="2026-01-01T00:00:00Z")
    (sealed,) = await converter.encode([call])
    assert b"15550100001" not in sealed.SerializeToString()
    assert await converter.decode([sealed], [CallInfo]) == [call]

    failure = Failure()
    try:
        raise ApplicationError("no order for John Doe", "details of John Doe") from ValueError("John Doe?")
    except ApplicationError as error:
        await converter.encode_failure(error, failure)
    assert b"John" not in failure.SerializeToString()
    again = await converter.decode_failure(failure)
    assert isinstance(again, ApplicationError)
    assert (again.message, *again.details) == ("no order for John Doe", "details of John Doe")
    assert "John Doe?" in str(again.__cause__)


async def test_what_was_written_before_the_switch_is_still_read() -> None:
    before, after = data_converter, converter_for(Settings(encryption_keys=SecretStr(f"a:{KEY_A}")))
    failure = Failure()
    await before.encode_failure(ApplicationError("plain words"), failure)
    assert await after.decode(await before.encode(["one", 2])) == ["one", 2]
    assert "plain words" in str(await after.decode_failure(failure))


# --- rotation --------------------------------------------------------------------------------------------


async def test_a_key_is_changed_without_losing_what_the_former_one_wrote() -> None:
    old = reading(f"a:{KEY_A}")
    announced = reading(f"a:{KEY_A},b:{KEY_B}")
    changed = reading(f" b:{KEY_B} , a:{KEY_A} ")
    dropped = reading(f"b:{KEY_B}")
    assert changed.names == ("b", "a")
    (by_old,), (by_new,) = await old.encode([PAYLOAD]), await changed.encode([PAYLOAD])
    assert (by_old.metadata[KEY_ID], by_new.metadata[KEY_ID]) == (b"a", b"b")
    for codec in (announced, changed):
        assert await codec.decode([by_old, PAYLOAD, by_new]) == [PAYLOAD] * 3
    assert await dropped.decode([by_new]) == [PAYLOAD]
    with pytest.raises(ConfigError, match=r"key 'a', which STAYLINE_ENCRYPTION_KEYS does not have"):
        await dropped.decode([by_old])


async def test_clear_reads_what_is_encrypted_and_writes_in_clear() -> None:
    codec = reading(f"{CLEAR},a:{KEY_A}")
    assert await codec.encode([PAYLOAD]) == [PAYLOAD]
    assert await codec.decode(await reading(f"a:{KEY_A}").encode([PAYLOAD])) == [PAYLOAD]
    converter = converter_for(Settings(encryption_keys=SecretStr(f"{CLEAR},a:{KEY_A}")))
    assert converter.failure_converter_class is data_converter.failure_converter_class


async def test_without_the_setting_nothing_changes_and_what_is_encrypted_says_what_is_missing() -> None:
    converter = converter_for(Settings())
    assert await converter.encode(["x"]) == await data_converter.encode(["x"])
    sealed = await reading(f"2026a:{KEY_A}").encode([PAYLOAD])
    with pytest.raises(ConfigError, match="the key '2026a', which STAYLINE_ENCRYPTION_KEYS does not have here"):
        await converter.decode(sealed)


# --- tampering -------------------------------------------------------------------------------------------


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
async def test_no_byte_can_be_changed(place: int, difference: int) -> None:
    codec = reading(f"a:{KEY_A}")
    (sealed,) = await codec.encode([PAYLOAD])
    data = bytearray(sealed.data)
    data[place % len(data)] ^= difference
    with pytest.raises(ConfigError, match="it was altered, or encrypted with another key named 'a'"):
        await codec.decode([Payload(metadata=sealed.metadata, data=bytes(data))])


@pytest.mark.parametrize("length", [0, 1, 11, 12, 27, 28])
async def test_a_payload_that_was_cut_is_refused(length: int) -> None:
    codec = reading(f"a:{KEY_A}")
    (sealed,) = await codec.encode([PAYLOAD])
    with pytest.raises(ConfigError, match="cannot be decrypted"):
        await codec.decode([Payload(metadata=sealed.metadata, data=sealed.data[:length])])


async def test_the_name_of_the_key_is_authenticated_too() -> None:
    """The same key under two names: the name cannot be exchanged."""
    codec = reading(f"a:{KEY_A},b:{KEY_A}")
    (sealed,) = await codec.encode([PAYLOAD])
    sealed.metadata[KEY_ID] = b"b"
    with pytest.raises(ConfigError, match="named 'b'"):
        await codec.decode([sealed])


@pytest.mark.parametrize("key_id", [b"", b"z", b"\xff\xfe", b"n" * 10_000])
async def test_an_unknown_name_is_told_and_cut_short(key_id: bytes) -> None:
    codec = reading(f"a:{KEY_A}")
    with pytest.raises(ConfigError, match="which STAYLINE_ENCRYPTION_KEYS does not have") as caught:
        await codec.decode([Payload(metadata={"encoding": ENCODING, KEY_ID: key_id}, data=b"x" * 40)])
    assert len(str(caught.value)) < 300


# --- the setting -----------------------------------------------------------------------------------------

SHORT = base64.b64encode(os.urandom(16)).decode()
WRONG = {
    "": "is set, but empty",
    " , ": "is set, but empty",
    KEY_A: "entry 1 is not a name",
    f"a:{KEY_A},{KEY_B}": "entry 2 is not a name",
    f"a:{KEY_A},": "entry 2 is empty",
    f",a:{KEY_A}": "entry 1 is empty",
    f":{KEY_A}": "entry 1 is not a name",
    f"{KEY_A}:a": "entry 1 is not a name",
    f"a b:{KEY_A}": "entry 1 is not a name",
    "a:": "entry 1 is not a name",
    f"a:{KEY_A[:-1]}": "the key 'a' is not base64",
    f"a:{KEY_A[:-2]}!=": "the key 'a' is not base64",
    f"a:{KEY_A[:-2]}é=": "the key 'a' is not base64",
    f"a:{SHORT}": "the key 'a' has 16 bytes, not 32",
    f"a:{KEY_A},a:{KEY_B}": "two keys named 'a'",
    f"a:{KEY_A},clear:{KEY_B}": "entry 2: no key may be named 'clear'",
    f"a:{KEY_A},clear": "entry 2 is not a name",
    "clear": "no key after 'clear'",
}


@pytest.mark.parametrize(("value", "said"), WRONG.items(), ids=WRONG.values())
def test_what_makes_no_sense_is_refused_at_start_and_never_repeated(
    value: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STAYLINE_ENCRYPTION_KEYS", value)
    settings = load_settings()
    with pytest.raises(ConfigError) as caught:
        converter_for(settings)
    assert caught.value.message.startswith("STAYLINE_ENCRYPTION_KEYS")
    assert said in caught.value.message
    assert caught.value.fix
    told = "".join(traceback.format_exception(caught.value))
    for secret in (KEY_A, KEY_B, SHORT):
        assert secret[:12] not in told
    problems = check_settings(settings, TwilioCredentials())
    assert next(p.message for p in problems if p.severity == "error") == caught.value.message


def test_keys_are_in_no_representation_no_error_and_no_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(encryption_keys=SecretStr(f"november:{KEY_A},october:{KEY_B}"))
    codec = Encryption.of(settings.encryption_keys)
    shown = "".join(map(repr, (settings, codec, converter_for(settings)))) + settings.model_dump_json()
    assert "november" in shown
    assert KEY_A[:12] not in shown
    assert KEY_B[:12] not in shown

    guard = logs.guard(settings, {})
    line = str(guard(None, "info", {"event": f"november uses {KEY_A}", "more": [KEY_B]}))
    assert "november" in line
    assert KEY_A not in line
    assert KEY_B not in line

    monkeypatch.chdir(tmp_path)
    (tmp_path / "stayline.toml").write_text(f'encryption_keys = ["november:{KEY_A}"]\n')
    with pytest.raises(ConfigError, match="encryption_keys") as caught:
        load_settings()
    assert KEY_A not in "".join(traceback.format_exception(caught.value))


# --- the doctor ------------------------------------------------------------------------------------------


async def test_the_doctor_says_whether_payloads_are_encrypted(
    temporal_server: DevServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def said(keys: str | None) -> list[tuple[str, str]]:
        settings = Settings(encryption_keys=None if keys is None else SecretStr(keys))
        found = [finding async for finding in probes.probe_temporal(settings)]
        return [(f.status, f.message) for f in found if "encrypted" in f.message or f.status == "fail"]

    port = temporal_server.address.rpartition(":")[2]
    both = f"b:{KEY_B},a:{KEY_A}"
    for host, in_clear in (("127.0.0.1", "ok"), ("0.0.0.0", "warn")):  # which is this machine too
        monkeypatch.setenv("TEMPORAL_ADDRESS", f"{host}:{port}")
        for keys in (None, f"{CLEAR},a:{KEY_A}"):
            ((status, message),) = await said(keys)
            assert (status, message.partition(":")[0].partition(";")[0]) == (in_clear, "payloads are not encrypted")
        assert await said(both) == [("ok", "payloads are encrypted with the key 'b'; a can still be read")]
        assert [status for status, _ in await said("a:short")] == ["fail"]
