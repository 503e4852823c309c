"""The interface for programs under requests of all kinds: it answers as its description says, and never breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from harken.page.server import PageServer
from harken.page.settings import PageSettings
from harken.service.set_up.set_up import SetUp
from stored_plant import fill


def _check(operation: Any, conforms: Any, statuses: set[int]) -> None:
    @settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def check(case: Any) -> None:
        answer = case.call()
        statuses.add(answer.status_code)
        assert answer.status_code < 500, answer.text
        # Too many requests are refused before they are looked at.
        if answer.status_code != 429:
            case.validate_response(answer, checks=[conforms])

    check()


def test_no_request_breaks_it(tmp_path: Path) -> None:
    # Importing it takes seconds, in every worker if it stood above.
    schemathesis = pytest.importorskip("schemathesis")
    conforms = schemathesis.checks.response_schema_conformance
    fill(tmp_path / "stored", days=0.2)
    set_up = SetUp(tmp_path / "plant")
    server = PageServer(
        PageSettings(tmp_path / "stored" / "store.db", tmp_path / "stored" / "evidence", port=0, set_up=set_up)
    )
    server.start()
    statuses: dict[str, set[int]] = {}
    try:
        described = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        for operation in (found.ok() for found in described.get_all_operations()):
            _check(operation, conforms, statuses.setdefault(operation.label, set()))
    finally:
        server.stop()
        set_up.close()
    assert len(statuses) == 14
    assert {200} < set().union(*statuses.values())
