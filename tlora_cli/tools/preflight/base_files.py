"""A look at the base model: are its files there, whole and to be had; no weights are loaded.

Of a Hub repository no weights are downloaded either: its index (a kilobyte), then what it holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import (
    HfApi,
    constants,
    get_token,
    hf_hub_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError, safe_open

from tlora_cli.families import FAMILIES, Family
from tlora_cli.families.loading import Base, read_index
from tlora_cli.families.single_file import find_single_file, look_at_single_file
from tlora_cli.families.single_file_facts import notes_of
from tlora_cli.families.standard import meta_denoiser, meta_vae
from tlora_cli.families.variants import check_index, look_at_folder
from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.foundation.files import free_space
from tlora_cli.foundation.hub import asking
from tlora_cli.foundation.hub_errors import explained, fetching
from tlora_cli.recipe.models import Recipe
from tlora_cli.tools.preflight.base_parts import Part, left_out_in, needed_parts
from tlora_cli.tools.preflight.downloads import fetching_time
from tlora_cli.tools.preflight.findings import Finding, gigabytes, of_error, ok, problem, warning
from tlora_cli.training.from_recipe import base_of

SECONDS = 10.0
"""Seconds that the Hub may take to answer."""
_INDEX = "model_index.json"


def look_at_base(recipe: Recipe) -> Iterator[Finding]:
    """Yield what is found of the recipe's base model."""
    base, family = base_of(recipe), FAMILIES[recipe.family]
    try:
        if base.is_file:
            yield from _single_file(family, base)
            return
        index = read_index(base)
        told = [f"{base.model} {one}" for one in family.training_notes(index, base.model)]
        for note in (*check_index(family, index, base.model), *told):
            yield warning("base", note)
        if base.path is not None:
            yield from _folder(family, base, base.path, recipe.train.objective)
        else:
            yield from _repository(family, base, recipe.train.objective)
    except UserError as error:
        yield of_error("base", error)


# --- a file or a folder -----------------------------------------------------------------------


def _single_file(family: Family, base: Base) -> Iterator[Finding]:
    file, folder = find_single_file(base.model, base.config)
    names, without = names_below(folder), left_out_in(family, folder)
    parts = [p for p in needed_parts(family, names, None, without) if p.name != family.denoiser]
    if family.single_file_is_whole:  # the folder gives what has no weights
        parts = [p for p in parts if p.name.startswith(("tokenizer", "processor", "scheduler"))]
    for part in parts:
        if part.lacking:
            yield problem(
                "base", f"{folder}: {part.lacking}", "give the whole folder as base.config"
            )
    if not (folder / family.denoiser / "config.json").is_file():
        lacking = f"{folder}: {family.denoiser}/config.json is missing"
        yield problem("base", lacking, "give the whole folder as base.config")
        return
    if any(part.lacking for part in parts):
        return
    try:
        for note in look_at_folder(family, folder):
            yield warning("base", note)
        facts = look_at_single_file(family, file, folder)
    except UserError:
        raise
    except Exception as error:  # whatever settings that don't go together make diffusers raise
        yield problem("base", f"{folder} makes no model: {type(error).__name__}: {error}")
        return
    if facts is None:
        yield warning("base", f"{file} is not looked into", "a .safetensors file is safer")
        return
    for note in notes_of(family, facts):
        yield warning("base", note)
    size = gigabytes(file.stat().st_size)
    yield ok("base", f"{file}: {size}, {len(facts.shapes)} tensors")


def names_below(folder: Path) -> list[str]:
    """Return the names of all files below a folder, from its top down."""
    return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]


def _folder(family: Family, base: Base, folder: Path, objective: str) -> Iterator[Finding]:
    without = left_out_in(family, folder)
    parts = needed_parts(family, names_below(folder), base.variant, without)
    wrong = [part.lacking for part in parts if part.lacking]
    sizes = []
    for name in (name for part in parts for name in part.files):
        reason = _damage(folder / name)
        if reason:
            wrong.append(f"{name} {reason}")
        else:
            sizes.append((folder / name).stat().st_size)
    if not wrong:
        wrong = [*_denoiser_shapes(family, folder, parts), *_scheduler(family, folder, objective)]
    if not wrong:
        for note in look_at_folder(family, folder):
            yield warning("base", note)
    for what in wrong:
        yield problem("base", f"{folder}: {what}", "download it again, or mend the folder")
    if not wrong:
        text = f"{base.model}: {gigabytes(sum(sizes))} in {len(sizes)} files, all whole"
        yield ok("base", text)


