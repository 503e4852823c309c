"""Messages as people read them: a title and plain sentences, from one template per kind of message."""

from __future__ import annotations

from functools import cache
from typing import Any

from harken.service.records import Message

#: kind of message -> title and text
TEMPLATES = {
    "alarm": (
        "{{ machine }}: {{ headline }}",
        "{{ sentence }}"
        "{% if why and event in ('raised', 'noted', 'recurred') %} Heard: {{ why }}.{% endif %}"
        "{% if since and event in ('raised', 'noted', 'recurred', 'lasting') %} Since {{ since }}.{% endif %}"
        "{% if person %} By {{ person }}.{% endif %}"
        "{% if note %} {{ note }}{% endif %}",
    ),
    "sensor": ("{{ machine }}: sensor {{ status }}", "{{ sentence }}"),
    "source": ("source {{ source }}: {{ state }}", "{{ sentence }}"),
    "service": ("Harken: {{ headline or 'message' }}", "{{ sentence }}"),
}


def title_and_text(message: Message) -> tuple[str, str]:
    """For people; kinds without a template give their payload's `sentence`."""
    title, text = _templates().get(message.kind, _templates()["service"])
    values = {"machine": message.machine, "time": message.time, "kind": message.kind, **message.payload}
    return title.render(values).strip(), text.render(values).strip()


@cache
def _templates() -> dict[str, tuple[Any, Any]]:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(autoescape=False)
    return {
        kind: (environment.from_string(title), environment.from_string(text))
        for kind, (title, text) in TEMPLATES.items()
    }
