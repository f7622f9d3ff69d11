"""T-LoRA as LyCORIS writes it (`algo=tlora`, since LyCORIS 4).

Keys are `<prefix>_<path with underscores>.q_layer.weight`, `.p_layer.weight`, `.lambda_layer`,
`.alpha`, and optionally `.base_q`, `.base_p`, `.base_lambda`. LyCORIS itself leaves `base_*` out,
and computes the principal start of whatever base the file is loaded on. It knows no place for the
rank schedule, which is one of the trainer's settings; SimpleTuner leaves them with the file.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tlora_cli.formats.common import (
    DAMAGED,
    alpha_of,
    method_name,
    only_family,
    warn_of_text_layers,
)
from tlora_cli.formats.foreign import lacking, refuse_unreadable
from tlora_cli.formats.headers import model_spec
from tlora_cli.formats.kohya import PREFIXES, TEXT, bare, check_family, rows_of_layers
from tlora_cli.formats.kohya_names import known_names
from tlora_cli.formats.lycoris_config import read_schedule, schedule_field
from tlora_cli.formats.products import (
    NOW,
    START,
    has_principal_start,
    ortho_pair,
    stored,
    two_products,
)
from tlora_cli.formats.spec import Format, Reader, Sizes
from tlora_cli.formats.weights import AdapterFile, AdapterInfo, AdapterWeights, Pair
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import write_atomically
from tlora_cli.methods.starts import draw_starts

PREFIX = "lycoris_"
"""That of LyCORIS's wrapper for diffusers' models, which is written."""
LIKENESS = 0.1
"""Least cosine between all trained products and the principal starts of a base. Products that
started elsewhere (at random, at other triplets, at another model) have about 0."""

_PART = re.compile(r"(q_layer|p_layer|lambda_layer|base_q|base_p|base_lambda|alpha)(?:\.weight)?")


def matches(keys: set[str], header: Mapping[str, str]) -> bool:
    """Whether the tensors are LyCORIS's T-LoRA."""
    return any(
        key.startswith((*PREFIXES, TEXT)) and _part(key.partition(".")[2]) in NOW for key in keys
    )


def origin(
    keys: Collection[str], header: Mapping[str, str], path: Path
) -> tuple[str | None, AdapterInfo]:
    """Return the family by the layers' names; the method as a masked one, with min_rank."""
    return only_family(map(bare, keys), header), AdapterInfo(method=method_name(2, True))


def lacks_start(keys: Collection[str]) -> bool:
    """Whether the start must be computed from the base's weights."""
    return not any(_part(key.partition(".")[2]) in START for key in keys)


def read(file: AdapterFile) -> AdapterWeights:
    """Return the adapter; its schedule is None unless SimpleTuner's settings are found.

    Raises:
        UserError: if parts are missing, or the start is and can't be computed: the weights of the
            base are not there, or the adapter did not start at their principal part. If settings
            contradict it.
    """
    refuse_unreadable(file.tensors, file.path)
    text = sum(key.startswith(TEXT) for key in file.tensors)
    parts = _parts(file)
    check_family(parts, file)
    names = known_names(file.layer_names)
    computed = lacks_start(file.tensors)
    if computed:
        _add_principal_starts(parts, names, file)
    layers: dict[str, Pair] = {}
    for name, found in sorted(parts.items()):
        down, up = ortho_pair(name, found, file.path)
        alpha, rank = found.get("alpha"), len(down) // 2
        if alpha is not None:
            up = up * (alpha_of(name, alpha, file.path) / rank)
        members = _members(name, names, file.path)
        rows = rows_of_layers(name, up, members, file.path)
        layers |= {member: (down, own) for member, own in zip(members, rows, strict=True)}
    warn_of_text_layers(text, file.path)
    if len({len(down) for down, _ in layers.values()}) > 1:
        raise UserError("a masked T-LoRA needs one rank for all layers", str(file.path), DAMAGED)
    rank = len(next(iter(layers.values()))[0]) // 2
    schedule = read_schedule(file.header, file.path, rank)
    init = "weights_principal" if computed else None
    masked = schedule is None or not schedule.always_full
    info = AdapterInfo(method=method_name(2, masked), init=init)
    return AdapterWeights(layers, 2, schedule, only_family(layers, file.header), info)


def _part(name: str) -> str | None:
    match = _PART.fullmatch(name)
    return match[1] if match else None


def _parts(file: AdapterFile) -> dict[str, dict[str, Tensor]]:
    """Return LyCORIS's name without prefix -> part -> tensor."""
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in file.tensors.items():
        name, _, rest = key.partition(".")
        part = _part(rest)
        if name.startswith(TEXT):
            continue
        if not name.startswith(PREFIXES) or part is None:
            raise UserError(
                f"the T-LoRA holds a tensor that is not known: {key}", str(file.path), DAMAGED
            )
        if tensor.dim() > 2:
            raise UserError(
                f"the file adapts a convolution ({name}); LyCORIS's T-LoRA has another form there, "
                "which tlora can't apply",
                where=str(file.path),
                do="use a T-LoRA of linear layers, such as with the preset attn-mlp",
            )
        parts[bare(name)][part] = tensor
    if not parts:
        raise UserError("the file holds no layer of a denoiser", str(file.path), DAMAGED)
    return parts


