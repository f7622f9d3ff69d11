#!/usr/bin/env python3
"""Write docs/json.md and docs/json.schema.json from `tlora_cli/cli/events.py`.

python scripts/json_reference.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from textwrap import fill

from tlora_cli.cli.event_kinds import Event, Field
from tlora_cli.cli.event_schema import schema
from tlora_cli.cli.events import COMMANDS, COMMON, EVENTS, VERSION
from tlora_cli.foundation.files import write_text

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, SCHEMA = DOCS / "json.md", DOCS / "json.schema.json"

HEAD = f"""# For programs: `--json`

```bash
tlora train --config configs/toy_sdxl.yaml --json
```

prints one JSON object a line on standard output, and nothing for people. These commands do so:

{fill(", ".join(f"`{name}`" for name in COMMANDS[:-1]) + f" and `{COMMANDS[-1]}`.", 100)}

The [schema](json.schema.json) (JSON Schema 2020-12) holds each line. `tlora doctor --json` and
`tlora toyworld gate --json` are older: each prints one object over several lines, of its own kind.

- The last object is `end`, with the exit status of [the table](service.md#exit-status). Where it
  is missing, the process was killed.
- Version {VERSION}: names and meanings stay. Fields and events may be added within a version, so
  leave alone what you don't know. A name that goes or means something else is a new version.
- Words in `text`, `what`, `where`, `fix`, `about`, `notes`, `doubt` and `verdict` are for people
  and may change; `kind`, `status`, `level` and `state` are for programs.
- Numbers that are not finite are null.

`--quiet` leaves results, warnings and errors, in text as with `--json`; `--log-level` is finer:
`debug` (tracebacks and the libraries' own notices, as `TLORA_DEBUG=1`), `info`, `warning` (as
`--quiet`), `error`. Every command has both. Results and errors are printed at any level.

`python scripts/json_reference.py` writes what follows.

## Every object

"""


def page() -> str:
    """Return the page."""
    lines = [*_table(COMMON), "", "## Events", ""]
    for name, event in EVENTS.items():
        lines += _section(name, event)
    return HEAD + "\n".join(lines).rstrip() + "\n"


def schema_text() -> str:
    """Return the schema as a file."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def _section(name: str, event: Event) -> list[str]:
    said = ", ".join(f"`{one}`" for one in event.commands) or "every command"
    return [
        f"### `{name}`",
        "",
        fill(f"{event.about[0].upper()}{event.about[1:]}. Printed by {said}.", 100),
        "",
        *_table(event.fields),
        "",
    ]


def _table(fields: Mapping[str, Field]) -> list[str]:
    rows = [f"| `{name}` | {_kind(one)} | {one.about} |" for name, one in fields.items()]
    return ["| field | values | |", "|---|---|---|", *rows]


def _kind(field: Field) -> str:
    kind = field.kind
    if "const" in kind:
        return f"`{kind['const']}`"
    if "enum" in kind:
        return ", ".join(f"`{json.dumps(one)}`" for one in kind["enum"]).replace('"', "")
    names = kind["type"] if isinstance(kind["type"], list) else [kind["type"]]
    if kind["type"] == "array":
        return f"array of {kind['items']['type']}s"
    return " or ".join(names)


if __name__ == "__main__":
    write_text(PAGE, page())
    write_text(SCHEMA, schema_text())
