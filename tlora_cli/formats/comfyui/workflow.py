"""ComfyUI workflows in its API format: with LoRAs that switch on while sampling, or our node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlora_cli.families.facts import ComfyUI
from tlora_cli.foundation.packages import PRODUCT

Link = list[Any]
"""[number of a node, which of its outputs]."""
GROUP = 8
"""Most hooks that one combining node takes."""
LOADER = "TLoRALoader"
"""Class of the node in `node/`."""


@dataclass(frozen=True)
class Part:
    """A LoRA file, on from a percent (0..1) of the sampling; None: all the time."""

    file: str
    start: float | None


class _Graph:
    """Nodes as they are added."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}

    def add(self, kind: str, **inputs: Any) -> str:
        """Add a node; return its number."""
        number = str(len(self.nodes) + 1)
        self.nodes[number] = {"class_type": kind, "inputs": inputs}
        return number


def workflow(
    comfyui: ComfyUI, parts: Sequence[Part], prompt: str, size: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Return the workflow of LoRAs that hooks switch on, without a node of tlora's own.

    Args:
        comfyui: what the family needs.
        parts: the LoRAs.
        prompt: to begin with.
        size: width and height of the picture; None for the family's own.
    """
    graph = _Graph()
    # First what is chosen and written by hand: ComfyUI's page lays nodes out in this order, and
    # below the hooks nobody would find it.
    loaded = _Loaded(graph, comfyui, size)
    positive, negative = loaded.prompts(prompt)
    hooks = _combined(graph, _scheduled(graph, parts))
    # On both sides: guidance compares two answers of the same adapted model.
    pair = graph.add(
        "PairConditioningSetProperties",
        positive_NEW=positive,
        negative_NEW=negative,
        strength=1.0,
        set_cond_area="default",
        hooks=hooks,
    )
    loaded.draw(loaded.model, [pair, 0], [pair, 1])
    return graph.nodes


def node_workflow(comfyui: ComfyUI, file: str, prompt: str) -> dict[str, Any]:
    """Return the workflow of one adapter file, loaded by tlora's own node.

    Args:
        comfyui: what the family needs.
        file: name of the adapter in `models/loras`.
        prompt: to begin with.
    """
    graph = _Graph()
    loaded = _Loaded(graph, comfyui)
    adapted = graph.add(LOADER, model=loaded.model, lora_name=file, strength=1.0, min_rank=0)
    loaded.draw([adapted, 0], *loaded.prompts(prompt))
    return graph.nodes


class _Loaded:
    """The nodes that load a family's models, and what is drawn with them.

    Args:
        graph: where nodes are added.
        comfyui: what the family needs.
        size: width and height of the picture; None for the family's own.
    """

    def __init__(
        self, graph: _Graph, comfyui: ComfyUI, size: Mapping[str, int] | None = None
    ) -> None:
        self._graph, self._comfyui = graph, comfyui
        sized = {comfyui.latent[0]: size or {}}
        self._numbers = {
            key: graph.add(kind, **{**inputs, **sized.get(key, {})})
            for key, (kind, inputs) in comfyui.nodes.items()
        }

    @property
    def model(self) -> Link:
        """The model as it is loaded."""
        return self._link(self._comfyui.model)

    def prompts(self, prompt: str) -> tuple[Link, Link]:
        """Add the positive and the negative prompt."""
        graph, comfyui = self._graph, self._comfyui
        clip = self._link(comfyui.clip)
        positive = [graph.add("CLIPTextEncode", clip=clip, text=prompt), 0]
        if comfyui.zero_negative:
            negative = [graph.add("ConditioningZeroOut", conditioning=positive), 0]
        else:
            negative = [graph.add("CLIPTextEncode", clip=clip, text=""), 0]
        if comfyui.guidance is not None:
            kind, inputs = comfyui.guidance
            positive = [graph.add(kind, conditioning=positive, **inputs), 0]
        return positive, negative

    def draw(self, model: Link, positive: Link, negative: Link) -> None:
        """Add what samples, decodes and saves a picture."""
        graph, comfyui = self._graph, self._comfyui
        drawn = graph.add(
            "KSampler",
            model=model,
            positive=positive,
            negative=negative,
            latent_image=self._link(comfyui.latent),
            seed=0,
            denoise=1.0,
            **comfyui.sampling,
        )
        picture = graph.add("VAEDecode", samples=[drawn, 0], vae=self._link(comfyui.vae))
        graph.add("SaveImage", images=[picture, 0], filename_prefix=PRODUCT)

    def _link(self, place: tuple[str, int]) -> Link:
        key, output = place
        return [self._numbers[key], output]


def _scheduled(graph: _Graph, parts: Sequence[Part]) -> list[Link]:
    """Add each LoRA as a hook, off until its start; return the hooks."""
    off: str | None = None
    hooks: list[Link] = []
    for part in parts:
        hook = graph.add("CreateHookLoraModelOnly", lora_name=part.file, strength_model=1.0)
        if part.start is not None:
            if off is None:
                off = graph.add("CreateHookKeyframe", strength_mult=0.0, start_percent=0.0)
            on = graph.add(
                "CreateHookKeyframe",
                strength_mult=1.0,
                start_percent=round(part.start, 9),
                prev_hook_kf=[off, 0],
            )
            hook = graph.add("SetHookKeyframes", hooks=[hook, 0], hook_kf=[on, 0])
        hooks.append([hook, 0])
    return hooks


def _combined(graph: _Graph, hooks: list[Link]) -> Link:
    """Add nodes that combine the hooks into one group."""
    while len(hooks) > 1:
        groups = [hooks[n : n + GROUP] for n in range(0, len(hooks), GROUP)]
        hooks = [
            group[0] if len(group) == 1 else [graph.add("CombineHooks8", **_lettered(group)), 0]
            for group in groups
        ]
    return hooks[0]


def _lettered(group: Sequence[Link]) -> dict[str, Link]:
    return {f"hooks_{letter}": link for letter, link in zip("ABCDEFGH", group, strict=False)}
