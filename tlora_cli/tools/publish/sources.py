"""The source of a publication: a finished run or an adapter file; what others may know of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from tlora_cli.formats import AdapterInfo, AdapterWeights, read_adapter, tlora_file
from tlora_cli.formats.opening import locate, open_file
from tlora_cli.foundation.bundled import bundle_of_picture, is_base
from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.foundation.files import expanded, is_locked
from tlora_cli.foundation.hub import is_hub_id
from tlora_cli.foundation.untrusted_json import parse_json
from tlora_cli.photos.folder import EXTENSIONS
from tlora_cli.recipe.reading import load_recipe
from tlora_cli.training.kept_images import kept_pictures
from tlora_cli.training.run_folder import RunFolder, checkpoints, step_of


@dataclass(frozen=True)
class Source:
    """An adapter and what is known of its training.

    Attributes:
        adapter: its file.
        weights: what the file holds.
        run: the run folder that the file lies in, or None.
        about: the run's parameters, device and versions, as far as they are known.
    """

    adapter: Path
    weights: AdapterWeights
    run: RunFolder | None
    about: Mapping[str, Any]

    @property
    def info(self) -> AdapterInfo:
        """The origin of the adapter; with paths of this computer."""
        return self.weights.info

    @property
    def previews(self) -> Path | None:
        """The folder of the previews that the adapter itself has drawn, or None."""
        if self.run is None or self.info.train_steps is None:
            return None
        folder = self.run.previews / f"step-{self.info.train_steps:06d}"
        return folder if folder.is_dir() else None

    @property
    def training_pictures(self) -> list[Path]:
        """Small copies of what it was trained on, as far as the run keeps them."""
        if self.run is None:
            return []
        return [picture for picture, _ in kept_pictures(self.run.training_pictures)]


def read_source(path: Path) -> Source:
    """Read a run folder or an adapter file; nothing is written.

    Raises:
        UserError: if there is neither, the run is not finished, or the file is not tlora's own.
    """
    path = expanded(path)
    if path.is_dir() and RunFolder(path).recipe.is_file():
        run: RunFolder | None = RunFolder(path)
        adapter = _finished(RunFolder(path))
    elif path.is_dir():
        raise UserError(
            "the folder holds no run",
            where=str(path),
            do="name the output.dir of a recipe, or an adapter file",
        )
    else:
        adapter = locate(path)
        above = (adapter.absolute().parent, adapter.absolute().parent.parent.parent)
        run = next((RunFolder(one) for one in above if RunFolder(one).recipe.is_file()), None)
    opened = open_file(adapter)
    if not tlora_file.matches(opened.keys, opened.header):
        raise UserError(
            "only tlora's own adapter files can be published; others don't say enough",
            where=str(adapter),
            do="convert it first: "
            f"tlora convert {quote(str(adapter))} --output adapter.safetensors",
        )
    return Source(adapter, read_adapter(adapter, ()), run, _about(run))


def _finished(run: RunFolder) -> Path:
    """Return the adapter of a run, which must be finished."""
    recipe = load_recipe(run.recipe, began=True)
    if run.finished(recipe) and not is_locked(run.path):
        return run.adapter
    saved, steps = checkpoints(run.checkpoints), recipe.train.steps
    done = f"its last checkpoint is step {step_of(saved[-1])} of {steps}" if saved else "no step"
    do = f"go on with: tlora train --resume --output {quote(str(run.path))}"
    kind = Status.MISTAKE
    if is_locked(run.path):
        do, kind = "wait for its end", Status.LATER
    if saved:
        last = quote(str(saved[-1] / "adapter.safetensors"))
        do += f"; or publish a checkpoint: tlora publish {last}"
    raise UserError(f"the run is not finished: {done}", str(run.path), do, kind)


def _about(run: RunFolder | None) -> Mapping[str, Any]:
    if run is None:
        return {}
    try:
        about = parse_json(run.about.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # a run of before it was written; the card says less
    return about if isinstance(about, dict) else {}


# --- what others may know ---------------------------------------------------------------------


def public_base(info: AdapterInfo, given: str | None) -> str:
    """Return the name under which others have the base model.

    Args:
        info: of the adapter.
        given: `--base`, or None.

    Raises:
        UserError: if it is a file or folder of this computer and no name is given.
    """
    known = info.base_model
    name = given or known
    if name is None:
        raise UserError(
            "the adapter does not say which base model it belongs to",
            do="pass --base with its Hub id",
        )
    if is_base(name) or (is_hub_id(name) and (given or not Path(name).exists())):
        return name
    if given:
        raise UserError(f"--base {given} is no Hub id", do="write it as OWNER/NAME")
    raise UserError(
        "the base model is a file of this computer, which others don't have by that name",
        where=name,
        do="pass --base with its Hub id, e.g. --base stabilityai/stable-diffusion-xl-base-1.0",
    )


def public_info(info: AdapterInfo, base: str) -> AdapterInfo:
    """Return the adapter's description without anything that is private to this computer.

    Of the recipe stays what the training depends on; where pictures and results lie does not.

    Args:
        info: of the adapter.
        base: public name of the base model.
    """
    same = base == info.base_model
    return dataclasses.replace(
        info,
        base_model=base,
        base_revision=info.base_revision if same else None,
        base_variant=info.base_variant if same else None,
        base_config=None,
        recipe=_public_recipe(info.recipe, base),
    )


_SECTIONS = ("family", "adapter", "train", "sampling")
_CONCEPT = ("placeholder", "class", "prompt", "prompts", "captions", "caption_dropout",
            "phrases")  # fmt: skip
_PRIOR = ("count", "prompt", "prompts", "weight")
_SCENES = ("count", "each", "untouched", "movement", "sizes", "mirror")


def _public_recipe(recipe: Mapping[str, Any], base: str) -> dict[str, Any]:
    if not recipe:
        return {}
    concept = recipe.get("concept") or {}
    public = {key: concept[key] for key in _CONCEPT if key in concept}
    if prior := concept.get("prior"):
        public["prior"] = {key: prior[key] for key in _PRIOR if key in prior}
    if scenes := concept.get("scenes"):
        public["scenes"] = {key: scenes[key] for key in _SCENES if key in scenes}
    kept = {key: recipe[key] for key in _SECTIONS if key in recipe}
    cleaned: dict[str, Any] = _without_paths({**kept, "base": {"model": base}, "concept": public})
    return cleaned


def _without_paths(value: Any) -> Any:
    """Return plain data with absolute paths, and those of a home, left out."""
    if isinstance(value, dict):
        return {key: _without_paths(one) for key, one in value.items() if not _is_path(one)}
    if isinstance(value, list):
        return [_without_paths(one) for one in value if not _is_path(one)]
    return value


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("/", "~", "\\\\"))


def pictures_count(recipe: Mapping[str, Any], kept: int) -> int | None:
    """Return of how many pictures a concept was learned; None if that is not known.

    Args:
        recipe: the adapter's own.
        kept: how many small copies the run keeps.
    """
    if kept:
        return kept
    images = (recipe.get("concept") or {}).get("images")
    if isinstance(images, list):
        return len(images)
    if not isinstance(images, str):
        return None
    if bundle := bundle_of_picture(images):
        return 1 if bundle.parts_of(images)[1] else None
    return 1 if Path(images).suffix.lower() in EXTENSIONS else None
