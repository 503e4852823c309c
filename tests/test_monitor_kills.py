"""A monitor that is killed while it stores windows: none is lost or stored twice, and no alarm either."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor_store import kills
from postgres import Postgres, postgres_programs


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_kills_lose_and_double_nothing(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if kind == "sqlite":
        kills(str(tmp_path / "killed.db"), str(tmp_path / "whole.db"), tmp_path, 4)
    else:
        if postgres_programs() is None:
            pytest.skip("PostgreSQL (initdb, pg_ctl) is not on this machine")
        with Postgres() as server:
            kills(server.new_database(), server.new_database(), tmp_path, 4)
    assert "none lost or twice" in capsys.readouterr().out
