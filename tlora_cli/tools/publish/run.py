"""`tlora publish`: source -> a folder for the Hub, and its upload if told to."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlora_cli.formats import FORMATS, tlora_file
from tlora_cli.foundation.bundled import is_base, model_folder
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import folder_atomically, write_text
from tlora_cli.foundation.pages.markdown import markdown_page
from tlora_cli.sampling.generate import generate
from tlora_cli.sampling.session import Request
from tlora_cli.tools.convert import convert_file
from tlora_cli.tools.publish.card import Card, card_text
from tlora_cli.tools.publish.card_images import (
    find_pictures,
    publish_pictures,
    publish_training_pictures,
)
from tlora_cli.tools.publish.hub import check_login, upload
from tlora_cli.tools.publish.licenses import license_of
from tlora_cli.tools.publish.sources import (
    Source,
    pictures_count,
    public_base,
    public_info,
    read_source,
)
from tlora_cli.tools.publish.usage_section import ADAPTER

Notify = Callable[[str], None]
Found = list[tuple[Path, dict[str, Any]]]


@dataclass(frozen=True)
class Publication:
    """A publication that is asked for.

    Attributes:
        source: a run folder or an adapter file.
        output: the new folder.
        base: public name of the base model, in place of what the adapter says.
        license: in place of the known one.
        targets: names of formats: files for other tools, too.
        pictures: a folder of pictures to show; default: the run's previews.
        prompts: or prompts to draw now.
        count, seed: pictures seed, seed + 1, ... of each of these prompts.
        device: where to draw them.
        training_pictures: whether to show what it was trained on.
        repository: OWNER/NAME to upload to, or None.
        public: whether a new repository is public.
    """

    source: Path
    output: Path
    base: str | None = None
    license: str | None = None
    targets: Sequence[str] = ()
    pictures: Path | None = None
    prompts: Sequence[str] = ()
    count: int = 1
    seed: int = 0
    device: str = "auto"
    training_pictures: bool = False
    repository: str | None = None
    public: bool = False


def publish(wanted: Publication, notify: Notify) -> str | None:
    """Write the folder, and upload it if a repository is named; return its address then.

    Raises:
        UserError: for a source that can't be published, or a Hub that does not take it; what is
            wrong with the request is told before anything is drawn or written.
    """
    source = read_source(wanted.source)
    base = public_base(source.info, wanted.base)
    license = license_of(base, wanted.license)
    if wanted.targets and not source.weights.low_rank:
        raise UserError(
            f"{source.info.method} changes the weights themselves; there is no file of it for "
            "other tools",
            where=str(source.adapter),
            do="leave --also out",
        )
    if wanted.training_pictures and not source.training_pictures:
        raise UserError(
            "there are no training pictures to show",
            where=str(source.adapter),
            do="name the run folder that keeps them, or leave --training-pictures out",
        )
    if wanted.repository:
        check_login(wanted.repository)
    with folder_atomically(wanted.output) as folder, tempfile.TemporaryDirectory() as drawn:
        info = public_info(source.info, base)
        tlora_file.copy_with_info(source.adapter, folder / ADAPTER, info)
        files = _others(source, folder, wanted)
        found, origin = _found(source, wanted, Path(drawn), notify)
        kept = source.training_pictures
        card = Card(
            weights=dataclasses.replace(source.weights, info=info),
            base=base,
            license=license,
            shown=publish_pictures(found, folder) if found else [],
            origin=origin,
            training=publish_training_pictures(kept, folder) if wanted.training_pictures else [],
            pictures=pictures_count(source.info.recipe, len(kept)),
            about=source.about,
            files=files,
            repository=wanted.repository,
        )
        write_text(folder / "README.md", card_text(card))
    if wanted.repository is None:
        return None
    notify(f"uploading {wanted.output}")
    return upload(wanted.output, wanted.repository, wanted.public)


def write_card_page(folder: Path, page: Path) -> None:
    """Write the model card of a folder as a page, to look at before it is uploaded.

    Args:
        folder: that `publish` has written.
        page: the new file, outside of the folder.
    """
    text = (folder / "README.md").read_text(encoding="utf-8")
    write_text(page, markdown_page(text, folder, f"{folder.name}: model card"))


def _found(source: Source, wanted: Publication, folder: Path, notify: Notify) -> tuple[Found, str]:
    """Return the pictures to show, and where they come from in a sentence."""
    if wanted.prompts:
        notify(f"drawing {len(wanted.prompts) * wanted.count} pictures")
        request = Request(
            source.adapter,
            wanted.prompts,
            folder,
            seed=wanted.seed,
            count=wanted.count,
            device=wanted.device,
        )
        generate(request, lambda line: None)
        return find_pictures(folder)[0], "Drawn for this page, not chosen."
    chosen = wanted.pictures or source.previews
    found, notes = find_pictures(chosen) if chosen else ([], [])
    if wanted.pictures and not found:
        raise UserError(
            "the folder has no PNG file that says its prompt, seed and settings",
            where=str(wanted.pictures),
            do="take pictures as `tlora sample` writes them",
        )
    for note in notes:
        notify(note)
    if not found:
        notify("there are no pictures to show: pass --prompt to draw some, or --pictures FOLDER")
    if wanted.pictures:
        return found, "Drawn by tlora."
    return found, f"Previews after step {source.info.train_steps}, not chosen."


def _others(source: Source, folder: Path, wanted: Publication) -> dict[str, str]:
    """Write files for other tools; return target -> path in the folder."""
    model = source.info.base_model or ""
    base = str(model_folder(model)) if is_base(model) else model
    name = wanted.output.name
    written = {}
    for target in dict.fromkeys(wanted.targets):
        is_folder = FORMATS[target].folder
        path = f"{target}/{name}" if is_folder else f"{name}-{target}.safetensors"
        convert_file(folder / ADAPTER, folder / path, None, base or None, None, None, {}, target)
        written[target] = path
    return written
