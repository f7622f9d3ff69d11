"""A node for ComfyUI that applies a T-LoRA adapter under its rank schedule.

`tlora comfyui PATH` copies this folder into ComfyUI's `custom_nodes`. It stands alone there: it
imports nothing of tlora, and of other packages only what ComfyUI has.
"""

from __future__ import annotations

from .loader import LoadAdapter

NODE_CLASS_MAPPINGS = {"TLoRALoader": LoadAdapter}
NODE_DISPLAY_NAME_MAPPINGS = {"TLoRALoader": "Load T-LoRA"}
