"""A real PostgreSQL for tests: on loopback, with files that go away, one server a session and one database a test."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
"""Debian keeps the programs of the server out of PATH."""

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "100",
}


class Server:
    """A PostgreSQL of this session, which a test may kill and start again.

    Attributes:
        user: of all databases.
        password: hers; a test looks for it where no password may be.
        port: on 127.0.0.1.
    """

    user = "owner"

    def __init__(self, folder):
        self.password = f"secret{secrets.token_hex(8)}"
        self.port = free_port()
        self._folder = folder
        self._as = []
        if os.geteuid() == 0:  # PostgreSQL does not run as root
            shutil.chown(folder, "postgres")
            # Not `user=`, for which Python forks: the handlers of gRPC for a fork may crash the child.
            self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        (folder / "password").write_text(self.password)
        (folder / "password").chmod(0o644)
        self._call(
            "initdb", "-D", folder / "data", "-U", self.user, "--auth=scram-sha-256", "--no-sync",
            "--pwfile", folder / "password",
        )  # fmt: skip
        self._process = None

    def start(self):
        """Starts it, and returns once it takes connections."""
        command = [*self._as, self._program("postgres"), "-D", self._folder / "data", "-p", str(self.port)]
        command += [part for key, value in SETTINGS.items() for part in ("-c", f"{key}={value}")]
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        while subprocess.run(
            [self._program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
        ).returncode:
            assert self._process.poll() is None, (self._folder / "log").read_text()

    def stop(self, how=signal.SIGQUIT):
        """Stops it: SIGQUIT at once as a crash does, SIGINT in order, which ends all connections too."""
        self._process.send_signal(how)
        self._process.wait()

    def address(self, database, scheme="postgresql"):
        return f"{scheme}://{self.user}:{self.password}@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def database(self):
        """The name of a new database, which is removed afterwards."""
        name = f"test_{secrets.token_hex(4)}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield name
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, command, database="postgres"):
        import psycopg

        with closing(psycopg.connect(self.address(database), autocommit=True)) as connection:
            cursor = connection.execute(command)
            return cursor.fetchall() if cursor.description else []

    def _program(self, name):
        return PROGRAMS[0] / name

    def _call(self, name, *arguments):
        command = [*self._as, self._program(name), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self._folder)


def free_port():
    """A port of loopback that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="session")
def postgresql():
    """The server of this session; without it the tests fail, as `make test-distributed` says."""
    assert PROGRAMS, "PostgreSQL is not installed: apt-get install postgresql"
    # Not below pytest's own folders, which nobody but their owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="imgcls-postgresql-"))
    server = Server(folder)
    server.start()
    yield server
    with suppress(ProcessLookupError):
        server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def database(postgresql):
    """The address of a new database, with its password."""
    with postgresql.database() as name:
        yield postgresql.address(name)
