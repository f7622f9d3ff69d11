"""The part of a model card that says how to use the adapter, in code that runs as it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tlora_cli.families import FAMILIES
from tlora_cli.formats.weights import AdapterWeights
from tlora_cli.foundation.bundled import is_base

ADAPTER = "pytorch_lora_weights.safetensors"
"""The adapter's name in the folder: the one that diffusers looks for by itself."""


def use_section(
    weights: AdapterWeights,
    base: str,
    concept: str,
    files: Mapping[str, str],
    repository: str | None,
) -> str:
    """Return Markdown with a part for each tool that can use it.

    Args:
        weights: of the adapter.
        base: public name of the base model.
        concept: words for it; may be empty.
        files: name of a format -> its path in the folder.
        repository: OWNER/NAME, if it is known.
    """
    parts = ["## Use"]
    if concept:
        parts.append(f"Write `{_code(concept)}` in the prompt; in tlora, `V*` stands for it.")
    prompt = _code(f"a photo of a {concept or 'dog'} in the snow")
    parts.append(_tlora(base, prompt, "V*" if concept else "dog", repository))
    if weights.words:
        parts.append(
            "The adapter has also learned this word, which tlora alone reads from the file. For "
            "other programs write it by itself: `tlora convert --to embedding`."
        )
    if weights.low_rank:
        masked = weights.schedule is not None and not weights.schedule.always_full
        parts.append(_diffusers(base, prompt, masked, repository))
        known = FAMILIES[weights.family or ""].comfyui and not is_base(base)
        if files or known:  # of the built-in bases other tools know nothing
            parts.append(_comfyui(files, masked))
    return "\n\n".join(filter(None, parts))


def _tlora(base: str, prompt: str, mark: str, repository: str | None) -> str:
    fetch = f"hf download {repository} {ADAPTER} --local-dir .\n" if repository else ""
    return (
        "### tlora\n\n"
        f"```bash\n{fetch}tlora sample --adapter {ADAPTER} --prompt "
        f'"a photo of a {mark} in the snow"\n```\n\n'
        f"```python\n{_pipeline(base, 'import tlora_cli as tlora')}"
        f'tlora.load_adapter(pipe, "{ADAPTER}")\n'
        f"{_draw(prompt)}```"
    )


def _diffusers(base: str, prompt: str, masked: bool, repository: str | None) -> str:
    without = "\n\nWithout the rank schedule: all ranks at every timestep." if masked else ""
    return (
        f"### diffusers{without}\n\n"
        f"```python\n{_pipeline(base)}"
        f'pipe.load_lora_weights("{repository or "."}", weight_name="{ADAPTER}")\n'
        f"{_draw(prompt)}```"
    )


def _pipeline(base: str, more: str = "") -> str:
    """Return the lines that load the base."""
    name = f'"{base}"'
    imports = ["from diffusers import DiffusionPipeline"]
    if is_base(base):
        imports.append("from tlora_cli.foundation.bundled import model_folder")
        name = f'model_folder("{base}")'
    lines = ["import torch", "\n".join(imports), *([more] if more else [])]
    dtype = "torch.float32" if is_base(base) else "torch.bfloat16"
    lines.append(f"\npipe = DiffusionPipeline.from_pretrained({name}, torch_dtype={dtype})")
    lines.append('pipe.to("cuda" if torch.cuda.is_available() else "cpu")')
    return "\n".join(lines) + "\n"


def _draw(prompt: str) -> str:
    return f'pipe({json.dumps(prompt, ensure_ascii=False)}).images[0].save("picture.png")\n'


def _comfyui(files: Mapping[str, str], masked: bool) -> str:
    parts = ["### ComfyUI and others"]
    if "comfyui" in files:
        parts.append(
            f"Copy the LoRA files of `{files['comfyui']}` into `models/loras` and drop its "
            "`workflow.json` onto ComfyUI's page; it keeps the rank schedule without a custom node."
        )
    elif masked:
        parts.append(
            "A node for ComfyUI that loads the adapter under its rank schedule, and a workflow "
            "that keeps it without one:\n\n"
            "```bash\ntlora comfyui ~/ComfyUI\n```\n\n"
            f"```bash\ntlora convert {ADAPTER} --to comfyui --output comfyui\n```"
        )
    if "kohya" in files:
        lost = ", without the rank schedule" if masked else ""
        parts.append(f"`{files['kohya']}` is a plain LoRA in kohya's names{lost}.")
    return "\n\n".join(parts) if len(parts) > 1 else ""


def _code(text: str) -> str:
    """Return text that can't end a block of code."""
    return " ".join(text.replace("`", "'").split())
