"""A PostgreSQL server of a test's own, from Debian's package, on a free port of the loopback address."""

import os
import random
import shutil
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

_PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


class Postgres:
    """Started when made. `restart` takes the server away for a while, as a reboot would."""

    def __init__(self) -> None:
        if not _PLACES:
            pytest.skip("needs a PostgreSQL server (Debian: apt-get install postgresql)")
        # Not below pytest's own folder, which the server's user may not enter.
        self.folder = Path(tempfile.mkdtemp(prefix="nas-postgres-"))
        if os.getuid() == 0:  # the server refuses to run as root
            shutil.chown(self.folder, "postgres")
        self.port = _free_port()
        self.data = self.folder / "data"
        self._call("initdb", "-D", str(self.data), "-U", "nas", "--auth=trust", "--no-sync")
        self.start()

    @property
    def url(self) -> str:
        """Of its one database."""
        return f"postgresql://nas@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        self._call("pg_ctl", "-D", str(self.data), "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """At once, as a crash would."""
        self._call("pg_ctl", "-D", str(self.data), "-w", "-m", "immediate", "stop")

    def end(self, connection: int) -> None:
        """One connection, by the process that serves it, and go on."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", (connection,))

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def _call(self, program: str, *arguments: str) -> None:
        command = [str(_PLACES[0] / program), *arguments]
        if os.getuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder)


def _free_port() -> int:
    """Below those that the system gives to clients, one of which could take it while the server is away."""
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
