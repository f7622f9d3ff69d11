"""A folder for ComfyUI: LoRAs, and a workflow that switches them on in time."""
