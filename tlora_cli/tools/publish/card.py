"""The model card: README.md of the published folder. Pure text; nothing is read or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import ModelCardData

from tlora_cli.families import FAMILIES
from tlora_cli.families.facts import License
from tlora_cli.formats.weights import AdapterInfo, AdapterWeights
from tlora_cli.foundation.bundled import is_base
from tlora_cli.foundation.packages import PRODUCT
from tlora_cli.foundation.prompts import training_prompt
from tlora_cli.methods import PLAIN
from tlora_cli.tools.publish.card_images import Shown
from tlora_cli.tools.publish.usage_section import use_section

PAPER = "[T-LoRA](https://arxiv.org/abs/2507.05964)"
_MARKS = "&<>\\`*_[]|#!"
_TIMES = (0, 250, 500, 750, 999)
"""Timesteps whose rank the card tells."""


@dataclass(frozen=True)
class Card:
    """All that a card tells.

    Attributes:
        weights: of the adapter, with the public description.
        base: public name of the base model.
        license: of the base, and so of the adapter.
        shown: pictures.
        origin: where the pictures come from, in a sentence.
        training: small training pictures that are shown, paths in the folder.
        pictures: how many the concept was learned from; None if that is not known.
        about: the run's parameters, device and versions, as far as they are known.
        files: what else is in the folder, target -> path.
        repository: OWNER/NAME, if it is known.
    """

    weights: AdapterWeights
    base: str
    license: License
    shown: Sequence[Shown]
    origin: str
    training: Sequence[str]
    pictures: int | None
    about: Mapping[str, Any]
    files: Mapping[str, str]
    repository: str | None

    @property
    def concept(self) -> str:
        """The words that V* stands for; empty if the file doesn't say."""
        return self.weights.info.concept


def card_text(card: Card) -> str:
    """Return README.md."""
    sections = [
        _head(card),
        _pictures(card),
        use_section(card.weights, card.base, card.concept, card.files, card.repository),
        _schedule(card),
        _training(card),
        _limits(card),
        _license(card),
    ]
    return f"---\n{_header(card)}\n---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def _header(card: Card) -> str:
    """Return the YAML in front."""
    family, whole = FAMILIES[card.weights.family or ""], card.weights.low_rank
    tags = ["text-to-image", PRODUCT, *family.hub_tags]
    if whole:  # what diffusers loads
        tags += ["diffusers", PLAIN, "template:sd-lora"]
    info = card.weights.info
    more: dict[str, Any] = {}
    if words := _trained_on(info) or card.concept:
        more["instance_prompt"] = words
    if card.shown:
        more["widget"] = [
            {"text": one.job.prompt, "output": {"url": one.file}} for one in card.shown
        ]
    data = ModelCardData(
        base_model=None if is_base(card.base) else card.base,
        library_name="diffusers" if whole else None,
        license=card.license.id,
        license_name=card.license.name,
        license_link=card.license.link,
        pipeline_tag="text-to-image",
        tags=tags,
        **more,
    )
    return data.to_yaml().strip()


def _head(card: Card) -> str:
    method = card.weights.info.method or PLAIN
    what = card.concept or "a concept"
    from_what = {None: "pictures", 1: "one picture"}.get(card.pictures, f"{card.pictures} pictures")
    text = (
        f"# {plain(what)}\n\n"
        f"An adapter for {_base(card.base)} that learned **{plain(what)}** from {from_what}"
    )
    if card.weights.schedule and not card.weights.schedule.always_full:
        return text + (
            f" with {PAPER}: a low-rank update that uses fewer ranks at noisy timesteps, where "
            "fine-tuning on one picture overfits most."
        )
    return text + f", trained by `tlora` with the method `{method}`."


def _base(base: str) -> str:
    if is_base(base):
        return f"`{base}` (a small base that is built into tlora)"
    return f"[{base}](https://huggingface.co/{base})"


# --- pictures ---------------------------------------------------------------------------------


def _pictures(card: Card) -> str:
    parts = []
    if card.shown:
        rows = [(f"![{plain(one.job.prompt)}]({one.file})", _caption(one)) for one in card.shown]
        parts += ["## Pictures", f"{card.origin} {_settings(card.shown)}"]
        parts.append(table(("", "prompt"), rows))
    if card.training:
        parts.append("Learned from, as cropped and made small:")
        parts.append(" ".join(f"![training picture]({name})" for name in card.training))
    return "\n\n".join(parts)


def _caption(one: Shown) -> str:
    strength = "" if one.scale == 1.0 else f", strength {one.scale:g}"
    return f"{plain(one.job.prompt)}<br>seed {one.job.seed}{strength}"


