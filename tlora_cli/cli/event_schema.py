"""The schema that holds the objects of `--json`, and the check of those that are printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlora_cli.cli.event_kinds import Event
from tlora_cli.cli.events import COMMON, EVENTS


def check_event(name: str, fields: Mapping[str, Any]) -> None:
    """Raise a ValueError if an event is not known, or its fields are others than those."""
    known = EVENTS[name].fields.keys() if name in EVENTS else None
    if known != fields.keys():
        raise ValueError(f"the event {name} has {sorted(fields)}, and should have {known}")


def schema() -> dict[str, Any]:
    """Return the JSON schema of one object, that is, of one line."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What tlora prints with --json: one object a line",
        "oneOf": [_object(name, event) for name, event in EVENTS.items()],
    }


def _object(name: str, event: Event) -> dict[str, Any]:
    fields = {**COMMON, **event.fields}
    properties = {key: {**one.kind, "description": one.about} for key, one in fields.items()}
    properties["event"] = {"const": name}
    if event.commands:
        properties["command"] = {"enum": list(event.commands)}
    return {
        "title": name,
        "description": event.about,
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
