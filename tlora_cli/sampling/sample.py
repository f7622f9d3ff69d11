"""Draw pictures with an adapter file: `tlora sample`, and `sample` of the library."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from tlora_cli.foundation.errors import UserError, known_names
from tlora_cli.foundation.number_formats import DEVICES, QUANTIZATIONS, TORCH_NAMES
from tlora_cli.sampling.generate import Drawn, generate
from tlora_cli.sampling.joining import Named, named_adapter
from tlora_cli.sampling.session import Request


def sample(
    adapter: str | Path | Sequence[str | Path],
    prompts: str | Sequence[str],
    output: str | Path = "samples",
    *,
    seed: int = 0,
    count: int = 1,
    width: int | None = None,
    height: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    negative_prompt: str | None = None,
    scheduler: str | None = None,
    scale: float = 1.0,
    min_rank: int | None = None,
    concept: str | None = None,
    base: str | None = None,
    base_config: str | None = None,
    precision: str | None = None,
    quantization: str | None = None,
    offload: bool = False,
    device: str = "auto",
    batch_size: int = 1,
    anyway: bool = False,
    contact_sheet: bool = False,
    notify: Callable[[str], None] | None = None,
    drawn: Drawn | None = None,
) -> list[Path]:
    """Draw pictures with an adapter file; what is None is as the file says.

    Args:
        adapter: the file, or `FILE:STRENGTH`; several are drawn with together.
        prompts: one or several; V* is the concept.
        output: folder for the pictures.
        seed: of the first picture of a prompt; the next ones have the next seeds.
        count: pictures per prompt.
        width: pixels.
        height: pixels.
        steps: denoising steps.
        guidance: guidance scale.
        negative_prompt: what not to show.
        scheduler: a sampler of the family, such as `ddim`.
        scale: adapter strength; 1 is as trained, 0 the base model.
        min_rank: least rank, for files that don't say.
        concept: words for V*, such as "sks dog".
        base: base model, over the one that the file names.
        base_config: configuration folder of a single-file base.
        precision: `fp32`, `bf16` or `fp16`.
        quantization: of the base: `none`, `nf4` or `int8`.
        offload: let the base's blocks wait in main memory, for a small card.
        device: `auto`, `cpu` or `cuda`.
        batch_size: pictures drawn together.
        anyway: draw prompts as they stand, also without the concept.
        contact_sheet: also write all pictures on one sheet.
        notify: told what is loaded and written, and warnings; default: standard error.
        drawn: told each file as it is written, in place of `notify`, with its prompt and seed.

    Returns:
        The PNG files in the order of prompts and seeds, the contact sheet last.

    Raises:
        UserError: for a file, base, prompt or setting that doesn't fit.
    """
    _check("precision", precision, TORCH_NAMES)
    _check("quantization", quantization, QUANTIZATIONS)
    _check("device", device, DEVICES)
    first, *others = _named([adapter] if isinstance(adapter, str | Path) else adapter)
    request = Request(
        adapter=first.path,
        strength=first.strength,
        others=others,
        prompts=[prompts] if isinstance(prompts, str) else prompts,
        output=Path(output),
        seed=seed,
        count=count,
        scale=scale,
        min_rank=min_rank,
        concept=concept,
        base=base,
        base_config=base_config,
        precision=precision,
        quantization=quantization,
        offload=offload,
        device=device,
        batch_size=batch_size,
        sheet=contact_sheet,
        anyway=anyway,
        settings={
            "width": width,
            "height": height,
            "steps": steps,
            "guidance": guidance,
            "negative_prompt": negative_prompt,
            "scheduler": scheduler,
        },
    )
    return generate(request, notify or _to_standard_error, drawn)


def _named(adapters: Sequence[str | Path]) -> list[Named]:
    if not adapters:
        raise UserError("no adapter was given", do="name its file")
    return [named_adapter(one) if isinstance(one, str) else Named(one) for one in adapters]


def _check(name: str, value: str | None, known: Collection[str]) -> None:
    if value is not None and value not in known:
        raise UserError(f"{name} {value!r} is not known", do=known_names(str(value), known))


def _to_standard_error(line: str) -> None:
    print(line, file=sys.stderr)
