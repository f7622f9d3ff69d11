"""The objects that `--json` prints: their names, their fields, and the schema that holds them.

docs/json.md and docs/json.schema.json are written from here by `scripts/json_reference.py`. A field
or an event that is added leaves the version as it is; one that is renamed or removed, or that means
something else, is a new version.
"""

from __future__ import annotations

from tlora_cli.cli.event_kinds import (
    KINDS,
    NUMBER,
    NUMBER_OR_NONE,
    STATUSES,
    TEXT,
    TEXT_OR_NONE,
    TEXTS,
    TRUTH,
    WHOLE,
    WHOLE_OR_NONE,
    Event,
    Field,
    objects,
    one_of,
)

VERSION = 1
"""The version of the objects; every one says it."""

COMMANDS = (
    "batch",
    "compare",
    "convert",
    "evaluate",
    "init",
    "mask",
    "merge",
    "publish",
    "recipe check",
    "sample",
    "study report",
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
        "what ended the command, or, in `recipe check` and `mask`, what is wrong with a file",
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
        "one thing that was looked at before a run, or why a recipe is as it is",
        ("train", "validate", "batch", "init"),
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
                objects(key=TEXT, line=WHOLE_OR_NONE, set=TEXT_OR_NONE, text=TEXT),
                "each with its dotted `key`, its `line` or the `--set` it comes from, and `text`",
            ),
        },
    ),
    "initialized": Event(
        "the recipe was written",
        ("init",),
        {
            "recipe": Field(TEXT, "the new file"),
            "base": Field(TEXT, "the base model that it names"),
            "family": Field(TEXT, "of that model"),
            "next": Field(TEXT, "the command that trains"),
        },
    ),
    "mask": Event(
        "the mask of a photo was written",
        ("mask",),
        {
            "photo": Field(TEXT, "the photo"),
            "mask": Field(TEXT, "its mask, white on the subject"),
            "overlay": Field(TEXT, "a picture to look at"),
            "coverage": Field(NUMBER, "share of the photo that the subject takes"),
            "by": Field(TEXT, "what found it"),
            "doubt": Field(TEXT_OR_NONE, "why it is hardly right; null if nothing is wrong"),
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
    "merged": Event(
        "the model was written",
        ("merge",),
        {
            "output": Field(TEXT, "the new file or folder"),
            "dtype": Field(TEXT, "number format of its weights"),
            "notes": Field(TEXTS, "what was merged, and what to know about it"),
        },
    ),
    "published": Event(
        "the folder was written, and uploaded if that was asked for",
        ("publish",),
        {
            "folder": Field(TEXT, "the new folder"),
            "card": Field(TEXT, "its model card"),
            "page": Field(TEXT, "the card as a page to look at"),
            "address": Field(TEXT_OR_NONE, "of the repository; null if nothing was uploaded"),
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
    "studied": Event(
        "page and tables of the study are written",
        ("study report",),
        {
            "files": Field(TEXTS, "page and tables"),
            "verdict": Field(TEXTS, "what the answers say, in sentences"),
            "shares": Field(
                objects(
                    first=TEXT,
                    other=TEXT,
                    question=TEXT,
                    share=NUMBER_OR_NONE,
                    low=NUMBER_OR_NONE,
                    high=NUMBER_OR_NONE,
                    answers=WHOLE,
                ),
                "of answers that prefer `first` over `other`, with the ends of the 95% interval",
            ),
            "left_out": Field(TEXTS, "raters who seem not to have looked"),
        },
    ),
}
"""Name -> what it is. Printing another, or other fields, is a fault that `check_event` tells of."""
