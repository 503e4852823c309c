"""The configuration of a monitor, as pydantic checks it; `read` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ByteSize, ConfigDict, Field, TypeAdapter, field_validator, model_validator

from harken.core.errors import HarkenError
from harken.detection.rates import parse_period

Port = Annotated[int, Field(ge=1, le=65_535)]
Rate = Annotated[int, Field(ge=1000, le=1_000_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
_BYTES = TypeAdapter(ByteSize)
Kinds = tuple[Literal["alarm", "sensor", "source", "service"], ...]
EVERYTHING: Kinds = ("alarm", "sensor", "source", "service")


class Entry(BaseModel):
    """A mapping of known keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ---- sources -----------------------------------------------------------------------------------------------


class FolderEntry(Entry):
    """See `harken.service.sources.folder.FolderSource`."""

    kind: Literal["folder"]
    path: Path
    order: Literal["name", "time"] = "name"
    continuous: bool = False
    settle_s: Seconds = 5.0
    all_formats: bool = False


class PipeEntry(Entry):
    """See `harken.service.sources.pipe.PipeSource`. rate: of raw samples; None: it begins with a WAV header."""

    kind: Literal["pipe"]
    rate: Rate | None = None
    channels: Annotated[int, Field(ge=1, le=64)] = 1
    sample_format: str = "S16_LE"


class MicrophoneEntry(Entry):
    """See `harken.service.sources.microphone`. device: part of its name, or its number; None: the system's default."""

    kind: Literal["microphone"]
    device: str | int | None = None
    rate: Rate | None = None
    channels: Annotated[int, Field(ge=1, le=64)] | None = None


class StreamEntry(Entry):
    """See `harken.service.sources.stream`. patience_s: without sound, until it is begun again."""

    kind: Literal["stream"]
    url: str
    patience_s: Seconds = 10.0


SourceEntry = FolderEntry | PipeEntry | MicrophoneEntry | StreamEntry
SOURCES: dict[str, type[SourceEntry]] = {
    "folder": FolderEntry, "pipe": PipeEntry, "microphone": MicrophoneEntry, "stream": StreamEntry,
}  # fmt: skip


# ---- machines ----------------------------------------------------------------------------------------------


class MonitoredEntry(Entry):
    """A machine that is listened to.

    source: name of its source. model: made by harken fit. channels: of the source, counted from 1; None: all.
    false_alarms: rate of false alarms, in time: `1/quarter`. hop: from the beginning of one window to that of the next,
    as `10s`; None: gapless, or, of recordings in a folder, as of those that the model learned from.
    on_delay, off_delay: for so long the machine sounds abnormal, or normal, before an alarm begins, or ends.
    """

    source: str
    model: Path
    channels: tuple[Annotated[int, Field(ge=1, le=64)], ...] | None = None
    false_alarms: str = "1/quarter"
    hop: str | None = None
    on_delay: str | None = None
    off_delay: str | None = None

    @field_validator("hop", "on_delay", "off_delay")
    @classmethod
    def _period(cls, period: str | None) -> str | None:
        try:
            if period is not None:
                parse_period(period)
        except HarkenError as error:
            raise ValueError(error.cause) from None
        return period

    @property
    def hop_s(self) -> float | None:
        """Seconds of `hop`."""
        return None if self.hop is None else parse_period(self.hop)

    @property
    def on_delay_s(self) -> float:
        """Seconds of `on_delay`."""
        return 0.0 if self.on_delay is None else parse_period(self.on_delay)

    @property
    def off_delay_s(self) -> float | None:
        """Seconds of `off_delay`; None: see `EpisodeRule`."""
        return None if self.off_delay is None else parse_period(self.off_delay)


# ---- sinks -------------------------------------------------------------------------------------------------


class SinkFields(Entry):
    """messages: kinds that the sink gets."""

    messages: Kinds = EVERYTHING


class MqttEntry(SinkFields):
    """See `harken.service.sinks.mqtt`. port: by default 1883, or 8883 with TLS. discovery: prefix of Home Assistant's
    discovery; none: no discovery."""

    kind: Literal["mqtt"]
    host: str
    port: Port | None = None
    user: str | None = None
    password: str | None = Field(default=None, repr=False)
    tls: bool = False
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    prefix: str = "harken"
    discovery: str | None = "homeassistant"

    @field_validator("prefix", "discovery")
    @classmethod
    def _topic(cls, topic: str | None) -> str | None:
        if topic is not None and (not topic or set("+#\0") & set(topic) or topic != topic.strip("/")):
            raise ValueError("is no topic: it must not have + or #, nor begin or end with /")
        return topic

    @model_validator(mode="after")
    def _files_of_tls(self) -> Self:
        if not self.tls and (self.ca_file or self.certificate_file or self.key_file):
            raise ValueError("files of certificates come with tls: true")
        if self.password is not None and self.user is None:
            raise ValueError("a password comes with a user")
        return self


