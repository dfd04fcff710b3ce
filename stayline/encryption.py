"""Encryption of what Temporal keeps: every payload whole, by AES-256-GCM, with keys that can be changed.

    STAYLINE_ENCRYPTION_KEYS = "2026b:<base64 of 32 bytes>,2026a:<base64 of 32 bytes>"

The first key encrypts, all of them decrypt. `clear` in place of the first key writes payloads in clear and reads
both kinds: so a fleet learns to read before any part of it begins to encrypt, or goes back. Payloads in clear are
always read. That keeps running calls alive when encryption is switched on, and lets people send signals by hand; it
also means that encryption is against whoever reads the namespace, not against whoever may write to it.

An encrypted payload has the metadata `encoding: binary/encrypted` and `encryption-key-id`, both authenticated, and
as data a nonce of 12 bytes, the ciphertext, and the tag of 16 bytes (NIST SP 800-38D). What is encrypted is the
serialised protobuf `Payload`, its own encoding included.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError
from pydantic import SecretStr
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from stayline.errors import ConfigError

SETTING: Final = "STAYLINE_ENCRYPTION_KEYS"
ENCODING: Final = b"binary/encrypted"
KEY_ID: Final = "encryption-key-id"
CLEAR: Final = "clear"
"""In place of the first key: payloads are written in clear, and read with the keys that follow."""

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_HOW: Final = 'Write "NAME:KEY", or several with commas; `openssl rand -base64 32` makes a KEY.'


class Encryption(PayloadCodec):
    """The codec of every client, worker and replayer.

    Args:
        keys: AES-256 keys by their names.
        first: name of the one that encrypts; None: payloads are written in clear.
    """

    def __init__(self, keys: dict[str, bytes] | None = None, first: str | None = None) -> None:
        self._ciphers = {name: AESGCM(key) for name, key in (keys or {}).items()}
        self.first = first

    @classmethod
    def of(cls, keys: SecretStr | None) -> Encryption:
        """Read the setting. None: not set; what is encrypted is then refused with a clear word.

        Raises:
            ConfigError: it makes no sense; says where, and nothing of what a key was.
        """
        if keys is None:
            return cls()
        found: dict[str, bytes] = {}
        entries = [entry.strip() for entry in keys.get_secret_value().split(",")]
        if not any(entries):
            raise ConfigError(f"{SETTING} is set, but empty: payloads would not be encrypted.", fix=_HOW)
        clear = entries[0] == CLEAR
        for number, entry in enumerate(entries[clear:], 1 + clear):
            name, key = _key(entry, f"{SETTING}, entry {number}")
            if name in found:
                raise ConfigError(f"{SETTING} has two keys named {name!r}.", fix="A new key needs a new name.")
            found[name] = key
        if not found:
            raise ConfigError(f"{SETTING} has no key after {CLEAR!r}.", fix="Unset it, or add a key.")
        return cls(found, None if clear else next(iter(found)))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all keys, in the order given."""
        return tuple(self._ciphers)

    def __repr__(self) -> str:
        return f"Encryption(first={self.first!r}, names={self.names!r})"

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt each payload, unless there is no key to do it with."""
        if self.first is None:
            return list(payloads)
        return [self._encrypt(payload, self.first) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt those that are encrypted; others are passed on as they are.

        Raises:
            ConfigError: the key is not in the setting, or it is another one than that which encrypted.
        """
        return [self._decrypt(p) if p.metadata.get("encoding") == ENCODING else p for p in payloads]

    def _encrypt(self, payload: Payload, name: str) -> Payload:
        key_id, nonce = name.encode(), os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[name].encrypt(nonce, payload.SerializeToString(), _authenticated(key_id))
        return Payload(metadata={"encoding": ENCODING, KEY_ID: key_id}, data=nonce + sealed)

    def _decrypt(self, payload: Payload) -> Payload:
        key_id = payload.metadata.get(KEY_ID, b"")
        name = key_id.decode(errors="replace")[:64]  # from outside: whatever it is, it will be printed
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise ConfigError(
                f"A payload is encrypted with the key {name!r}, which {SETTING} does not have here.",
                fix="Give it, after the key that encrypts; or this is a payload of another application.",
            )
        nonce, sealed = payload.data[:_NONCE_BYTES], payload.data[_NONCE_BYTES:]
        try:
            if len(sealed) < _TAG_BYTES:
                raise InvalidTag
            return Payload.FromString(cipher.decrypt(nonce, sealed, _authenticated(key_id)))
        except (InvalidTag, DecodeError):
            raise ConfigError(
                f"A payload cannot be decrypted: it was altered, or encrypted with another key named {name!r}.",
                fix=f"Compare {SETTING} of all processes.",
            ) from None


def _key(entry: str, where: str) -> tuple[str, bytes]:
    """`NAME:KEY`. No message holds the entry itself: a part of a key may stand where the name should."""
    name, colon, text = (part.strip() for part in entry.partition(":"))
    if not colon or not text or not _NAME.fullmatch(name):
        what = "is empty" if not entry else "is not a name of letters, digits and . _ -, a colon, and a key"
        raise ConfigError(f"{where} {what}.", fix=_HOW)
    if name == CLEAR:
        raise ConfigError(f"{where}: no key may be named {CLEAR!r}.", fix="It means that nothing is encrypted.")
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError(f"{where}: the key {name!r} is not base64.", fix=_HOW) from None
    if len(key) != _KEY_BYTES:
        raise ConfigError(f"{where}: the key {name!r} has {len(key)} bytes, not {_KEY_BYTES}.", fix=_HOW)
    return name, key


def _authenticated(key_id: bytes) -> bytes:
    """What is not encrypted, but cannot be changed either."""
    return ENCODING + b"\0" + key_id