def _damage(file: Path) -> str:
    """Return what is wrong with a file, or nothing; of weights the header is read."""
    try:
        if file.suffix == ".json":
            values = json.loads(file.read_text(encoding="utf-8"))
            if file.name.endswith("config.json") and not isinstance(values, dict):
                return "is damaged: it holds no settings"
        elif file.suffix == ".safetensors":
            with safe_open(file, framework="pt"):
                pass
        elif file.stat().st_size == 0:
            return "is empty"
    except (OSError, ValueError, SafetensorError) as error:
        return f"is damaged: {error}"
    return ""


def _denoiser_shapes(family: Family, folder: Path, parts: list[Part]) -> Iterator[str]:
    """Yield a difference between the denoiser's weights and its configuration.

    Weights that are not there would be drawn at random, without an error.
    """
    [part] = [part for part in parts if part.name == family.denoiser]
    files = [folder / name for name in part.files if name.endswith(".safetensors")]
    if not files:
        return
    there: dict[str, list[int]] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            there |= {name: opened.get_slice(name).get_shape() for name in list(opened.keys())}
    wanted: dict[str, Any] = {}
    for name, make in ((family.denoiser, meta_denoiser), ("vae", meta_vae)):
        try:
            model: Any = make(family.name, str(folder))
        except Exception as error:  # whatever settings that don't go together make diffusers raise
            yield f"{name}/config.json makes no model: {type(error).__name__}: {error}"
            return
        wanted = wanted or model.state_dict()
    absent = [name for name in wanted if name not in there]
    if absent:
        yield f"{family.denoiser} lacks {len(absent)} of {len(wanted)} tensors, such as {absent[0]}"
    for name, tensor in wanted.items():
        if name in there and list(tensor.shape) != list(there[name]):
            yield (
                f"{family.denoiser}: {name} is {list(there[name])}, but by config.json "
                f"{list(tensor.shape)}"
            )
            return


def _scheduler(family: Family, folder: Path, objective: str) -> Iterator[str]:
    text = (folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8")
    try:
        family.objective(json.loads(text), objective)
    except UserError:
        raise
    except Exception as error:  # as above
        yield f"scheduler/scheduler_config.json can't be used: {type(error).__name__}: {error}"


# --- the Hub ----------------------------------------------------------------------------------


def _repository(family: Family, base: Base, objective: str) -> Iterator[Finding]:
    """Yield what is found of a repository whose index could be read."""
    with asking(base.model):
        cached = Path(hf_hub_download(base.model, _INDEX, revision=base.revision)).parent
    if constants.HF_HUB_OFFLINE:
        yield from _snapshot(family, base, cached, objective, "HF_HUB_OFFLINE is set")
        return
    try:
        about = HfApi().model_info(
            base.model, revision=base.revision, files_metadata=True, timeout=SECONDS
        )
    except HfHubHTTPError as error:
        raise explained(error, base.model, base.revision) from error
    except Exception as error:  # whatever the network library raises
        why = f"the Hub can't be reached ({type(error).__name__})"
        yield from _snapshot(family, base, cached, objective, why)
        return
    listed = {file.rfilename: file.size or 0 for file in about.siblings or ()}
    parts = needed_parts(family, listed, base.variant, left_out_in(family, cached))
    lacking = [part.lacking for part in parts if part.lacking]
    for what in lacking:
        yield problem("base", f"{base.model}: {what}", "check base.revision and base.variant")
    if lacking:
        return
    absent = [
        name
        for part in parts
        for name in part.files
        if not isinstance(try_to_load_from_cache(base.model, name, revision=about.sha), str)
    ]
    to_come = sum(listed[name] for name in absent)
    access = "with your token" if get_token() else "without a token"
    if not absent:
        yield from _folder(family, base, cached, objective)
        return
    cache = Path(constants.HF_HUB_CACHE)
    free = free_space(cache)
    if to_come > free:
        yield problem(
            "base",
            f"{base.model}: {gigabytes(to_come)} are to be downloaded into {cache}, where "
            f"{gigabytes(free)} are free",
            "free disk space, or set HF_HUB_CACHE to a folder on another disk",
            Status.NO_ROOM,
        )
        return
    yield ok(
        "base",
        f"{base.model}: to be had {access}; {gigabytes(to_come)} will be downloaded into {cache} "
        f"({gigabytes(free)} free), {fetching_time(to_come)}",
    )


def _snapshot(
    family: Family, base: Base, cached: Path, objective: str, why: str
) -> Iterator[Finding]:
    """Yield what is found of the files that are in the cache, the Hub being out of reach."""
    found = list(_folder(family, base, cached, objective))
    if all(finding.level == "ok" for finding in found):
        yield from found
        return
    reasons = "; ".join(finding.text.partition(": ")[2] for finding in found)
    yield problem(
        "base",
        f"{base.model} is not all on this machine, and {why}: {reasons}",
        f"download it once where there is a network: {fetching(base.model, base.variant)}",
        Status.MISSING,
    )
