"""A PostgreSQL server for tests, which runs as another user where this one is root."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

import sqlalchemy as sa


def postgres_programs() -> Path | None:
    """Folder of `initdb` and `pg_ctl`, on the path or where Debian puts them; None without them."""
    on_path = shutil.which("initdb")
    folders = ([Path(os.path.realpath(on_path)).parent] if on_path else []) + sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), reverse=True
    )
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None)


class Postgres:
    """A server in a new folder, on a free port of this computer."""

    def __enter__(self) -> Self:
        programs = postgres_programs()
        assert programs is not None
        self.programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="harken_pg_"))
        self.user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:
            shutil.chown(self.folder, self.user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", f"{self.folder}/data", "-U", "harken", "-A", "trust", "-N", "-E", "UTF8")
        self.start()
        return self

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = f"-p {self.port} -k {self.folder} -c fsync=off -c listen_addresses=127.0.0.1"
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-w", "-o", options, "start")

    def stop(self) -> None:
        """Stop the server at once."""
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop")

    def new_database(self) -> str:
        """URL of an empty database."""
        name = f"harken_{uuid.uuid4().hex[:8]}"
        engine = sa.create_engine(self._url("postgres"), isolation_level="AUTOCOMMIT")
        for attempt in range(50):
            try:
                with engine.connect() as connection:
                    connection.execute(sa.text(f"CREATE DATABASE {name}"))
                break
            except sa.exc.OperationalError:
                if attempt == 49:
                    raise
                time.sleep(0.1)
        engine.dispose()
        return self._url(name).replace("+psycopg", "")

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://harken@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.programs / program, *arguments],
            check=True,
            user=self.user if os.geteuid() == 0 else None,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
        )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
