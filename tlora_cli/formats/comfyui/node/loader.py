"""The node: a model and an adapter file in, the adapted model out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from .adapter_file import AdapterFile, UnreadableError, read
from .masked import MaskedUpdate, places
from .ranks import Schedule


class LoadAdapter:
    """Load a T-LoRA adapter; its ranks follow the timestep at each step of the sampling."""

    CATEGORY = "loaders"
    DESCRIPTION = (
        "Applies a T-LoRA adapter under its rank schedule: fewer ranks at noisy timesteps. "
        "Reads files of tlora, LyCORIS (algo=tlora) and the published code."
    )
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the node's inputs as ComfyUI asks for them."""
        import folder_paths

        about = "Least rank, at the noisiest timestep; 0: as the file says."
        return {
            "required": {
                "model": ("MODEL",),
                "lora_name": (folder_paths.get_filename_list("loras"),),
                "strength": ("FLOAT", {"default": 1.0, "min": -10.0, "max": 10.0, "step": 0.05}),
            },
            "optional": {
                "min_rank": ("INT", {"default": 0, "min": 0, "max": 1024, "tooltip": about}),
            },
        }

    def load(self, model: Any, lora_name: str, strength: float, min_rank: int = 0) -> tuple[Any]:
        """Return the model with the adapter on it; the given one stays as it is.

        Raises:
            ValueError: if the file is no T-LoRA, says no rank schedule, or fits another model.
        """
        import folder_paths
        from comfy.lora import model_lora_keys_unet
        from comfy.patcher_extension import WrappersMP

        if strength == 0:
            return (model,)
        file = read(folder_paths.get_full_path_or_raise("loras", lora_name))
        schedule = chosen_schedule(file, min_rank)
        key_map = model_lora_keys_unet(model.model, {})
        try:
            where = places(key_map, list(file.layers))
        except KeyError as error:
            raise ValueError(
                f"{lora_name} has a layer that this model lacks: {error.args[0]}. "
                "Use the base model that it was trained on"
            ) from error
        update = MaskedUpdate(
            [(where[name], pair) for name, pair in file.layers.items()],
            file.copies,
            schedule,
            timestep_scale(model.get_model_object("model_sampling")),
            strength,
        )
        adapted = model.clone()
        adapted.add_wrapper_with_key(WrappersMP.APPLY_MODEL, f"tlora {lora_name}", update)
        return (adapted,)


def chosen_schedule(file: AdapterFile, min_rank: int) -> Schedule:
    """Return the schedule of a file, with another least rank if one is given.

    Raises:
        UnreadableError: if neither says one, or the least rank is above the rank.
    """
    if min_rank > file.rank:
        raise UnreadableError(f"min_rank {min_rank} is above the file's rank, {file.rank}")
    if file.schedule is None:
        if not min_rank:
            raise UnreadableError(
                "the file does not say its rank schedule: set min_rank, which the training's "
                "settings tell (half of the rank in the paper)"
            )
        return Schedule(file.rank, min_rank)
    return replace(file.schedule, min_rank=min_rank) if min_rank else file.schedule


def timestep_scale(sampling: Any) -> float:
    """Return what a model's own timestep is multiplied with to get t in [0, 1000].

    A diffusion model is called with t itself; a flow model with its noise level, as such or
    times 1000.
    """
    from comfy.model_sampling import CONST

    if not isinstance(sampling, CONST):
        return 1.0
    return 1000.0 / float(sampling.timestep(torch.tensor(1.0)))
