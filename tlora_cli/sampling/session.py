"""An adapter on its base, ready to draw; what is asked of it, and its settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tlora_cli.families import FAMILIES, Family
from tlora_cli.families.text_length import check_lengths
from tlora_cli.formats import AdapterInfo, OpenAdapter, open_adapter
from tlora_cli.foundation.devices import (
    DTYPES,
    choose_device,
    has_accelerator,
)
from tlora_cli.foundation.errors import UserError
from tlora_cli.injection.adapter import Adapter
from tlora_cli.injection.load import load_adapter, load_words
from tlora_cli.recipe.models import SamplingConfig
from tlora_cli.sampling.base_model import (
    base_of_adapter,
    choose_attention,
    family_for,
    load_denoiser,
    load_text,
)
from tlora_cli.sampling.draw import (
    Job,
    SamplingSettings,
    Texts,
    describe,
    draw,
    encode_texts,
)
from tlora_cli.sampling.joining import Named, check_joinable, joined_concept


@dataclass(frozen=True)
class Request:
    """Pictures that are asked for; None means what the adapter file says.

    Attributes:
        prompts: with V* or {concept} for the concept.
        seed, count: pictures seed, seed + 1, ... of each prompt.
        scale: adapter strength.
        quantization: of the base: `nf4`, `int8` or `none`.
        offload: whether the base's blocks wait in main memory.
        settings: values over those of the file, by name of `SamplingSettings`.
        strength: of `adapter` beside `others`; `scale` is that of all.
        others: adapters that are drawn with together with `adapter` (`sampling.joining`); base,
            size and other settings are those of `adapter`.
        anyway: draw prompts as they stand that don't name the concept, or hold odd marks.
    """

    adapter: Path
    prompts: Sequence[str]
    output: Path
    seed: int = 0
    count: int = 1
    scale: float = 1.0
    min_rank: int | None = None
    concept: str | None = None
    base: str | None = None
    base_config: str | None = None
    precision: str | None = None
    quantization: str | None = None
    offload: bool = False
    device: str = "auto"
    batch_size: int = 1
    sheet: bool = False
    settings: dict[str, Any] | None = None
    anyway: bool = False
    strength: float = 1.0
    others: Sequence[Named] = ()


class SamplingSession:
    """An adapter on its base, ready to draw: loaded once, used for many prompts.

    Args:
        request: which adapter, and how to draw; its prompts are not looked at.
        notify: told what is loaded.

    Attributes:
        request: as given.
        info: where the adapter comes from.
        settings: how it draws.
        concept: words for V*, or None if they are not known.

    Raises:
        UserError: for an adapter or base that doesn't fit.
    """

    def __init__(self, request: Request, notify: Callable[[str], None]) -> None:
        self._opened: OpenAdapter | None = open_adapter(request.adapter)
        self.info = self._opened.origin[1]
        self._others = [open_adapter(one.path) for one in request.others]
        infos = [self.info, *(one.origin[1] for one in self._others)]
        if self._others:
            for line in check_joinable([self._opened, *self._others]):
                notify(f"warning: {line}")
            if request.min_rank is not None:
                raise UserError(
                    "--min-rank belongs to one adapter, and several are named",
                    where="--min-rank",
                    do="leave it out; for a file that doesn't say its least rank, run "
                    "`tlora convert --min-rank` first",
                )
        self.base = base_of_adapter(request.adapter, self.info, request.base, request.base_config)
        self.family = FAMILIES[family_for(self._opened, self.base)]
        self.settings = _settings(request, self.family, self.info)
        self.concept = request.concept or joined_concept([_concept(info) for info in infos])
        self.names = [
            name
            for info in infos
            for name in (request.concept or _concept(info), info.placeholder)
            if name
        ]
        self.request, self._notify = request, notify
        precision = request.precision or self.info.precision
        if precision not in DTYPES:  # the file doesn't say
            precision = "bf16" if has_accelerator() else "fp32"
        self.precision = precision
        given = self.info.quantization if request.quantization is None else request.quantization
        self.quantization = None if given == "none" else given
        self._device = choose_device(
            request.device, precision, self.quantization, offload=request.offload
        )
        self.family.sampler(self.settings.scheduler, {})  # an unknown name fails at once
        self._texts: Texts | None = None
        self._plain: Texts | None = None
        self._pipeline: Any = None
        self._adapter: Adapter | None = None
        self._joined: list[Adapter] = []

    def prepare(self, prompts: Sequence[str]) -> None:
        """Encode all prompts that will be drawn, free the encoders, load the denoiser.

        Args:
            prompts: with the concept filled in.
        """
        pipeline = self.load_text()
        self.encode(pipeline, prompts)
        del pipeline
        self.attach(self.load_denoiser())

    def load_text(self) -> Any:
        """Return the text encoders of the base; delete them to free them."""
        self._notify(f"loading {self.base.model}")
        dtype, offloaded = DTYPES[self.precision], self.request.offload
        return load_text(self.family, self.base, self._device, dtype, offloaded=offloaded)

    def load_denoiser(self) -> Any:
        """Return the base without its text encoders."""
        return load_denoiser(
            self.family,
            self.base,
            self._device,
            DTYPES[self.precision],
            self.quantization,
            self.info.objective or "auto",
            offloaded=self.request.offload,
        )

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> None:
        """Encode the prompts, as the adapter has learned their words and as the base knows them."""
        negative = self.settings.negative_prompt
        assert self._opened is not None, "an adapter is prepared once"
        texts = [*prompts, *([negative] if negative else [])]
        check_lengths(self.family, pipeline, texts, self.names, stop=not self.request.anyway)
        words = load_words(pipeline, self._opened)
        self._texts = self._plain = encode_texts(self.family, pipeline, prompts, negative)
        if words:  # the base alone has not learned them
            for hook in words:
                hook.remove()
            self._plain = encode_texts(self.family, pipeline, prompts, negative)

    def attach(self, pipeline: Any) -> Adapter:
        """Put the adapter on a base that is loaded, and return it; with it go the file's tensors.

        Raises:
            UserError: if it does not fit.
        """
        assert self._opened is not None, "an adapter is prepared once"
        self._pipeline = pipeline
        denoiser = getattr(self._pipeline, self.family.denoiser)
        _same_attention(denoiser, self.info.attention, self._notify)
        self._adapter = load_adapter(self._pipeline, self._opened, self.request.min_rank)
        self._joined = [load_adapter(self._pipeline, one) for one in self._others]
        self._opened, self._others = None, []
        return self._adapter

    def detach(self) -> None:
        """Take the adapter off its base, which is as before then; the session is at its end."""
        for one in (self._adapter, *self._joined):
            if one is not None:
                one.remove()
        self._adapter, self._joined, self._pipeline = None, [], None

    def draw(
        self, jobs: Sequence[Job], scale: float, batch_size: int
    ) -> Iterator[tuple[Job, Image.Image]]:
        """Draw jobs, whose prompts were prepared, at an adapter strength; 0 is the base alone."""
        texts = self._texts if scale else self._plain
        assert self._adapter is not None and texts is not None, "prepare comes first"
        self._adapter.scale = scale * self.request.strength
        with ExitStack() as frozen:
            for one, named in zip(self._joined, self.request.others, strict=True):
                one.scale = scale * named.strength
                frozen.enter_context(one.frozen())
            yield from draw(
                self.family, self._pipeline, self._adapter, texts, jobs, self.settings, batch_size
            )

    def describe(self, **more: Any) -> dict[str, Any]:
        """Return what a picture's metadata says beside prompt, seed and settings."""
        if self._joined:
            files = zip(self._joined, self.request.others, strict=True)
            more["joined"] = {named.path.name: one.scale for one, named in files}
        return describe(
            self._adapter,
            self.base.model,
            self.base.revision,
            self.precision,
            adapter_file=self.request.adapter.name,
            quantization=self.quantization,
            **more,
        )


