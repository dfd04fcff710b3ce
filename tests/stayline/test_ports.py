"""Ports that are chosen now and bound later."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from stayline import ports
from stayline.errors import ConfigError


def test_a_port_is_not_given_again_before_its_server_listens() -> None:
    given = [ports.free_port() for _ in range(100)]
    assert len(set(given)) == 100
    assert all(port in ports.choice for port in given)


def test_one_that_is_taken_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    start = ports.free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", start))
        other.listen()
        assert not ports.is_free("127.0.0.1", start)
        monkeypatch.setattr(ports, "choice", range(start, start + 1))
        with pytest.raises(ConfigError, match=r"No port of 127\.0\.0\.1 is free"):
            ports.free_port()
    assert ports.free_port() == start


@pytest.mark.skipif(not Path("/proc/sys/net").exists(), reason="only Linux tells the range")
def test_outgoing_connections_take_others() -> None:
    low, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    assert ports.choice.stop + 1000 <= int(low), "Temporal's UI is 1000 above its server"
