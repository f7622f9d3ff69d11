"""Adapter files that the node reads: tlora's own, LyCORIS's T-LoRA, and the published code's."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from .ranks import Schedule, read_schedule, said_schedule

Pair = tuple[Tensor, Tensor]
"""down (copies * R, in) and up (out, copies * R); of a convolution (copies * R, in, k, k) and
(out, copies * R, 1, 1)."""

_WORD = "word."
"""Before the names of what belongs to a learned word."""
_OWN = re.compile(r"(?:unet|transformer)\.(?P<layer>.+)\.(?P<part>lora_[AB])\.weight")
_LYCORIS = re.compile(
    r"(?:lora_unet|lora_transformer|lycoris)_(?P<layer>[^.]+)"
    r"\.(?P<part>q_layer|p_layer|lambda_layer|base_q|base_p|base_lambda|alpha)(?:\.weight)?"
)
_PUBLISHED = re.compile(
    r"(?P<layer>.+)\.processor\.(?P<projection>to_(?:q|k|v|out))_lora"
    r"\.(?P<part>down|up|q_layer|p_layer|lambda_layer|base_q|base_p|base_lambda)(?:\.weight)?"
)
_NOW, _START = ("q_layer", "lambda_layer", "p_layer"), ("base_q", "base_lambda", "base_p")
CONVERT = "Convert it first: tlora convert FILE --to tlora"


class UnreadableError(ValueError):
    """The file is none that the node can apply; says why, and what to do."""


@dataclass(frozen=True)
class AdapterFile:
    """An adapter as a file holds it.

    Attributes:
        layers: name with underscores for dots -> its factors, scale folded in.
        copies: blocks of R components in each factor; 2 where a start is subtracted.
        schedule: None where the file doesn't say one.
    """

    layers: dict[str, Pair]
    copies: int
    schedule: Schedule | None

    @property
    def rank(self) -> int:
        """R."""
        return max(len(down) for down, _ in self.layers.values()) // self.copies


def read(path: str | Path) -> AdapterFile:
    """Return an adapter.

    Raises:
        UnreadableError: for a file of another kind, or a damaged one.
    """
    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for reader in (_own, _lycoris, _published):
        try:
            found = reader(tensors, header)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            if isinstance(error, UnreadableError):
                raise
            raise UnreadableError(f"{Path(path).name} is damaged: {error}") from error
        if found is not None:
            return found
    raise UnreadableError(
        f"{Path(path).name} is no T-LoRA. Use ComfyUI's own LoRA loader for a plain LoRA"
    )


def _own(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> AdapterFile | None:
    if "tlora.format_version" not in header:
        return None
    if header["tlora.format_version"] == "3":
        raise UnreadableError(
            "the file is a training checkpoint, which tlora reads in its run. Make a whole file of "
            "it there: tlora convert RUN/checkpoints/checkpoint-... --output whole.safetensors"
        )
    if header["tlora.format_version"] not in ("1", "2"):
        raise UnreadableError("the file is of a newer tlora: run `tlora comfyui` of that version")
    update = {key: tensor for key, tensor in tensors.items() if not key.startswith(_WORD)}
    if update and len(update) < len(tensors):
        logging.warning(
            "the adapter has also learned a word, which is not in the model: write it with "
            "`tlora convert --to embedding` and use `embedding:NAME` in the prompt"
        )
    parts = _by_layer(update, _OWN) if update else None
    if parts is None:
        raise UnreadableError(
            f"{header.get('tlora.method', 'this method')} is no product of factors, and acts in "
            "tlora alone. `tlora merge` makes a whole model of it"
        )
    layers = {
        name.replace(".", "_"): (found["lora_A"], found["lora_B"]) for name, found in parts.items()
    }
    return AdapterFile(layers, int(header["tlora.copies"]), read_schedule(header))


def _lycoris(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> AdapterFile | None:
    parts = _by_layer(tensors, _LYCORIS)
    if parts is None:
        return None
    layers = {}
    for name, found in parts.items():
        down, up = _ortho_pair(found)
        if "alpha" in found:
            up = up * (float(found["alpha"].reshape(-1)[0]) / (len(down) // 2))
        layers[name] = (down, up)
    return AdapterFile(layers, 2, said_schedule(header, len(next(iter(layers.values()))[0]) // 2))


def _published(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> AdapterFile | None:
    def layer(match: re.Match[str]) -> str:
        projection = match["projection"]
        end = "to_out.0" if projection == "to_out" else projection
        return f"{match['layer']}.{end}".replace(".", "_")

    parts = _by_layer(tensors, _PUBLISHED, layer)
    if parts is None:
        return None
    ortho = any("q_layer" in found for found in parts.values())
    layers = {
        name: _ortho_pair(found) if ortho else (found["down"].float(), found["up"].float())
        for name, found in parts.items()
    }
    return AdapterFile(layers, 2 if ortho else 1, None)


def _by_layer(
    tensors: Mapping[str, Tensor],
    pattern: re.Pattern[str],
    name: Callable[[re.Match[str]], str] = lambda match: match["layer"],
) -> dict[str, dict[str, Tensor]] | None:
    """Return layer -> part -> tensor; None if a key has another form."""
    found: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        match = pattern.fullmatch(key)
        if match is None:
            return None
        found[name(match)][match["part"]] = tensor
    return dict(found) or None


def _ortho_pair(parts: Mapping[str, Tensor]) -> Pair:
    """Return P diag(lambda) Q - P0 diag(lambda0) Q0 as a pair of width 2R."""
    if any(part not in parts for part in _START):
        raise UnreadableError(
            "the file does not hold its start (base_*), which only the base's weights tell. "
            f"{CONVERT} --base MODEL"
        )
    a, s, b = (parts[part].float() for part in _NOW)
    a0, s0, b0 = (parts[part].float() for part in _START)
    a, a0 = s.flatten()[:, None] * a, s0.flatten()[:, None] * a0
    # As differences from the start, so that a small update isn't lost between two large products.
    return torch.cat([a, a - a0]), torch.cat([b - b0, b0], dim=1)
