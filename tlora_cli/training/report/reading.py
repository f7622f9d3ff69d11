"""A run folder -> what its report shows. Old and unfinished runs, too; nothing is written."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tlora_cli.families import FAMILIES
from tlora_cli.formats.schedule_fields import read_schedule
from tlora_cli.formulas.noise_axis import AXIS, NoiseAxis
from tlora_cli.foundation.bundled import bundle_of_picture
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import is_locked
from tlora_cli.foundation.pages.data_urls import thumbnail_url
from tlora_cli.foundation.pages.templates import MOST_FRAMES, chosen_frames
from tlora_cli.foundation.pictures import picture_settings, read_picture
from tlora_cli.foundation.untrusted_json import parse_json
from tlora_cli.methods import METHODS
from tlora_cli.photos.finding import AUTO
from tlora_cli.photos.framing import Frame
from tlora_cli.photos.training_images import load_training_images
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.reading import load_recipe, read_text
from tlora_cli.recipe.sections import ConceptConfig
from tlora_cli.sampling.known_world import world_of
from tlora_cli.training.checkpoint_scores import Record, best, read_record
from tlora_cli.training.kept_images import kept_pictures, small_pictures
from tlora_cli.training.report.embedded_images import Seen, see
from tlora_cli.training.report.metrics import Metrics, read_metrics
from tlora_cli.training.run_folder import RunFolder, checkpoints, step_of
from tlora_cli.training.shape import frame_of

MAX_PREVIEWS = 112
"""Previews on the page: about 5 MB. Of more, steps are left out."""
SHEET_SIDE = 900
"""Longest side of the sheet of scenes in pixels."""
MAX_PICTURES = 24
"""Training pictures that are read."""


@dataclass(frozen=True)
class Preview:
    """One picture drawn while training.

    Attributes:
        step: after which.
        prompt: its prompt.
        seed: of its noise.
        seen: the picture.
    """

    step: int
    prompt: str
    seed: str
    seen: Seen


@dataclass(frozen=True)
class Run:
    """The contents of a run folder.

    Attributes:
        path: of the folder, absolute.
        recipe: of the run.
        recipe_text: as YAML.
        state: `running`, `finished` or `stopped`.
        about: parameters, device and versions, as far as they are known.
        metrics: of its steps.
        pictures: training pictures, and of each its mask.
        scenes: the sheet of scenes as a data URL; empty if there are none.
        previews: by step.
        scores: of the checkpoints, or None.
        adapter: the newest adapter file, or None.
        axis: the noise levels of the base if the rank goes by these and a file says them, or None.
        notes: what is missing or was left out, in sentences.
    """

    path: Path
    recipe: Recipe
    recipe_text: str
    state: str
    about: dict[str, Any]
    metrics: Metrics
    pictures: list[tuple[Seen, Seen | None]]
    scenes: str
    previews: list[Preview]
    scores: Record | None
    adapter: Path | None
    axis: NoiseAxis | None
    notes: list[str]


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        UserError: if it holds no run, or its recipe can't be read.
    """
    run = RunFolder(folder.absolute())
    if not run.recipe.is_file():
        raise UserError(
            "the folder holds no run",
            where=str(folder),
            do="name the folder of a run, the output.dir of its recipe",
        )
    recipe = load_recipe(run.recipe, began=True)
    notes: list[str] = list(_world(recipe))
    samples = recipe.train.batch_size * recipe.train.accumulation
    alone = samples == 1 and recipe.concept.prior is None
    metrics = read_metrics(run.metrics, alone, notes)
    finished = run.finished(recipe)
    running = "running" if is_locked(run.path) else "stopped"
    adapter = run.adapter if finished else _newest_adapter(run)
    scores = _scores(run.scores, notes)
    kept = {best(scores.scores()).step} if scores and scores.steps else set()
    return Run(
        run.path,
        recipe,
        read_text(run.recipe),
        "finished" if finished else running,
        _about(run, adapter),
        metrics,
        _pictures(run.training_pictures, recipe.concept, frame_of(recipe), notes),
        _scenes(run.scenes, notes),
        _previews(run.previews, kept, notes),
        scores,
        adapter,
        _axis(adapter, recipe, notes),
        notes,
    )


def _world(recipe: Recipe) -> Iterator[str]:
    """Yield what to know of a base that draws one world, where pictures may be of another."""
    images, world = recipe.concept.images, world_of(recipe.base.model)
    given = [images] if isinstance(images, str) else images
    if world and any(bundle_of_picture(one) is not world for one in given):
        yield (
            f"{recipe.base.model} knows only drawings of {world.title}: of photographs it makes "
            "smears, which say nothing of the method."
        )


