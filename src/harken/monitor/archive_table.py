"""Verdicts on an archive as tables: one row per verdict, Parquet."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harken.core.extras import require_packages
from harken.core.files import write_atomically
from harken.core.tables import REPEATED_PER_BYTE, read_parquet
from harken.monitor.verdict import Verdict

#: of the key of what a table was made from, in its metadata
_KEY = b"harken.key"


def row_of(verdict: Verdict, recorded_s: float) -> dict[str, Any]:
    """Cells of a verdict. recorded_s: when its recording began, in seconds since 1970."""
    fields = verdict.as_json()
    region, error = fields["region"] or {}, fields["error"] or {}
    # The worst segment judges all of a short recording.
    offset_s = 0.0 if verdict.segment_scores else verdict.start_s or 0.0
    begins = datetime.fromtimestamp(recorded_s + offset_s, UTC)
    return {
        "recorded": begins,
        **{name: fields[name] for name in _SAME},
        **{f"region_{name}": region.get(name) for name in ("low_hz", "high_hz", "start_s", "end_s", "change_db")},
        "error": error.get("cause"),
        "sha256": verdict.sha256,
        "segment_scores": list(verdict.segment_scores),
    }


_SAME = (
    "file", "start_s", "end_s", "verdict", "score", "event_score", "tone_score", "p_value", "extrapolated",
    "decided_by", "higher_than", "of", "why", "nearest", "seconds", "warnings",
)  # fmt: skip


def verdict_of(row: Mapping[str, Any]) -> Verdict:
    """What judging recordings together needs of a verdict."""
    return Verdict(
        Path(row["file"]),
        kind=row["verdict"],
        score=row["score"],
        start_s=row["start_s"],
        end_s=row["end_s"],
        sha256=row["sha256"],
        segment_scores=tuple(row["segment_scores"]),
    )


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], key: str) -> None:
    """Write rows of `row_of` to `path`, whole or not at all. key: of what they were made from."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts, numbers = pa.string(), pa.float64()
    schema = pa.schema(
        [
            ("recorded", pa.timestamp("us", "UTC")), ("file", texts), ("start_s", numbers), ("end_s", numbers),
            ("verdict", texts), ("score", numbers), ("event_score", numbers), ("tone_score", numbers),
            ("p_value", numbers), ("extrapolated", pa.bool_()), ("decided_by", texts), ("higher_than", pa.int64()),
            ("of", pa.int64()), ("why", texts), ("nearest", texts), ("seconds", numbers), ("warnings", pa.list_(texts)),
            *((f"region_{name}", numbers) for name in ("low_hz", "high_hz", "start_s", "end_s", "change_db")),
            ("error", texts), ("sha256", texts), ("segment_scores", pa.list_(numbers)),
        ],
        {_KEY: key.encode()},
    )  # fmt: skip
    table = pa.Table.from_pylist([{name: _cell(value) for name, value in row.items()} for row in rows], schema)
    handle = io.BytesIO()
    pq.write_table(table, handle, compression="zstd")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, handle.getvalue(), sync=True)


def read_rows(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Rows as written. Raises OSError, ArrowException or HarkenError for what is none of these tables."""
    rows: list[dict[str, Any]] = read_parquet(path, columns, per_byte=REPEATED_PER_BYTE).to_pylist()
    return rows


def key_of(path: Path) -> str | None:
    """The key of a table; None where there is none, or it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    key: bytes = metadata.get(_KEY, b"")
    return key.decode(errors="replace") or None


def check_tables() -> None:
    """Raise HarkenError where Parquet cannot be written."""
    require_packages(("pyarrow",), "tables of archives")


def _cell(value: Any) -> Any:
    """Text that tables can hold: odd bytes of file names are shown as such."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_cell(entry) for entry in value]
    return value
