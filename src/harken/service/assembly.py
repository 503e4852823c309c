"""From a configuration to what runs: models, sources, taps, sinks. What cannot work is found before anything starts."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from harken.core.errors import HarkenError
from harken.monitor.bundle import bundle_digest
from harken.monitor.detector import Detector
from harken.service.configuration.model import (
    CommandEntry,
    Configuration,
    FolderEntry,
    MicrophoneEntry,
    MonitoredEntry,
    MqttEntry,
    PipeEntry,
    SinkEntry,
    SourceEntry,
    StreamEntry,
    WebhookEntry,
)
from harken.service.judging import check_fits
from harken.service.records import Resume
from harken.service.sinks.base import Sink
from harken.service.sources.base import SoundSource, SourceForm

log = logging.getLogger(__name__)

#: seconds to see whether something answers at an address
_REACH_S = 1.0


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model in memory. digest: of its files."""

    detector: Detector
    digest: str


class Models:
    """Models by the digest of their files, each in memory once."""

    def __init__(self) -> None:
        self._loaded: dict[str, LoadedModel] = {}

    def get(self, machine: MonitoredEntry) -> LoadedModel:
        """The model of a machine, as it is on the disk now. Raises BundleError where there is none."""
        digest = bundle_digest(machine.model)
        if digest not in self._loaded:
            self._loaded[digest] = LoadedModel(Detector.load(machine.model), digest)
        return self._loaded[digest]

    def keep(self, digests: Iterable[str]) -> None:
        """Drop others from memory."""
        kept = set(digests)
        self._loaded = {digest: model for digest, model in self._loaded.items() if digest in kept}


def make_source(entry: SourceEntry, machines: Sequence[str], *, resume: Resume, once: bool = False) -> SoundSource:
    """The source of an entry. machines: that listen to it. resume: what is stored of an earlier run.

    once: a folder ends when all that is in it was heard. Raises HarkenError for what cannot be listened to at all.
    """
    match entry:
        case FolderEntry():
            from harken.service.sources.folder import FolderSource

            return FolderSource(
                entry.path,
                machines,
                resume=resume,
                order=entry.order,
                continuous=entry.continuous,
                settle_s=0.0 if once else entry.settle_s,
                watch=not once,
                all_formats=entry.all_formats,
            )
        case PipeEntry():
            from harken.service.sources.pcm import WAV
            from harken.service.sources.pipe import PipeSource

            if entry.rate is None:
                return PipeSource(WAV)
            return PipeSource(entry.sample_format, SourceForm(entry.rate, entry.channels))
        case MicrophoneEntry():
            from harken.service.sources.microphone import MicrophoneSource

            return MicrophoneSource(entry.device, SourceForm(entry.rate, entry.channels))
        case StreamEntry():
            from harken.service.sources.stream import StreamSource

            return StreamSource(entry.url, patience_s=entry.patience_s)


def check_machine(machine: str, configuration: Configuration, model: LoadedModel) -> None:
    """Raise HarkenError where the model cannot judge the sound of the source, as far as that is known."""
    entry = configuration.machines[machine]
    source = make_source(configuration.sources[entry.source], [machine], resume={})
    chosen = None if entry.channels is None else len(entry.channels)
    check_fits(model.detector, source.form, source.place, chosen=chosen)


def make_sink(name: str, entry: SinkEntry, configuration: Configuration) -> Sink:
    """The sink of an entry. Raises HarkenError for an address that is not understood."""
    match entry:
        case MqttEntry():
            from harken.service.sinks.mqtt import BrokerAddress, MqttSink

            files = (entry.ca_file, entry.certificate_file, entry.key_file)
            for file in files:
                if file is not None and not file.is_file():
                    raise HarkenError("there is no such file", file=file, next_step=f"Correct it under sinks.{name}")
            ca_file, certificate_file, key_file = (None if file is None else str(file) for file in files)
            broker = BrokerAddress(
                entry.host, _port(entry), entry.user, entry.password, entry.tls, ca_file, certificate_file, key_file
            )
            return MqttSink(
                name,
                broker,
                monitor=configuration.monitor,
                machines=configuration.machines,
                prefix=entry.prefix,
                discovery_prefix=entry.discovery,
            )
        case WebhookEntry():
            from harken.service.sinks.webhook import WebhookSink

            return WebhookSink(
                name,
                entry.url,
                secret=entry.secret,
                headers=entry.headers,
                timeout_s=entry.timeout_s,
                verify=True if entry.ca_file is None else str(entry.ca_file),
            )
        case CommandEntry():
            from harken.service.sinks.command import CommandSink

            return CommandSink(name, entry.command, timeout_s=entry.timeout_s)
        case _:
            from harken.service.sinks.notify import NotifySink

            return NotifySink(name, entry.url, attach=entry.attach)


def stale_sources(
    old: Configuration, new: Configuration, digests: Mapping[str, str], new_digests: Mapping[str, str]
) -> list[str]:
    """Sources of the old configuration that are not, or not like this, in the new one: their entries, the machines
    that listen to them, and those machines' models. digests: of the models, by machine."""

    def listeners(configuration: Configuration, models: Mapping[str, str], source: str) -> dict[str, object]:
        return {
            name: (entry, models.get(name)) for name, entry in configuration.machines.items() if entry.source == source
        }

    return [
        name
        for name, entry in old.sources.items()
        if new.sources.get(name) != entry or listeners(old, digests, name) != listeners(new, new_digests, name)
    ]


def unreachable(name: str, entry: SinkEntry) -> str | None:
    """A sentence where nothing answers at the address of a sink now; it may later."""
    if isinstance(entry, MqttEntry):
        host, port = entry.host, _port(entry)
    elif isinstance(entry, WebhookEntry):
        address = urlsplit(entry.url)
        host, port = address.hostname or "", address.port or (443 if address.scheme == "https" else 80)
    else:
        return None
    try:
        socket.create_connection((host, port), _REACH_S).close()
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        return f"sink {name}: nothing answers at {host}:{port} ({reason}); messages wait until something does"
    return None


def _port(entry: MqttEntry) -> int:
    return entry.port or (8883 if entry.tls else 1883)
