"""Numbers for Prometheus, in a registry of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from harken.core.extras import need
from harken.core.version import __version__
from harken.service.alarm_state import AlarmState
from harken.service.delivery import DeliveryState
from harken.service.feed import SourceStatus
from harken.service.records import HeardWindow
from harken.service.sensor import SensorState

#: seconds from the end of a window to its verdict
_LAGS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """What the monitor counts. Names follow https://prometheus.io/docs/practices/naming; safe to use from any thread.

    deliveries: state of each sink. waiting: messages that each sink has still to get. Both are asked at each scrape.
    """

    def __init__(
        self,
        deliveries: Callable[[], Mapping[str, DeliveryState]] = dict,
        waiting: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        client = need("prometheus_client", "metrics")
        self.registry = client.CollectorRegistry()
        #: what counters of other parts said last
        self._counts: dict[tuple[Any, str], int] = {}
        self._chosen: dict[tuple[Any, str], str] = {}

        def made(kind: Any, name: str, documentation: str, labels: Iterable[str] = (), **options: Any) -> Any:
            return kind(f"harken_{name}", documentation, [*labels], registry=self.registry, **options)

        self._build = made(client.Gauge, "build_info", "Version of Harken; always 1.", ["version"])
        self._build.labels(__version__).set(1)
        self._start = made(client.Gauge, "start_time_seconds", "When the monitor began, since 1970.")
        self._start.set_to_current_time()
        self._windows = made(client.Counter, "windows", "Windows judged, by verdict.", ["machine", "verdict"])
        self._score = made(client.Gauge, "score", "Anomaly score of the latest window.", ["machine"])
        self._p_value = made(client.Gauge, "p_value", "Probability that normal sound scores as high.", ["machine"])
        self._judged = made(
            client.Gauge, "last_window_timestamp_seconds", "End of the latest judged window, since 1970.", ["machine"]
        )
        self._lag = made(
            client.Histogram, "lag_seconds", "From the end of a window to its verdict.", ["machine"], buckets=_LAGS
        )
        self._alarm = made(client.Gauge, "alarm_active", "1 while the machine has an alarm.", ["machine"])
        self._state = made(client.Gauge, "alarm_state", "1 for the state of the alarm.", ["machine", "state"])
        self._sensor = made(client.Gauge, "sensor_status", "1 for the status of the sensor.", ["machine", "status"])
        self._source = made(client.Gauge, "source_up", "1 while the source gives sound.", ["source"])
        self._lost = made(client.Counter, "lost_windows", "Windows that came faster than judged.", ["source"])
        self._restarts = made(client.Counter, "source_restarts", "How often sources were begun again.", ["source"])
        self._source_failures = made(
            client.Gauge, "source_failures", "Failures since the source last gave sound for a minute.", ["source"]
        )
        self._store_errors = made(client.Counter, "store_errors", "How often the store could not be used.")
        client.ProcessCollector(registry=self.registry)
        self.registry.register(_Deliveries(deliveries, waiting))

    def judged(self, heard: HeardWindow, lag_s: float) -> None:
        """A window has its verdict, `lag_s` after its end."""
        machine, verdict = heard.machine, heard.verdict
        self._windows.labels(machine, verdict.kind.replace(" ", "_")).inc()
        if verdict.score is not None:
            self._score.labels(machine).set(verdict.score)
        if verdict.p_value is not None:
            self._p_value.labels(machine).set(verdict.p_value)
        self._judged.labels(machine).set(heard.window.end.timestamp())
        self._lag.labels(machine).observe(max(lag_s, 0.0))

    def machine(self, machine: str, alarm: AlarmState, sensor: SensorState) -> None:
        """How the alarm and the sensor of a machine are."""
        self._alarm.labels(machine).set(alarm.on and not alarm.hidden)
        self._choose(self._state, machine, alarm.display)
        self._choose(self._sensor, machine, "off" if sensor.off and sensor.trusted else sensor.status)

    def source(self, name: str, status: SourceStatus) -> None:
        """How a source is, and what it has counted."""
        self._source.labels(name).set(status.good)
        self._source_failures.labels(name).set(status.failures)
        self._rise(self._restarts, name, status.restarts)
        self._rise(self._lost, name, sum(lost for _, lost in status.lost_windows))

    def store(self, failures: int) -> None:
        """How often the store could not be used so far."""
        key = (self._store_errors, "")
        self._store_errors.inc(max(0, failures - self._counts.get(key, 0)))
        self._counts[key] = failures

    def _rise(self, counter: Any, name: str, count: int) -> None:
        """Bring a counter to what was counted elsewhere."""
        key = (counter, name)
        counter.labels(name).inc(max(0, count - self._counts.get(key, 0)))
        self._counts[key] = count

    def _choose(self, gauge: Any, machine: str, value: str) -> None:
        """1 for the value, 0 for that before it."""
        label = value.replace(" ", "_").replace("-", "_")
        before = self._chosen.get((gauge, machine))
        if before == label:
            return
        if before is not None:
            gauge.labels(machine, before).set(0)
        gauge.labels(machine, label).set(1)
        self._chosen[gauge, machine] = label


class _Deliveries:
    """Numbers of sinks, read when they are asked for."""

    def __init__(
        self, deliveries: Callable[[], Mapping[str, DeliveryState]], waiting: Callable[[], Mapping[str, int]]
    ) -> None:
        self._deliveries = deliveries
        self._waiting = waiting

    def collect(self) -> Iterator[Any]:
        core = need("prometheus_client.core", "metrics")
        delivered = core.CounterMetricFamily("harken_messages_delivered", "Messages delivered.", labels=["sink"])
        refused = core.CounterMetricFamily("harken_messages_refused", "Messages refused for good.", labels=["sink"])
        failing = core.GaugeMetricFamily("harken_sink_failures", "Failed attempts in a row.", labels=["sink"])
        waiting = core.GaugeMetricFamily("harken_messages_waiting", "Messages still to deliver.", labels=["sink"])
        for sink, state in self._deliveries().items():
            delivered.add_metric([sink], state.delivered)
            refused.add_metric([sink], state.refused)
            failing.add_metric([sink], state.failures)
        for sink, count in self._waiting().items():
            waiting.add_metric([sink], count)
        yield from (delivered, refused, failing, waiting)
