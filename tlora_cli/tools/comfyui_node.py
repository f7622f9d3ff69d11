"""`tlora comfyui`: the node and its workflows into a ComfyUI folder."""

from __future__ import annotations

import json
from pathlib import Path

from tlora_cli.families import FAMILIES
from tlora_cli.formats.comfyui.workflow import node_workflow
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import write_text
from tlora_cli.foundation.packages import PRODUCT

SOURCE = Path(__file__).parent.parent / "formats" / "comfyui" / "node"
WORKFLOWS = "workflows"
ADAPTER, PROMPT = "adapter.safetensors", "a photo of sks dog in the snow"
"""The file and the prompt in the workflows, to be chosen and written anew there."""


def install(comfyui: Path) -> Path:
    """Write the node into a ComfyUI folder, over an older one of tlora; return its folder.

    Args:
        comfyui: the folder that has `custom_nodes`.

    Raises:
        UserError: if it is no ComfyUI folder, or `custom_nodes/tlora` holds files of others.
    """
    nodes = comfyui / "custom_nodes"
    if not nodes.is_dir():
        raise UserError(
            f"{comfyui} has no folder custom_nodes",
            where="PATH",
            do="name ComfyUI's own folder, the one that main.py lies in; on Windows' portable "
            "version it is ComfyUI_windows_portable/ComfyUI",
        )
    folder, files = nodes / PRODUCT, _files()
    strange = [name for name in _present(folder) if name not in files]
    if strange:
        raise UserError(
            f"{folder} holds files that are not of the node, such as {strange[0]}; nothing was "
            "written",
            do="move them elsewhere, or remove the folder",
        )
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return folder


def _files() -> dict[str, str]:
    """Return path within the node's folder -> text."""
    files = {path.name: path.read_text(encoding="utf-8") for path in sorted(SOURCE.glob("*.py"))}
    for name, family in FAMILIES.items():
        if family.comfyui:
            told = json.dumps(node_workflow(family.comfyui, ADAPTER, PROMPT), indent=1)
            files[f"{WORKFLOWS}/{name}.json"] = told + "\n"
    return files


def _present(folder: Path) -> list[str]:
    """Return the paths that are there, without what Python keeps of its own."""
    return [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
