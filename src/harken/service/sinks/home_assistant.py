"""What describes a machine to Home Assistant, so that it makes its entities itself.

https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

#: where Home Assistant says that it has started
STATUS_TOPIC = "{prefix}/status"


def discovery(prefix: str, base: str, monitor: str, machine: str, version: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(topic, payload) of the entities of a machine: whether it has an alarm, the alarm's state, the sensor's status.

    base: topic of the monitor.
    """
    node = _identifier(f"harken_{monitor}_{machine}")
    common: dict[str, Any] = {
        "availability_topic": f"{base}/status",
        "device": {
            "identifiers": [node],
            "name": machine,
            "manufacturer": "Harken",
            "model": f"monitor {monitor}",
            "sw_version": version,
        },
        "origin": {"name": "Harken", "sw_version": version},
    }
    alarm_topic, sensor_topic = f"{base}/{machine}/alarm", f"{base}/{machine}/sensor"
    active = "{{ 'ON' if value_json.active else 'OFF' }}"
    yield (
        f"{prefix}/binary_sensor/{node}/alarm/config",
        {
            **common,
            "name": "Alarm",
            "unique_id": f"{node}_alarm",
            "device_class": "problem",
            "state_topic": alarm_topic,
            "value_template": active,
            "json_attributes_topic": alarm_topic,
        },
    )
    yield (
        f"{prefix}/sensor/{node}/state/config",
        {
            **common,
            "name": "Alarm state",
            "unique_id": f"{node}_state",
            "icon": "mdi:bell",
            "state_topic": alarm_topic,
            "value_template": "{{ value_json.state }}",
        },
    )
    yield (
        f"{prefix}/sensor/{node}/sensor/config",
        {
            **common,
            "name": "Sensor",
            "unique_id": f"{node}_sensor",
            "entity_category": "diagnostic",
            "icon": "mdi:microphone",
            "state_topic": sensor_topic,
            "value_template": "{{ value_json.status }}",
            "json_attributes_topic": sensor_topic,
        },
    )


def _identifier(name: str) -> str:
    """The name in the letters that discovery topics may have; different names stay different."""
    return re.sub(r"[^A-Za-z0-9_]", lambda match: f"-{ord(match[0]):x}", name)