def _same_attention(denoiser: Any, kind: str | None, notify: Callable[[str], None]) -> None:
    """Compute attention as in training, so that a preview is met again; else by PyTorch's own."""
    try:
        choose_attention(denoiser, kind or "sdpa")
    except UserError as error:
        notify(f"{error.what}; using sdpa")


def _concept(info: AdapterInfo) -> str | None:
    if info.placeholder is None or info.class_name is None:
        return None
    return info.concept


def _settings(request: Request, family: Family, info: AdapterInfo) -> SamplingSettings:
    side = family.resolutions[0]  # for files that don't say at what size they were trained
    published = {"width": side, "height": side, **family.defaults.get("sampling", {})}
    try:
        recorded = SamplingConfig.model_validate({**published, **info.sampling}).model_dump()
    except ValueError as error:
        raise UserError(
            "the sampling settings in the adapter's header are damaged",
            where=str(request.adapter),
            do="get the file again, or save it again from its checkpoint",
        ) from error
    given = {key: value for key, value in (request.settings or {}).items() if value is not None}
    settings = SamplingSettings(**{**recorded, **given})
    unit = family.pixel_multiple
    for name, pixels in (("width", settings.width), ("height", settings.height)):
        if pixels % unit or pixels <= 0:
            raise UserError(
                f"{name} {pixels} is not a positive multiple of {unit}",
                do=f"choose a {name} that is",
            )
    return settings
