"""The formats by name; listing them loads nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlora_cli.foundation.packages import PRODUCT
from tlora_cli.foundation.plugins import Registry

if TYPE_CHECKING:
    from tlora_cli.formats.spec import Format

FORMATS: Registry[Format] = Registry(
    "tlora.formats",
    {
        PRODUCT: "tlora_cli.formats.tlora_file:TLORA_FILE",
        "diffusers": "tlora_cli.formats.peft:PEFT",
        "peft": "tlora_cli.formats.peft_folder:PEFT_FOLDER",
        "kohya": "tlora_cli.formats.kohya:KOHYA",
        "comfyui": "tlora_cli.formats.comfyui.export:COMFYUI",
        "lycoris": "tlora_cli.formats.lycoris:LYCORIS",
        "published": "tlora_cli.formats.published:PUBLISHED",
        "embedding": "tlora_cli.formats.embedding:EMBEDDING",
    },
)
"""Name, as `tlora convert --to` takes it -> format; the first is tlora's own."""