class WebhookEntry(SinkFields):
    """See `harken.service.sinks.webhook`."""

    kind: Literal["webhook"]
    url: str = Field(repr=False)
    secret: str | None = Field(default=None, repr=False)
    headers: dict[str, str] = Field(default={}, repr=False)
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 10.0
    ca_file: Path | None = None

    @field_validator("url")
    @classmethod
    def _http(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("is no address: it begins with https:// or http://")
        return url


class NotifyEntry(SinkFields):
    """See `harken.service.sinks.notify`."""

    kind: Literal["notify"]
    url: str = Field(repr=False)
    attach: bool = True


class CommandEntry(SinkFields):
    """See `harken.service.sinks.command`."""

    kind: Literal["command"]
    command: tuple[str, ...] = Field(min_length=1)
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 30.0


SinkEntry = MqttEntry | WebhookEntry | NotifyEntry | CommandEntry
SINKS: dict[str, type[SinkEntry]] = {
    "mqtt": MqttEntry, "webhook": WebhookEntry, "notify": NotifyEntry, "command": CommandEntry,
}  # fmt: skip


# ---- the whole ---------------------------------------------------------------------------------------------


class HttpEntry(Entry):
    """Where `/metrics` and `/healthz` are."""

    host: str = "127.0.0.1"
    port: Port = 9464


class PageEntry(Entry):
    """Where the page is. token: needed from everybody, and needed where others reach it. names: further names under
    which browsers reach this computer."""

    host: str = "127.0.0.1"
    port: Port = 8765
    token: str = Field(default="", repr=False)
    names: tuple[str, ...] = ()


class EvidenceEntry(Entry):
    """Sound and pictures of alarms. folder: of them; None: beside the store. quota: bytes, as `2GB`, of which the
    oldest go."""

    folder: Path | None = None
    quota: str = "2GB"

    @field_validator("quota")
    @classmethod
    def _size(cls, quota: str) -> str:
        _BYTES.validate_python(quota)
        return quota

    @property
    def quota_bytes(self) -> int:
        """Bytes of `quota`."""
        return int(_BYTES.validate_python(self.quota))


class FeaturesEntry(Entry):
    """What is kept of judged windows for models to learn from (`harken.service.store.features`). quota: bytes in the
    store, as `500MB`, of all machines; `0`: nothing is kept, and nothing can be learned. age: of the oldest, as `90d`.
    """

    quota: str = "500MB"
    age: str = "1y"

    @field_validator("quota")
    @classmethod
    def _size(cls, quota: str) -> str:
        _BYTES.validate_python(quota)
        return quota

    @field_validator("age")
    @classmethod
    def _period(cls, period: str) -> str:
        try:
            parse_period(period)
        except HarkenError as error:
            raise ValueError(error.cause) from None
        return period

    @property
    def quota_bytes(self) -> int:
        """Bytes of `quota`."""
        return int(_BYTES.validate_python(self.quota))

    @property
    def age_s(self) -> float:
        """Seconds of `age`."""
        return parse_period(self.age)


class Configuration(Entry):
    """Everything that a monitor does. monitor: its name, in topics and in a store of several.

    store: path of an SQLite file, or `postgresql://...`. http, page: None: not served. Paths are relative to the file.
    """

    monitor: str = "monitor"
    store: str = Field(default="monitor.db", repr=False)
    evidence: EvidenceEntry = EvidenceEntry()
    features: FeaturesEntry = FeaturesEntry()
    sources: dict[str, SourceEntry]
    machines: dict[str, MonitoredEntry] = Field(min_length=1)
    sinks: dict[str, SinkEntry] = {}
    http: HttpEntry | None = HttpEntry()
    page: PageEntry | None = PageEntry()

    @property
    def evidence_folder(self) -> Path:
        """Where evidence is: as configured, or beside the store; beside the configuration of a server's store."""
        if self.evidence.folder is not None:
            return self.evidence.folder
        beside = Path("evidence") if "://" in self.store else Path(self.store).parent / "evidence"
        return beside / self.monitor if self.monitor != "monitor" else beside
