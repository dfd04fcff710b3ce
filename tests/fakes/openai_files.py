"""OpenAI's transcription of files on the wire, at `/v1/audio/transcriptions`. As strict as OpenAI.

async with FakeOpenAI() as fake:
    fake.hears += ["Hello there."]
    fake.files.taken[0].fields, fake.files.taken[0].samples
"""

from __future__ import annotations

import dataclasses
import io
import wave
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.fakes.misbehaviour import Recorded, cut
from tests.fakes.openai_heard import FILES, LEAST_MS, ONLY_FOR, Script, logprobs

if TYPE_CHECKING:
    from tests.fakes.openai import FakeOpenAI

FILE_FIELDS = {
    "file",
    "model",
    "language",
    "languages[]",
    "keywords[]",
    "prompt",
    "response_format",
    "include[]",
    "chunking_strategy",
}


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """One request for a file's transcription."""

    fields: dict[str, list[str]]
    ms: float
    samples: bytes  #: 16-bit linear PCM


class Files:
    """The file transcription of a `FakeOpenAI`."""

    def __init__(self, server: FakeOpenAI, script: Script) -> None:
        self.script = script
        self.taken: list[File] = []
        self._server = server

    async def transcriptions(self, request: web.Request) -> web.StreamResponse:
        recorded, fault = await self._server.begin(request)
        self._server._check_key(request)
        file = self._file(recorded, request.content_type)
        model = file.fields["model"][0]
        heard = self.script.next()
        try:
            if heard.until is not None:
                await self._server._hold(request, heard.until)
            if fault is not None and fault.what in ("disconnect", "half_message"):
                cut(request)
        except ConnectionError:
            self.script.lines.insert(0, heard)
            self._server.hung_up.set()
            raise
        if fault is not None and fault.what == "garbage":
            return web.Response(text="<html>", content_type="text/html")
        if heard.failed:
            self.script.failed(heard)
            return self._server._error(500, "Transcription failed.", heard.failed, kind="server_error")
        self.taken.append(file)
        body: dict[str, Any] = {"text": heard.text, "usage": {"type": "duration", "seconds": file.ms / 1000}}
        if "logprobs" in file.fields.get("include[]", ()):
            if model not in ONLY_FOR["logprobs"]:
                self._server._bad("This model gives no logprobs.", "unsupported_parameter", "include")
            body["logprobs"] = logprobs(heard)
        return web.json_response(body)

    def _file(self, recorded: Recorded, content_type: str) -> File:
        bad = self._server._bad
        if content_type != "multipart/form-data":
            bad("Expected multipart/form-data.")
        fields: dict[str, list[str]] = {}
        wav = b""
        for name, filename, content in _parts(recorded):
            if name not in FILE_FIELDS:
                bad(f"Unrecognized request argument supplied: {name}", "unknown_parameter", name)
            if filename:
                if not filename.endswith(".wav"):
                    bad("Unrecognized file format.", "invalid_value", "file")
                wav = content
            else:
                fields.setdefault(name, []).append(content.decode())
        model = (fields.get("model") or [None])[0]
        self._server._check_model(model)
        if model not in FILES:
            bad(f"The model '{model}' is not supported for transcription of files.", "invalid_value", "model")
        for name in fields:
            option = name.removesuffix("[]")
            if option in ONLY_FOR and model not in ONLY_FOR[option]:
                bad(f"'{option}' is not supported for this model.", "unsupported_parameter", option)
        try:
            with wave.open(io.BytesIO(wav)) as reader:
                form = (reader.getnchannels(), reader.getsampwidth(), reader.getframerate())
                samples = reader.readframes(reader.getnframes())
        except (wave.Error, EOFError):
            bad("Invalid file format.", "invalid_value", "file")
        if form != (1, 2, 8000):
            bad(f"This fake takes mono 16-bit WAV at 8 kHz, not {form}.", "invalid_value", "file")
        if len(samples) < LEAST_MS * 16:
            bad("Audio file is too short. Minimum audio length is 0.1 seconds.", "audio_too_short", "file")
        return File(fields, len(samples) / 16, samples)


def _parts(recorded: Recorded) -> Iterator[tuple[str, str, bytes]]:
    """Name, filename and content of each part of a form."""
    boundary = recorded.headers["content-type"].partition("boundary=")[2].strip('"').encode()
    for part in recorded.body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        names = {}
        for line in head.decode().split("\r\n"):
            if line.lower().startswith("content-disposition:"):
                pairs = (field.strip().partition("=") for field in line.split(";")[1:])
                names = {key: value.strip('"') for key, _, value in pairs}
        yield names["name"], names.get("filename", ""), content[:-2]
