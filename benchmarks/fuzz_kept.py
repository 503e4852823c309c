"""Mutated files that Harken itself keeps: tables, bags, memories, weights in the cache, stores and configurations.

As in `fuzz_files`, digests and forms stay valid in most inputs, so that what stands behind them is reached.
`python benchmarks/fuzz.py` runs it with the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from safetensors.numpy import save

from fuzz_files import ODD, WORDS, Mutate, deep_copy, replace_array, replace_value
from harken.data.clips import Clip
from harken.data.table import read_table, write_table
from harken.encoders import checkpoints, create_encoder
from harken.ensemble.bag import load_bag
from harken.evaluation.score_tables import read_score_table
from harken.evaluation.scores import ScoreRow, Scores, read_scores, write_scores
from harken.monitor.detector import Detector
from harken.monitor.sequence import Sequence
from harken.service.changes import AlarmRecord, Changes, EvidenceRecord, ModelInUse, SensorRecord, WindowScore
from harken.service.configuration.read import read_configuration
from harken.service.records import Message
from harken.service.store.engine import make_engine, store_url
from harken.service.store.overview import alarms, overview
from harken.service.store.store import SinkState, Store
from harken.weights.cache import Record, keep

BAG = {
    "name": "b", "normalise": "train",
    "members": [
        {"name": "x", "weight": 0.4, "scores": "x"},
        {"name": "inner", "weight": 0.6, "bag": {"name": "i", "normalise": "train", "members": [
            {"name": "y", "weight": 1.0, "scores": "y"}]}},
    ],
}  # fmt: skip
CONFIGURATION: dict[str, Any] = {
    "monitor": "hall", "store": "monitor.db", "evidence": {"quota": "2GB"},
    "sources": {"s": {"kind": "folder", "path": "sound"}, "t": {"kind": "stream", "url": "rtsp://x.example/y"}},
    "machines": {
        "pump": {"source": "s", "model": "pump.harken", "false_alarms": "1/quarter", "on_delay": "2min"},
        "fan": {"source": "t", "model": "fan.harken", "channels": [1]},
    },
    "sinks": {"m": {"kind": "mqtt", "host": "broker.example"}, "w": {"kind": "webhook", "url": "https://x.example"}},
}  # fmt: skip
TIME = datetime(2026, 1, 1, tzinfo=UTC)


class KeptFiles:
    """Readers of each kind of file, and what they are given."""

    def __init__(self, folder: Path, model: Path, mutate: Mutate) -> None:
        """folder: for the files. model: a bundle whose memory is read. mutate: bytes to other bytes."""
        self.folder, self.mutate = folder, mutate
        self.setting = Detector.load(model).alarm
        os.environ["HARKEN_CACHE"] = str(folder / "cache")
        clips = [Clip(f"c{row}", folder / f"{row}.wav", attributes={"v": str(row)}) for row in range(6)]
        write_table(clips, folder / "clips0.parquet")
        rows = [ScoreRow(f"c{row}", f"c{row}.wav", "fan", "00", "test", row / 7, row % 2) for row in range(6)]
        write_scores(Scores.of_rows(rows, "s"), folder / "scores0.parquet")
        memory = Sequence(self.setting)
        memory.save(folder / "memory0.json")
        self.memory = json.loads((folder / "memory0.json").read_text()) | {"latest": ["a.wav"], "heard": ["0" * 64]}
        self.network = create_encoder("efficientat", {"width": 0.1, "seed": 1})
        self.weights = {name: np.asarray(array) for name, array in self.network.weights().items()}
        self.store = folder / "store0.db"
        _fill(self.store)
        with sqlite3.connect(self.store) as connection:
            names = connection.execute("select name from sqlite_master where type = 'table'").fetchall()
            self.columns = [
                (table, row[1]) for (table,) in names for row in connection.execute(f"pragma table_info({table})")
                if connection.execute(f"select count(*) from {table}").fetchone()[0]
            ]  # fmt: skip
        connection.close()

    def clips(self, rng: np.random.Generator) -> None:
        """A table of clips, or of scores as a run keeps them: other cells, other columns, other bytes."""
        name, read = (("clips0.parquet", read_table), ("scores0.parquet", read_scores))[int(rng.integers(2))]
        file = self.folder / "t.parquet"
        if rng.random() < 0.4:
            file.write_bytes(self.mutate((self.folder / name).read_bytes(), rng))
        else:
            _other_cell(pq.read_table(self.folder / name), file, rng)
        read(file)

    def scores_parquet(self, rng: np.random.Generator) -> None:
        """A table of scores of several systems as parquet."""
        file = self.folder / "s.parquet"
        table = pa.table({
            "machine": ["fan"] * 4, "section": ["00"] * 4, "file": [f"{row}.wav" for row in range(4)],
            "anomaly": [0, 0, 1, 1], "a": [0.1, 0.2, 0.3, 0.4],
        })  # fmt: skip
        _other_cell(table, file, rng)
        if rng.random() < 0.3:
            file.write_bytes(self.mutate(file.read_bytes(), rng))
        read_score_table(file)

    def bag(self, rng: np.random.Generator) -> None:
        """An ensemble."""
        file = self.folder / "b.yaml"
        file.write_bytes(self._text(BAG, rng))
        load_bag(file)

    def configuration(self, rng: np.random.Generator) -> None:
        """The configuration of a monitor."""
        file = self.folder / "p.yaml"
        file.write_bytes(self._text(CONFIGURATION, rng))
        read_configuration(file)

    def memory_file(self, rng: np.random.Generator) -> None:
        """The memory of scored recordings."""
        file = self.folder / "memory.json"
        if rng.random() < 0.3:
            file.write_bytes(self.mutate(json.dumps(self.memory).encode(), rng))
        else:
            settings: Any = deep_copy(self.memory)
            for _ in range(int(rng.integers(1, 3))):
                replace_value(settings, rng)
            file.write_text(json.dumps(settings))
        sequence = Sequence.load(file, self.setting)
        sequence.save(self.folder / "memory again.json")

    def checkpoint(self, rng: np.random.Generator) -> None:
        """Weights in the cache under their right sha256, and the record beside them."""
        config: Any = {"width": 0.1}
        arrays = {"": dict(self.weights)}
        if rng.random() < 0.5:
            replace_value(config, rng)
        else:
            replace_array(arrays, rng)
        data = save({name: np.array(array, order="C") for name, array in arrays[""].items()})
        sha256 = hashlib.sha256(data).hexdigest()
        try:
            record = Record(
                name="mine",
                encoder="efficientat",
                config=config,
                sha256=sha256,
                source_file="x",
                source_sha256="0" * 64,
            )
            keep(record, data)
        except (ValueError, TypeError):
            return  # no JSON
        if rng.random() < 0.3:
            file = self.folder / "cache" / "weights" / "mine.json"
            file.write_bytes(self.mutate(file.read_bytes(), rng))
        loaded = checkpoints.load("mine")
        create_encoder(loaded.encoder, loaded.config, loaded.weights)

    def store_rows(self, rng: np.random.Generator) -> None:
        """The store of a monitor with another cell, or other bytes."""
        file = self.folder / "store.db"
        for path in self.folder.glob("store.db*"):
            path.unlink()
        if rng.random() < 0.2:
            file.write_bytes(self.mutate(self.store.read_bytes(), rng))
        else:
            shutil.copyfile(self.store, file)
            table, column = self.columns[int(rng.integers(len(self.columns)))]
            cells = (None, "", "x", "{", "[]", "1e999", b"\xff\xfe", 2**62, -1, 1e308, "2026-01-01", "\0")
            connection = sqlite3.connect(file)
            try:
                with connection:
                    cell = cells[int(rng.integers(len(cells)))]
                    connection.execute(f'update {table} set "{column}" = ?', (cell,))
            except sqlite3.IntegrityError:
                return
            finally:
                connection.close()
        store = Store(make_engine(store_url(file)), "hall", str(file))
        try:
            store.load()
            overview(store)
            alarms(store)
            store.messages(0, 10)
            store.requests()
        finally:
            store.close()

    def _text(self, data: Any, rng: np.random.Generator) -> bytes:
        """YAML with other values, other words, or other bytes."""
        settings = deep_copy(data)
        if rng.random() < 0.4:
            for _ in range(int(rng.integers(1, 3))):
                replace_value(settings, rng)
            return yaml.safe_dump(settings, allow_unicode=True).encode(errors="surrogatepass")
        lines = yaml.safe_dump(settings).splitlines()
        if rng.random() < 0.5:
            row = int(rng.integers(len(lines)))
            key, colon, _ = lines[row].partition(": ")
            lines[row] = f"{key}{colon or ': '}{WORDS[int(rng.integers(len(WORDS)))]}"
            return "\n".join(lines).encode()
        return self.mutate("\n".join(lines).encode(), rng)


def _other_cell(table: Any, file: Path, rng: np.random.Generator) -> None:
    """Write the table with a column of other cells, of another type, left out, or there twice."""
    number = int(rng.integers(table.num_columns))
    name = table.column_names[number]
    match int(rng.integers(4)):
        case 0:
            table = table.drop_columns([name])
        case 1:
            table = table.append_column(name, table.column(number))
        case 2:
            cells = table.column(number).to_pylist()
            cells[int(rng.integers(len(cells)))] = ODD[int(rng.integers(len(ODD)))]
            try:
                table = table.set_column(number, name, pa.array(cells, table.schema.field(number).type))
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                table = table.set_column(number, name, pa.array([str(cell) for cell in cells]))
        case _:
            odd: Any = ([None], [[1]], [{"a": 1}], [b"\xff"], [True], [TIME], [2**40])[int(rng.integers(7))]
            table = table.set_column(number, name, pa.array(odd * table.num_rows))
    pq.write_table(table, file)


def _fill(place: Path) -> None:
    """A store as a monitor leaves it."""
    store = Store.open(place, "hall")
    changes = Changes()
    changes.windows.append(WindowScore("pump", 1, 0, TIME, TIME, "alarm", 2.0, 1.0, 0.1, "abc"))
    changes.alarms["a"] = AlarmRecord("a", "pump", "unacknowledged", TIME, TIME, windows=1, highest=2.0, evidence="e")
    changes.evidence.append(EvidenceRecord("e", "pump", "a", TIME, 9, "x.flac"))
    changes.sensors.append(SensorRecord("pump", "good", TIME))
    changes.states["pump"] = {"state": {}}
    changes.models.append(ModelInUse("pump", "abc", "pump.harken", TIME, 2.2, ["Once in 710 recordings."]))
    changes.messages.append(Message("m", 1, "alarm", "pump", TIME, {"x": 1}))
    store.seen(TIME)
    store.commit(changes)
    store.save_sinks([SinkState("w", 1, TIME)])
    store.close()


KEPT = ("clips", "scores_parquet", "bag", "configuration", "memory_file", "checkpoint", "store_rows")
