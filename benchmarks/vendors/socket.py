"""A vendor's end of a websocket: what all of them do alike."""

from __future__ import annotations

import json
from typing import Any

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport


class VendorSocket(WSListener):
    """Subclasses take `opened`, `text` and `binary`, and use `send`, `send_json` and `close`."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self.opened()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.BINARY:
            self.binary(frame.get_payload_as_bytes())
        elif frame.msg_type is WSMsgType.TEXT:
            self.text(json.loads(frame.get_payload_as_bytes()))
        elif frame.msg_type is WSMsgType.CLOSE:
            self.close()

    def opened(self) -> None:
        """The handshake is over."""

    def text(self, message: dict[str, Any]) -> None:
        raise NotImplementedError

    def binary(self, message: bytes) -> None:
        raise NotImplementedError

    def send(self, message: str) -> None:
        """Nothing happens when the client has gone: it may hang up at any time."""
        if not self._transport.is_disconnected and not self._transport.underlying_transport.is_closing():
            self._transport.send(WSMsgType.TEXT, message.encode())

    def send_json(self, message: dict[str, Any]) -> None:
        self.send(json.dumps(message, separators=(",", ":")))

    def close(self) -> None:
        if not self._transport.is_disconnected:
            self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect()
