"""The objects that `--json` prints: their names, their fields, and the schema that holds them.

docs/json.md and docs/json.schema.json are written from here by `scripts/json_reference.py`. A field
or an event that is added leaves the version as it is; one that is renamed or removed, or that means
something else, is a new version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tlora_cli.foundation.errors import Status

VERSION = 1
"""The version of the objects; every one says it."""

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


COMMANDS = (
    "batch",
    "compare",
    "convert",
    "evaluate",
    "recipe check",
    "sample",
    "train",
    "validate",
)
"""Commands that have `--json` of this kind."""

COMMON = {
    "version": Field({"const": VERSION}, "of these objects"),
    "command": Field({"enum": list(COMMANDS)}, "that prints it"),
    "event": Field(TEXT, "the kind of object; the other fields follow from it"),
}

EVENTS = {
    "message": Event(
        "words for people: what is loaded, drawn or doubted",
        fields={
            "level": Field(one_of("debug", "info", "warning"), "the least `--log-level` for it"),
            "text": Field(TEXT, "the words; they may change"),
        },
    ),
    "error": Event(
        "what ended the command, or, in `recipe check`, what is wrong with a file",
        fields={
            "status": Field(STATUSES, "the exit status it means"),
            "kind": Field(KINDS, "its name"),
            "what": Field(TEXT, "what is wrong"),
            "where": Field(TEXT, "the file, key or line it concerns; empty if `what` says it"),
            "fix": Field(TEXT, "what to do; empty if that is not known"),
        },
    ),
    "stopped": Event(
        "a signal stopped the command",
        fields={
            "signal": Field(TEXT, "its name, such as SIGTERM"),
            "text": Field(TEXT, "what is kept, and how to go on"),
        },
    ),
    "end": Event(
        "the last object of every command that is not killed",
        fields={
            "status": Field(STATUSES, "the exit status"),
            "kind": Field(KINDS, "its name"),
        },
    ),
    "finding": Event(
        "one thing that was looked at before a run",
        ("train", "validate", "batch"),
        {
            "level": Field(one_of("ok", "warning", "problem"), "problem: the run would fail"),
            "about": Field(TEXT, "what was looked at, in a word or two"),
            "text": Field(TEXT, "what was found"),
            "fix": Field(TEXT, "what to do; empty if nothing"),
            "kind": Field({"enum": [*KINDS["enum"], None]}, "of a problem, else null"),
        },
    ),
    "summary": Event(
        "the end of the findings",
        ("validate",),
        {
            "problems": Field(WHOLE, "how many"),
            "warnings": Field(WHOLE, "how many"),
            "next": Field(TEXT_OR_NONE, "the command that trains; null if there is a problem"),
        },
    ),
    "run": Event(
        "a training begins",
        ("train",),
        {
            "folder": Field(TEXT, "the run folder"),
            "recipe": Field(TEXT, "the recipe file"),
            "steps": Field(WHOLE, "of the whole run"),
        },
    ),
    "step": Event(
        "a step was made, not in each step's own moment: losses are read when the device has them",
        ("train",),
        {
            "step": Field(WHOLE, "its number, from 1"),
            "steps": Field(WHOLE, "of the whole run"),
            "loss": Field(NUMBER_OR_NONE, "mean of the step; null if it is not finite"),
            "lr": Field(NUMBER, "learning rate"),
            "active_rank": Field(NUMBER_OR_NONE, "mean of the step; null without ranks"),
            "seconds": Field(NUMBER, "in steps since the run began, over all its starts"),
            "memory_gb": Field(NUMBER, "peak of the card, or of the process without one"),
        },
    ),
    "trained": Event(
        "the run is complete",
        ("train",),
        {
            "adapter": Field(TEXT, "the adapter file"),
            "report": Field(TEXT, "the page of the run"),
            "folder": Field(TEXT, "the run folder"),
            "step": Field(WHOLE, "the last one"),
        },
    ),
    "picture": Event(
        "a picture was written",
        ("sample",),
        {
            "file": Field(TEXT, "the PNG"),
            "prompt": Field(TEXT_OR_NONE, "that it was drawn from; null for a contact sheet"),
            "seed": Field(WHOLE_OR_NONE, "likewise"),
        },
    ),
    "recipe": Event(
        "a recipe was checked",
        ("recipe check",),
        {
            "file": Field(TEXT, "the recipe"),
            "ok": Field(TRUTH, "whether nothing is wrong with it"),
            "mistakes": Field(
                {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "key": TEXT,
                            "line": WHOLE_OR_NONE,
                            "set": TEXT_OR_NONE,
                            "text": TEXT,
                        },
                        "required": ["key", "line", "set", "text"],
                        "additionalProperties": False,
                    },
                },
                "each with its dotted `key`, its `line` or the `--set` it comes from, and `text`",
            ),
        },
    ),
    "converted": Event(
        "the file was written",
        ("convert",),
        {
            "output": Field(TEXT, "the new file or folder"),
            "format": Field(TEXT, "as `--to` names it"),
            "text": Field(TEXT, "what it holds, in words"),
            "notes": Field(TEXTS, "what to know about it"),
        },
    ),
    "progress": Event(
        "so many are done",
        ("evaluate",),
        {
            "done": Field(WHOLE, "pictures that are there"),
            "total": Field(WHOLE, "pictures in all"),
        },
    ),
    "evaluated": Event(
        "the scores are written",
        ("evaluate",),
        {
            "output": Field(TEXT, "the folder of results"),
            "page": Field(TEXT, "the page that shows them"),
            "scores": Field(
                {"type": "object", "additionalProperties": NUMBER_OR_NONE},
                "metric -> value; null where there is no number",
            ),
            "notes": Field(TEXTS, "what some of them are, and what others would need"),
        },
    ),
    "cell": Event(
        "a run of a comparison, or a photo of a batch, has begun or ended",
        ("compare", "batch"),
        {
            "name": Field(TEXT, "of the run: its folder is named so"),
            "state": Field(one_of("started", "done", "failed"), "what became of it"),
            "error": Field(TEXT, "why it failed; empty if it hasn't"),
            "kind": Field({"enum": [*KINDS["enum"], None]}, "of the failure, else null"),
        },
    ),
    "compared": Event(
        "tables and page are written",
        ("compare",),
        {
            "files": Field(TEXTS, "tables and page"),
            "finished": Field(WHOLE, "runs with a result"),
            "failed": Field(WHOLE, "runs that failed"),
        },
    ),
    "batched": Event(
        "the table is written",
        ("batch",),
        {
            "table": Field(TEXT, "a CSV file with a row a photo"),
            "finished": Field(WHOLE, "photos with an adapter"),
            "failed": Field(WHOLE, "photos without one"),
        },
    ),
}
"""Name -> what it is. Printing another, or other fields, is a fault that `check_event` tells of."""


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
