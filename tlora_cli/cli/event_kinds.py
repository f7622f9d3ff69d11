"""The fields of the objects of `--json`, and the values that they have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tlora_cli.foundation.errors import Status

Kind = dict[str, Any]
"""A JSON schema of a value."""
TEXT: Kind = {"type": "string"}
TEXT_OR_NONE: Kind = {"type": ["string", "null"]}
WHOLE: Kind = {"type": "integer"}
WHOLE_OR_NONE: Kind = {"type": ["integer", "null"]}
NUMBER: Kind = {"type": "number"}
NUMBER_OR_NONE: Kind = {"type": ["number", "null"]}
TRUTH: Kind = {"type": "boolean"}
TEXTS: Kind = {"type": "array", "items": TEXT}
KINDS: Kind = {"enum": [status.word for status in Status]}
STATUSES: Kind = {"enum": [int(status) for status in Status]}


def one_of(*words: str | None) -> Kind:
    """Return the schema of one of a few words."""
    return {"enum": list(words)}


def objects(**fields: Kind) -> Kind:
    """Return the schema of an array of objects that all have these fields."""
    one = {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }
    return {"type": "array", "items": one}


@dataclass(frozen=True)
class Field:
    """A field of an object.

    Attributes:
        kind: what values it has; all objects of an event have all of its fields.
        about: what it says.
    """

    kind: Kind
    about: str


@dataclass(frozen=True)
class Event:
    """A kind of object.

    Attributes:
        about: when it is printed.
        commands: that print it; empty for all.
        fields: its own, beside those of every object.
    """

    about: str
    commands: tuple[str, ...] = ()
    fields: Mapping[str, Field] = field(default_factory=dict)
