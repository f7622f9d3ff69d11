"""Runs with sd-scripts' libraries: merges a LoRA twice, as its programs do, and says how far it is
off. Called by `sd_scripts.py`; it imports nothing of tlora.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn


def unet_of(width: int, weights: dict[str, torch.Tensor]) -> Any:
    from library import sdxl_model_util, sdxl_original_unet

    sdxl_original_unet.MODEL_CHANNELS = width
    sdxl_original_unet.TIME_EMBED_DIM = 4 * width
    unet = sdxl_original_unet.SdxlUNet2DConditionModel()
    unet.load_state_dict(sdxl_model_util.convert_diffusers_unet_state_dict_to_sdxl(weights))
    return unet


def changed(unet: Any, before: dict[str, torch.Tensor]) -> int:
    return sum(not torch.equal(t, before[name]) for name, t in unet.state_dict().items())


def main(work: Path, width: int) -> None:
    import lora
    import sdxl_merge_lora
    from library import sdxl_model_util

    base, merged = load_file(work / "base.safetensors"), load_file(work / "merged.safetensors")
    wanted = sdxl_model_util.convert_diffusers_unet_state_dict_to_sdxl(merged)
    before = sdxl_model_util.convert_diffusers_unet_state_dict_to_sdxl(base)
    file, rows = str(work / "kohya.safetensors"), []
    for program in ("sdxl_merge_lora.py", "networks/lora.py"):
        unet, texts = unet_of(width, base), [nn.Module(), nn.Module()]
        if program == "sdxl_merge_lora.py":
            sdxl_merge_lora.merge_to_sd_model(*texts, unet, [file], [1.0], [], torch.float32)
        else:
            network, found = lora.create_network_from_weights(
                1.0, file, None, texts, unet, for_inference=True
            )
            network.merge_to(texts, unet, found, torch.float32, "cpu")
        state = unet.state_dict()
        scale = max(float((wanted[name] - before[name]).abs().max()) for name in wanted)
        off = max(float((state[name] - wanted[name]).abs().max()) for name in wanted)
        expected = sum(not torch.equal(wanted[name], before[name]) for name in wanted)
        rows.append([program, changed(unet, before), expected, off / scale])
    (work / "rows.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