def _settings(shown: Sequence[Shown]) -> str:
    """Return the settings of the pictures, in a sentence for each kind."""
    told: dict[str, None] = {}
    for one in shown:
        own = one.settings
        text = (
            f"{own.steps} steps, guidance {own.guidance:g}, scheduler {own.scheduler}, "
            f"{own.width} x {own.height} pixels"
        )
        negative = f", negative prompt: {plain(own.negative_prompt)}" if own.negative_prompt else ""
        told[f"{text}{negative}."] = None
    return " ".join(told).capitalize()


# --- training ---------------------------------------------------------------------------------


def _schedule(card: Card) -> str:
    schedule = card.weights.schedule
    if schedule is None or schedule.always_full:
        return ""
    rule = f"schedule `{schedule.kind}`"
    if schedule.kind == "linear":
        rule = (
            "`r(t) = floor((R - r_min) ((T - t) / T)^alpha) + r_min` with "
            f"T = {schedule.num_train_timesteps}, alpha = {schedule.alpha:g}"
        )
    if axis := schedule.axis:
        rule += (
            f"; by noise level: t is `T (1 - sigmoid(logsnr / {axis.scale:g} + {axis.shift:g}))`, "
            "and the table is for the noise schedule of the base"
        )
    heads = ("timestep", *(str(t) for t in _TIMES))
    ranks = ("active rank", *(str(schedule.active_rank(t)) for t in _TIMES))
    return (
        f"## The rank schedule\n\nRank R = {schedule.rank}, least rank r_min = "
        f"{schedule.min_rank}, {rule}. Timestep 0 is the clear picture, "
        f"{schedule.num_train_timesteps} pure noise.\n\n" + table(heads, [ranks])
    )


def _trained_on(info: AdapterInfo) -> str:
    """Return the prompt of the training; empty if it is not known."""
    template = info.recipe.get("concept", {}).get("prompt", "")
    return training_prompt(template, info.placeholder or "", info.class_name or "")


def _training(card: Card) -> str:
    info, recipe = card.weights.info, card.weights.info.recipe
    train = recipe.get("train", {})
    optimizer = train.get("optimizer", {})
    values = {
        "method": info.method,
        "steps": info.train_steps,
        "training prompt": _trained_on(info) or None,
        "resolution": train.get("resolution"),
        "batch size": train.get("batch_size"),
        "accumulation": train.get("accumulation"),
        "optimizer": optimizer.get("name"),
        "learning rate": optimizer.get("lr"),
        "base in": info.quantization or info.precision,
        "seed": train.get("seed", info.seed),
        "trained parameters": card.about.get("parameters"),
        "device": card.about.get("device"),
    }
    rows = [(name, plain(str(value))) for name, value in values.items() if value is not None]
    versions = card.about.get("versions")
    if isinstance(versions, Mapping):
        told = ", ".join(f"{name} {version}" for name, version in versions.items())
        rows.append(("versions", plain(told)))
    return "## Training\n\n" + table(("", ""), rows)


# --- limits -----------------------------------------------------------------------------------


def _limits(card: Card) -> str:
    count = "one picture" if card.pictures == 1 else "few pictures"
    items = [
        f"It was trained on {count}. What can't be seen there, such as other sides or expressions, "
        "the base model makes up.",
    ]
    schedule = card.weights.schedule
    if not card.weights.low_rank:
        items.append("It changes the weights themselves: only tlora can use the file.")
    elif schedule and not schedule.always_full:
        items.append(
            "The rank schedule acts only in tlora, and in ComfyUI with tlora's node or workflow. "
            "diffusers, and every tool that loads it as a plain LoRA, uses all ranks at every "
            "timestep, as they never acted in training."
        )
    if card.shown:
        items.append("The pictures here show what it does on these prompts; they measure nothing.")
    else:
        items.append("No picture of it is shown here.")
    items.append(f"It can do no more than its base, {_base(card.base)}, and has its biases.")
    return "## Limits\n\n" + "\n".join(f"- {item}" for item in items)


def _license(card: Card) -> str:
    one = card.license
    name = one.name or one.id
    shown = f"[{name}]({one.link})" if one.link else f"`{name}`"
    return (
        f"## License\n\nThe adapter is bound by the license of its base model: {shown}. What was "
        "learned, a person, a work or a brand, may have rights of its own."
    )


# --- Markdown ---------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Return text that Markdown and HTML show as it is, in one line and within a table."""
    return " ".join(text.split()).translate({ord(mark): f"&#{ord(mark)};" for mark in _MARKS})


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; its cells are Markdown already."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