def _newest_adapter(run: RunFolder) -> Path | None:
    """Return the adapter of the last checkpoint; without checkpoints, the result."""
    found = [folder / "adapter.safetensors" for folder in reversed(checkpoints(run.checkpoints))]
    return next((file for file in [*found, run.adapter] if file.is_file()), None)


def _about(run: RunFolder, adapter: Path | None) -> dict[str, Any]:
    """Return about.json; versions of a run from before they stood there are the adapter file's."""
    try:
        about = parse_json(run.about.read_text(encoding="utf-8")) if run.about.is_file() else {}
    except (OSError, ValueError):
        about = {}
    about = about if isinstance(about, dict) else {}
    if "versions" not in about and adapter is not None:
        try:
            with safe_open(adapter, "pt") as file:
                about["versions"] = parse_json((file.metadata() or {}).get("tlora.versions", "{}"))
        except (OSError, ValueError, SafetensorError):
            pass  # a damaged file says no versions; the page shows none
    if not isinstance(about.get("versions"), dict):
        about["versions"] = {}
    return about


def _axis(adapter: Path | None, recipe: Recipe, notes: list[str]) -> NoiseAxis | None:
    """Return the noise levels that the run's adapter file says; the base isn't looked at."""
    if recipe.adapter.schedule.axis != AXIS or not METHODS[recipe.adapter.method].masked:
        return None
    try:
        if adapter is not None:
            with safe_open(adapter, "pt") as file:
                return read_schedule(file.metadata() or {}).axis
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, OverflowError):
        pass  # damaged
    notes.append(
        "No file of the run says the noise levels of its base yet; the ranks are shown for those "
        f"of {FAMILIES[recipe.family].standard_title}."
    )
    return None


def _pictures(
    folder: Path, concept: ConceptConfig, frame: Frame, notes: list[str]
) -> list[tuple[Seen, Seen | None]]:
    """Return the copies that the run keeps; of an old run, the files that its recipe names."""
    if kept := kept_pictures(folder):
        if len(kept) > MAX_PICTURES:
            notes.append(f"Of {len(kept)} training pictures the first {MAX_PICTURES} are shown.")
        try:
            return [(see(one), see(mask) if mask else None) for one, mask in kept[:MAX_PICTURES]]
        except UserError as error:
            notes.append(f"The kept training pictures are not shown: {error.what}.")
            return []
    try:
        masks = None if concept.masks == AUTO else concept.masks
        images = load_training_images(concept.images, masks, frame)
    except UserError as error:
        notes.append(f"The training pictures are not shown: {error.what}.")
        return []
    small = small_pictures(images[:MAX_PICTURES])
    notes.append("The training pictures are those that the recipe's files hold today.")
    return [
        (Seen.of(one.picture), Seen.of(one.mask.convert("RGB")) if one.mask else None)
        for one in small
    ]


def _scenes(path: Path, notes: list[str]) -> str:
    if not path.exists():
        return ""
    try:
        return thumbnail_url(read_picture(path, str(path), "RGB"), SHEET_SIDE)
    except UserError as error:
        notes.append(f"The sheet of scenes is not shown: {error.what}.")
        return ""


def _scores(path: Path, notes: list[str]) -> Record | None:
    try:
        return read_record(path)
    except UserError as error:
        notes.append(f"{error.what[0].upper()}{error.what[1:]}.")
        return None


def _previews(folder: Path, kept: Collection[int], notes: list[str]) -> list[Preview]:
    """Return the previews; if there are too many, those of steps spread evenly and those kept."""
    by_step = {
        step_of(one): sorted(one.glob("*.png"))
        for one in folder.glob("step-*")
        if re.fullmatch(r"step-\d+", one.name)
    }
    steps = sorted(by_step)
    rows = max((len(files) for files in by_step.values()), default=0)
    most = min(MOST_FRAMES, max(2, MAX_PREVIEWS // max(rows, 1)))
    chosen = chosen_frames(steps, kept, most)
    if len(chosen) < len(steps):
        notes.append(f"Of {len(steps)} steps with previews {len(chosen)} are shown.")
    found = []
    for step in chosen:
        for file in by_step[step]:
            try:
                found.append(_preview(step, file))
            except UserError:
                notes.append(f"The preview {file.name} of step {step} can't be read.")
    return found


def _preview(step: int, file: Path) -> Preview:
    """Read a preview; its metadata knows prompt and seed, else its name is all there is."""
    said = picture_settings(file)
    try:
        prompt, seed = str(said["prompt"]), str(said["seed"])
    except KeyError:
        prompt, seed = file.stem.partition("_")[2] or file.stem, ""
    return Preview(step, prompt, seed, see(file))