def _members(name: str, names: Mapping[str, tuple[str, ...]], path: Path) -> tuple[str, ...]:
    if name not in names:
        raise lacking(name, path)
    return names[name]


def _add_principal_starts(
    parts: Mapping[str, dict[str, Tensor]], names: Mapping[str, tuple[str, ...]], file: AdapterFile
) -> None:
    """Compute the starts as LyCORIS does on loading, and check that training began there."""
    both = squares = start_squares = 0.0
    for name, found in parts.items():
        missing = [part for part in NOW if part not in found]
        if missing:
            raise UserError(f"layer {name} lacks its {missing[0]}", str(file.path), DAMAGED)
        members = _members(name, names, file.path)
        weight = torch.cat([_weight(member, file) for member in members])
        q, scale, p = (found[part].double() for part in NOW)
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        layer.weight = nn.Parameter(weight, requires_grad=False)
        [start] = draw_starts([layer], q.shape[0], "weights_principal", torch.Generator(), 1.0)
        found.update(zip(START, start, strict=True))
        if q.shape != start[0].shape or p.shape != start[2].shape:
            continue  # told by name when the pair is made
        q = scale.flatten()[:, None] * q
        q0, p0 = start[1][:, None].double() * start[0].double(), start[2].double()
        both += float(((p.T @ p0) * (q @ q0.T)).sum())
        squares += float(((p.T @ p) * (q @ q.T)).sum())
        start_squares += float(((p0.T @ p0) * (q0 @ q0.T)).sum())
    likeness = both / max((squares * start_squares) ** 0.5, 1e-30)
    if likeness < LIKENESS:
        raise UserError(
            "the file is a LyCORIS T-LoRA adapter without its start (base_*), and it did not start "
            f"at the principal part of this base's weights (cosine {likeness:.2f})",
            where=str(file.path),
            do="give the base it was trained on; a start from random numbers, or from the middle "
            "or last singular values, can't be computed again",
        )
    warnings.warn(
        f"{file.path.name} does not hold its start; it was computed from the base's weights, as "
        "LyCORIS does. With another base than that of the training the update is another one",
        stacklevel=2,
    )


def _weight(name: str, file: AdapterFile) -> Tensor:
    weight = file.weight_of(name)
    if weight is None:
        raise UserError(
            "the file is a LyCORIS T-LoRA adapter without its start (base_*), which tlora can't "
            "apply without the weights of its base",
            where=str(file.path),
            do="pass --base with the model it was trained on, as a folder or a file",
        )
    if not weight.is_floating_point():
        raise UserError(
            "the adapter's start must be computed from the base's weights, which are quantized",
            where=str(file.path),
            do="convert it first: tlora convert --base, with the base as it is stored",
        )
    return weight.detach()


# --- writing -----------------------------------------------------------------------------------


def write(path: Path, weights: AdapterWeights, sizes: Sizes) -> list[str]:
    """Write the file, with its start, and return what it can't say.

    Raises:
        UserError: for convolutions, which LyCORIS's T-LoRA takes for ones of a single place.
    """
    for name, (down, _) in weights.layers.items():
        if down.dim() > 2:
            raise UserError(
                f"LyCORIS's T-LoRA has another form for convolutions, such as {name}",
                where="adapter.targets",
                do="use --to kohya, which LyCORIS reads too, or --to tlora",
            )
    tensors: dict[str, Tensor] = {}
    for name, pair in weights.layers.items():
        now, start = two_products(weights, pair)
        parts = stored(now, NOW, ".weight") | stored(start, START)
        parts["alpha"] = torch.tensor(float(len(now.scale)))
        stem = PREFIX + name.replace(".", "_")
        tensors |= {f"{stem}.{part}": tensor for part, tensor in parts.items()}
    assert weights.schedule is not None
    header = {
        "format": "pt",
        "ss_network_module": "lycoris.kohya",
        **schedule_field(weights.schedule),
        **model_spec(weights),
    }
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=header))
    return [_schedule(weights), *_start(weights)]


def _schedule(weights: AdapterWeights) -> str:
    schedule = weights.schedule
    assert schedule is not None
    if schedule.always_full:
        return "all ranks act at every timestep: LyCORIS needs no mask"
    if schedule.title != "linear":
        return f"the rank schedule ({schedule.title}) is gone: LyCORIS knows the linear one"
    return (
        "LyCORIS does not look for the rank schedule, which the header says as SimpleTuner's does: "
        f"give LyCORIS rank {schedule.rank}, least rank {schedule.min_rank}, alpha "
        f"{schedule.alpha:g}, {schedule.num_train_timesteps} timesteps"
    )


def _start(weights: AdapterWeights) -> list[str]:
    if has_principal_start(weights):
        return []
    return [
        "its base_* tensors belong to the update: load them into the network after apply_to() "
        "(load_state_dict); what computes the start from the base's weights instead gets another "
        "update"
    ]


LYCORIS = Format("lycoris", Reader(matches, origin, read, needs_weights=lacks_start), write)
