"""Prompts, seeds and settings -> pictures. Previews and `tlora sample` both draw through here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from tlora_cli.families import Conditioning, Family
from tlora_cli.families.text_rows import joined
from tlora_cli.foundation.files import write_atomically
from tlora_cli.foundation.packages import PRODUCT
from tlora_cli.injection.adapter import Adapter


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of drawing; width and height in pixels."""

    steps: int
    guidance: float
    scheduler: str
    negative_prompt: str
    width: int
    height: int


@dataclass(frozen=True)
class Job:
    """One picture to draw."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Texts:
    """Embeddings of every prompt and of the negative one."""

    prompts: Mapping[str, Conditioning]
    negative: Conditioning | None

    def rows(self, jobs: Sequence[Job]) -> tuple[Conditioning, Conditioning | None]:
        """Return the conditioning of the jobs, one row each."""
        positive = joined([self.prompts[job.prompt] for job in jobs])
        if self.negative is None:
            return positive, None
        return positive, {k: v.expand(len(jobs), *v.shape[1:]) for k, v in self.negative.items()}


@torch.no_grad()
def encode_texts(
    family: Family, pipeline: Any, prompts: Sequence[str], negative_prompt: str
) -> Texts:
    """Encode each prompt once, and alone, so that a prompt's embedding depends on nothing else.

    Of what the encoders cut off is told beforehand (`families.text_length`).
    """
    encoded = {
        prompt: family.encode_prompts(pipeline, [prompt]) for prompt in dict.fromkeys(prompts)
    }
    return Texts(encoded, family.encode_negative(pipeline, negative_prompt))


@torch.no_grad()
def draw(
    family: Family,
    pipeline: Any,
    adapter: Adapter | None,
    texts: Texts,
    jobs: Sequence[Job],
    settings: SamplingSettings,
    batch_size: int = 1,
) -> Iterator[tuple[Job, Image.Image]]:
    """Draw the jobs in order with the stock pipeline.

    A picture's noise comes from its own seeded CPU generator, so it depends neither on the device
    nor on what else is drawn.
    """
    own_scheduler = pipeline.scheduler
    pipeline.scheduler = family.sampler(settings.scheduler, own_scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    try:
        for first in range(0, len(jobs), batch_size):
            batch = jobs[first : first + batch_size]
            positive, negative = texts.rows(batch)
            with adapter.frozen() if adapter else nullcontext():
                latents = family.sample(
                    pipeline,
                    positive,
                    negative,
                    width=settings.width,
                    height=settings.height,
                    steps=settings.steps,
                    guidance=settings.guidance,
                    generators=[torch.Generator().manual_seed(job.seed) for job in batch],
                )
            yield from zip(batch, family.decode(pipeline.vae, latents), strict=True)
    finally:
        pipeline.scheduler = own_scheduler


# --- files ------------------------------------------------------------------------------------


def describe(
    adapter: Adapter | None, base: str, revision: str | None, precision: str, **more: Any
) -> dict[str, Any]:
    """Return what a picture's metadata says beside prompt, seed and settings."""
    about: dict[str, Any] = {"base": base, "base_revision": revision, "precision": precision}
    if adapter is not None:
        about.update(
            method=adapter.info.method,
            scale=adapter.scale,
            train_steps=adapter.info.train_steps,
            quantization=adapter.info.quantization,
        )
        if schedule := adapter.schedule:
            about.update(rank=schedule.rank, min_rank=schedule.min_rank, schedule=schedule.title)
    return {**about, **more}


def save_picture(
    folder: Path, job: Job, picture: Image.Image, settings: SamplingSettings, about: dict[str, Any]
) -> Path:
    """Write a PNG under the next free number, with all settings in its metadata.

    The text chunk `tlora` is JSON; `parameters` is the line that picture viewers of the field show.
    """
    words = re.sub(r"[^a-z0-9]+", "-", job.prompt.lower()).strip("-")[:60].strip("-")
    path = folder / f"{next_number(folder):04d}_{words or 'picture'}_seed{job.seed}.png"
    write_picture(path, job, picture, settings, about)
    return path


def write_picture(
    path: Path, job: Job, picture: Image.Image, settings: SamplingSettings, about: dict[str, Any]
) -> None:
    """Write a PNG with all settings in its metadata; see `save_picture`."""
    metadata = PngInfo()
    values = {"prompt": job.prompt, "seed": job.seed, **asdict(settings), **about}
    metadata.add_itxt(PRODUCT, json.dumps(values, ensure_ascii=False))
    metadata.add_itxt(
        "parameters",
        f"{job.prompt}\nNegative prompt: {settings.negative_prompt}\nSteps: {settings.steps}, "
        f"Sampler: {settings.scheduler}, CFG scale: {settings.guidance}, Seed: {job.seed}, "
        f"Size: {settings.width}x{settings.height}",
    )
    write_atomically(path, lambda file: picture.save(file, format="PNG", pnginfo=metadata))


def next_number(folder: Path) -> int:
    """Return one more than the highest leading number of the files in `folder`."""
    numbers = [int(m[0]) for file in folder.glob("*.png") if (m := re.match(r"\d+", file.name))]
    return max(numbers, default=-1) + 1


def contact_sheet(rows: Mapping[str, Sequence[Image.Image]], cell: int = 256) -> Image.Image:
    """Return one picture with a row per prompt, its prompt written above the row.

    Args:
        rows: prompt -> its pictures.
        cell: longest side of a picture on the sheet, in pixels.
    """
    margin, caption = 8, 22
    columns = max(len(pictures) for pictures in rows.values())
    sheet = Image.new(
        "RGB",
        (margin + columns * (cell + margin), margin + len(rows) * (cell + caption + margin)),
        "white",
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for row, (prompt, pictures) in enumerate(rows.items()):
        top = margin + row * (cell + caption + margin)
        pen.text(
            (margin, top), _shortened(prompt, pen, font, sheet.width - 2 * margin), "black", font
        )
        for column, picture in enumerate(pictures):
            scale = cell / max(picture.size)
            size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            place = (margin + column * (cell + margin), top + caption)
            sheet.paste(picture.resize(size, Image.Resampling.LANCZOS), place)
    return sheet


def _shortened(text: str, pen: ImageDraw.ImageDraw, font: Any, width: int) -> str:
    if pen.textlength(text, font) <= width:
        return text
    while text and pen.textlength(text + "…", font) > width:
        text = text[:-1]
    return text + "…"
